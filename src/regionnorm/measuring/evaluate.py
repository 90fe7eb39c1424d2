"""Models and photos in, a table of PSNR, SSIM, l1 and others by masked area out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regionnorm._extras import require
from regionnorm.data import ImageSource
from regionnorm.devices import pick_device
from regionnorm.files.remote import as_place
from regionnorm.filling.classical import CLASSICAL_FILLERS, classical_filler
from regionnorm.imaging import MASK_THRESHOLD
from regionnorm.masks import INTERVALS, Interval, MaskFolder
from regionnorm.measuring.metrics import METRICS, MetricPreset, get_preset
from regionnorm.measuring.parts import Filler, FixedMasks, FolderMasks, Part, Setup, measure_part
from regionnorm.measuring.perceptual import PairMetric, SetMetric
from regionnorm.measuring.report import Report, make_report

__all__ = ["Filler", "Work", "evaluate", "resolve_model", "resolve_models"]

Work: TypeAlias = Callable[[Setup, Sequence[range]], Iterable[tuple[int, Part]]]
"""Measures parts of the photos in any order; yields each with its place among them."""
_COMPLETION, _EXEMPLAR = "+completion", "exemplar"

MIN_SIDE, MAX_SIDE = 16, 4096
"""The smallest photo in pixels that every model takes."""


def evaluate(
    models: Mapping[str, Filler],
    source: ImageSource,
    *,
    masks: MaskFolder | None = None,
    size: int | None = 256,
    intervals: Sequence[Interval] = INTERVALS,
    preset: str | MetricPreset = "default",
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    difference_to: str | None = None,
    further: Mapping[str, PairMetric] | None = None,
    fid: Callable[[], SetMetric] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    work: Work | None = None,
) -> Report:
    """Let models fill the same photos under the same masks, and measure the results.

    Every photo is filled once in every interval of masked area. Results are composited (known
    pixels come from the photo) before they are measured over the whole picture. Photos that
    cannot be read or are too small are left out and named in the report.

    Args:
        models: Name to function of float32 CPU tensors; see :func:`resolve_model`. The photo is
            zero under the hole.
        source: The photos.
        masks: Mask files, each used in the interval that its area, measured at ``size``, falls
            into, stretched to the photo; photo number i takes the i-th of an interval, from the
            start again after the last. None: a fixed set that depends on ``seed``, photo number
            and size only.
        size: Photos are scaled and cropped centrally to this square; None keeps them.
        intervals: Shares of hole pixels, low exclusive, high inclusive.
        preset: How to measure, see :data:`regionnorm.measuring.metrics.PRESETS`.
        limit: Take only the first so many photos.
        seed: Seeds the fixed masks and the bootstrap.
        batch_size: How many photos a model gets at once.
        difference_to: Also report each model's PSNR minus this one's, photo by photo.
        further: More measures by name, see :func:`regionnorm.measuring.perceptual.make_metrics`.
        fid: Makes an empty measure of sets,
            :class:`regionnorm.measuring.perceptual.FrechetDistance`; one is kept for each
            model and interval.
        on_progress: Called with the number of finished and of all fillings.
        work: What fills and measures; by default this process. Others have models and further
            measures of their own, and no measures of sets.

    Raises:
        ValueError: An argument makes no sense, no photo can be used, or a model returns a wrong
            shape or values that are not finite.
    """
    if work is not None and fid is not None:
        raise ValueError("fid looks at all photos together, which one process has to; leave it out")
    chosen = get_preset(preset)
    smallest = max(MIN_SIDE, chosen.window_size)
    _check_arguments(models, intervals, limit, batch_size, difference_to)
    if size is not None and size < smallest:
        raise ValueError(f"size must be at least {smallest} pixels or None, got {size}")
    if size is not None and size > MAX_SIDE:
        raise ValueError(f"size must be at most {MAX_SIDE} pixels or None, got {size}")
    count = len(source) if limit is None else min(limit, len(source))
    if fid is not None and count < 2:
        raise ValueError(f"fid compares sets of photos, and there is {count}; give two or more")
    mask_set: FixedMasks | FolderMasks = FixedMasks(tuple(intervals), seed)
    if masks is not None:
        mask_set = FolderMasks.measure(masks, intervals, size, count)
    total = count * len(mask_set.intervals) * len(models)
    further = further or {}
    setup = Setup(source, mask_set, size, smallest, chosen, batch_size)
    ranges = _ranges(count, batch_size, len(mask_set.intervals))
    sets = _sets(fid, models, mask_set.intervals)
    done = 0

    def advance(fillings: int) -> None:
        nonlocal done
        done += fillings
        if on_progress is not None:
            on_progress(done, total)

    parts: dict[int, Part] = {}
    if work is None:
        for number, photos in enumerate(ranges):
            parts[number] = measure_part(setup, models, further, photos, sets, advance)
    else:
        for number, part in work(setup, ranges):
            parts[number] = part
            advance(len(part.cases) * len(models))
    found = [parts[number] for number in range(len(ranges))]
    cases = [case for part in found for case in part.cases]
    skipped = [line for part in found for line in part.skipped]
    values = {
        model: {
            column: [value for part in found for value in part.values[model][column]]
            for column in (*METRICS, *further)
        }
        for model in models
    }
    if not cases:
        raise ValueError(
            f"none of {count} photos can be evaluated"
            + (f", the first because of: {skipped[0]}" if skipped else "; give at least one")
        )
    if skipped and on_progress is not None:
        on_progress(total, total)
    return make_report(
        cases,
        values,
        difference_to=difference_to,
        seed=seed,
        preset=preset if isinstance(preset, str) else repr(preset),
        size=size,
        masks=mask_set.description,
        skipped=skipped,
        fid={key: measure.compute() for key, measure in sets.items()} if sets else None,
    )


def _ranges(count: int, batch_size: int, intervals: int) -> list[range]:
    """Photos cut into parts that fill whole batches, so that a part is the same by itself."""
    step = batch_size // math.gcd(batch_size, intervals)
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


def _sets(
    make: Callable[[], SetMetric] | None, models: Iterable[str], intervals: Iterable[Interval]
) -> dict[tuple[str, Interval | None], SetMetric]:
    """An empty measure of sets for each model in each interval and in all together."""
    if make is None:
        return {}
    groups: list[Interval | None] = [*intervals, None]
    return {(model, group): make() for model in models for group in groups}


# --- models --------------------------------------------------------------------------------------


def resolve_models(
    specs: Iterable[str], device: str | torch.device | None = None, *, jobs: int = 1
) -> dict[str, Filler]:
    """Turn what a user typed into :func:`evaluate`'s models; see :func:`resolve_model`.

    Weights files that share a name go by their whole path.

    Raises:
        ValueError: One is given twice, or as :func:`resolve_model` does.
    """
    models: dict[str, Filler] = {}
    seen: set[str] = set()
    for spec in specs:
        if spec in seen:
            raise ValueError(f"model {spec!r} is given twice; name each model once")
        seen.add(spec)
        name, filler = resolve_model(spec, device, jobs=jobs)
        models[spec if name in models else name] = filler
    return models


def resolve_model(
    spec: str, device: str | torch.device | None = None, *, jobs: int = 1
) -> tuple[str, Filler]:
    """Turn one model that a user typed into its name in tables and a function to call.

    Args:
        spec: ``"telea"``, ``"ns"`` or ``"biharmonic"``; ``"default"`` or another name of packaged
            weights; a weights file, a training run's folder, or a hub repository. With
            ``"+completion"`` at its end, holes are completed with pieces of the photo, as in
            ``regionnorm inpaint``; ``"exemplar"`` takes nothing but those.
        device: Where a network runs; None chooses.
        jobs: Threads of a classical filler.

    Returns:
        Name (of a path its last part, without suffix, unless that names another model), and a
        function for :func:`evaluate`.

    Raises:
        ValueError: The name is a network's that has no weights, or nothing can be loaded from it.
        FileNotFoundError: It is neither a known name nor a file.
        ImportError: A classical filler's library is missing.
    """
    if spec.endswith(_COMPLETION) and not as_place(spec).exists():
        name, filler = resolve_model(spec.removesuffix(_COMPLETION), device, jobs=jobs)
        return name + _COMPLETION, _completed(filler)
    if spec == _EXEMPLAR:
        return spec, _completed(None)
    if spec in CLASSICAL_FILLERS:
        return spec, classical_filler(spec, jobs=jobs)
    from regionnorm.checkpoints.weights import load_pretrained, packaged_weights
    from regionnorm.models import list_models

    path, names = as_place(spec), {"default": None, **packaged_weights()}
    others = [*names, *CLASSICAL_FILLERS, _EXEMPLAR]
    if spec not in names and not path.exists() and "/" not in spec:
        known = f"{', '.join(others)} or a weights file"
        if spec in list_models():
            raise ValueError(f"model {spec!r} comes without trained weights; give {known}")
        raise FileNotFoundError(f"there is no model and no file {spec!r}; give {known}")
    network = load_pretrained(spec, device=pick_device(device))
    is_path = spec not in names and path.exists()
    name = (path.stem if path.is_file() else path.name) if is_path else spec
    return spec if not name or name in others else name, _network_filler(network, device)


def _completed(filler: Filler | None) -> Filler:
    """Pieces of the photo, joined with a filler's fills if there is one."""
    require("numba", extra="fast")
    from regionnorm.filling.completion.complete import complete

    def fill(image: Tensor, mask: Tensor) -> Tensor:
        photos = image.float().cpu()
        painted = [None] * len(photos) if filler is None else list(_arrays(filler(image, mask)))
        holes = mask[:, 0].cpu().numpy() > MASK_THRESHOLD
        filled = [
            complete(photo, hole, network=network)
            for photo, hole, network in zip(_arrays(photos), holes, painted, strict=True)
        ]
        return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2)

    return fill


def _arrays(images: Tensor) -> npt.NDArray[np.float32]:
    """``[B, 3, H, W]`` to float32 ``[B, H, W, 3]`` in [0, 1]."""
    return images.float().cpu().clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


def _network_filler(network: torch.nn.Module, device: str | torch.device | None) -> Filler:
    place = pick_device(device)
    network.eval().to(place)

    def fill(image: Tensor, mask: Tensor) -> Tensor:
        with torch.inference_mode():
            filled: Tensor = network(image.to(place), mask.to(place))
        return filled

    return fill


def _check_arguments(
    models: Mapping[str, Filler],
    intervals: Sequence[Interval],
    limit: int | None,
    batch_size: int,
    difference_to: str | None,
) -> None:
    if not models:
        raise ValueError("no model to evaluate; give at least one")
    if not intervals:
        raise ValueError("no interval to evaluate; give at least one, for example (0.1, 0.2)")
    for low, high in intervals:
        if not 0 <= low < high <= 1:
            raise ValueError(f"interval ({low}, {high}) is not 0 <= low < high <= 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 photo or None, got {limit}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if difference_to is not None and difference_to not in models:
        raise ValueError(
            f"difference_to={difference_to!r} is not among the models: {', '.join(models)}"
        )
