"""Models and photos in, a table of PSNR, SSIM, l1 and others by masked area out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from regionnorm._extras import require
from regionnorm.data import ImageSource, UnreadableImageError
from regionnorm.devices import pick_device
from regionnorm.files.remote import Place, as_place
from regionnorm.filling.classical import CLASSICAL_FILLERS, classical_filler
from regionnorm.imaging import MASK_THRESHOLD, composite, image_to_tensor, mask_to_tensor, read_mask
from regionnorm.masks import INTERVALS, Interval, MaskFolder, evaluation_mask, interval_mask
from regionnorm.measuring.metrics import METRICS, MetricPreset, compute_metrics, get_preset
from regionnorm.measuring.perceptual import PairMetric, SetMetric
from regionnorm.measuring.report import Case, Report, interval_label, make_report

Filler = Callable[[Tensor, Tensor], Tensor]
"""``filler(image, mask) -> image``: ``[B, 3, H, W]`` in [0, 1] and ``[B, 1, H, W]``, 1 = hole."""

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

    Raises:
        ValueError: An argument makes no sense, no photo can be used, or a model returns a wrong
            shape or values that are not finite.
    """
    chosen = get_preset(preset)
    smallest = max(MIN_SIDE, chosen.window_size)
    _check_arguments(models, intervals, limit, batch_size, difference_to)
    if size is not None and size < smallest:
        raise ValueError(f"size must be at least {smallest} pixels or None, got {size}")
    if size is not None and size > MAX_SIDE:
        raise ValueError(f"size must be at most {MAX_SIDE} pixels or None, got {size}")
    count = len(source) if limit is None else min(limit, len(source))
    mask_set: _FixedMasks | _FolderMasks = _FixedMasks(tuple(intervals), seed)
    if masks is not None:
        mask_set = _FolderMasks.measure(masks, intervals, size, count)
    total = count * len(mask_set.intervals) * len(models)
    skipped: list[str] = []
    photos = _read_photos(source, count, size, smallest, skipped)

    cases: list[Case] = []
    further = further or {}
    columns = (*METRICS, *further)
    values: dict[str, dict[str, list[float]]] = {m: {k: [] for k in columns} for m in models}
    sets = _sets(fid, models, mask_set.intervals)
    done = 0
    for batch in _batches(_pairs(photos, mask_set), batch_size):
        cases += batch.cases
        for name, model in models.items():
            result, image, mask = _fill(name, model, batch)
            measured = compute_metrics(result, image, chosen)
            measured |= {key: metric(result, image, mask) for key, metric in further.items()}
            for metric_name, column in measured.items():
                values[name][metric_name] += column.tolist()
            for i, case in enumerate(batch.cases if sets else ()):
                for group in (case.interval, None):
                    sets[name, group].update(result[i : i + 1], image[i : i + 1])
            done += len(batch.cases)
            if on_progress is not None:
                on_progress(done, total)
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
            ``"+completion"`` at its end, wide holes are completed with pieces of the photo, as in
            ``regionnorm inpaint``; ``"exemplar"`` takes nothing but those.
        device: Where a network runs; None chooses.
        jobs: Threads of a classical filler.

    Returns:
        Name (of a path its last part, without suffix), and a function for :func:`evaluate`.

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
    if spec not in names and not path.exists() and "/" not in spec:
        known = f"{', '.join([*names, *CLASSICAL_FILLERS, _EXEMPLAR])} or a weights file"
        if spec in list_models():
            raise ValueError(f"model {spec!r} comes without trained weights; give {known}")
        raise FileNotFoundError(f"there is no model and no file {spec!r}; give {known}")
    network = load_pretrained(spec, device=pick_device(device))
    is_path = spec not in names and path.exists()
    name = (path.stem if path.is_file() else path.name) if is_path else spec
    return name or spec, _network_filler(network, device)


def _completed(filler: Filler | None) -> Filler:
    """Pieces of the photo in wide holes, joined with a filler's fills if there is one."""
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


# --- masks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FixedMasks:
    """Generated masks that are the same in every run and on every machine."""

    intervals: tuple[Interval, ...]
    seed: int

    @property
    def description(self) -> str:
        return f"fixed set, seed {self.seed}"

    def get(self, photo: int, interval: Interval, height: int, width: int) -> npt.NDArray[np.bool_]:
        if height == width:
            return evaluation_mask(photo, interval, height, self.seed)
        low, high = (round(1_000_000 * share) for share in interval)
        rng = np.random.default_rng((self.seed, low, high, height, width, photo))
        # As in the square set: every other mask touches the border.
        return interval_mask(height, width, interval, rng, touch_border=photo % 2 == 0)


@dataclass(frozen=True)
class _FolderMasks:
    """Mask files sorted into intervals by their area."""

    files: Mapping[Interval, Sequence[Place]]
    description: str

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return tuple(self.files)

    @classmethod
    def measure(
        cls, folder: MaskFolder, intervals: Sequence[Interval], size: int | None, count: int
    ) -> _FolderMasks:
        """Measure files until every interval has one for each of ``count`` photos."""
        files: dict[Interval, list[Place]] = {interval: [] for interval in intervals}
        for path in folder.files:
            mask = read_mask(path)
            area = float((mask if size is None else _stretch(mask, size, size)).mean())
            for low, high in files:
                if low < area <= high:
                    files[low, high].append(path)
            if all(len(found) >= count for found in files.values()):
                break
        found = {interval: paths for interval, paths in files.items() if paths}
        if not found:
            raise ValueError(
                f"none of the {len(folder.files)} masks in {folder.path} has an area inside"
                f" {', '.join(map(interval_label, intervals))}; white is hole"
            )
        return cls(found, f"files in {folder.path}")

    def get(self, photo: int, interval: Interval, height: int, width: int) -> npt.NDArray[np.bool_]:
        paths = self.files[interval]
        return _stretch(read_mask(paths[photo % len(paths)]), height, width)


def _stretch(mask: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized, dtype=np.bool_)


# --- photos --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Photo:
    number: int
    name: str
    image: Tensor  # [1, 3, H, W]


@dataclass
class _Batch:
    cases: list[Case] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    placed: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Photos and masks on a device.

        The same tensors at every call: measures keep what they know of a photo for the next model.
        """
        if device not in self.placed:
            image, mask = torch.cat(self.images), torch.cat(self.masks)
            self.placed[device] = image.to(device), mask.to(device)
        return self.placed[device]


def _read_photos(
    source: ImageSource, count: int, size: int | None, minimum: int, skipped: list[str]
) -> Iterator[_Photo]:
    """Yield the usable photos among the first ``count``; name the others in ``skipped``."""
    for number in range(count):
        name = source.name(number)
        try:
            photo = source.read(number)
        except UnreadableImageError as error:
            skipped.append(str(error))
            continue
        if size is not None and photo.size != (size, size):
            photo = ImageOps.fit(photo, (size, size), Image.Resampling.LANCZOS)
        if min(photo.size) < minimum:
            width, height = photo.size
            skipped.append(f"{name}: {width}x{height} px is too small, {minimum} are needed")
            continue
        yield _Photo(number, name, image_to_tensor(photo))


def _pairs(
    photos: Iterable[_Photo], masks: _FixedMasks | _FolderMasks
) -> Iterator[tuple[Case, Tensor, Tensor]]:
    """Yield every photo under a mask of every interval."""
    for photo in photos:
        height, width = photo.image.shape[-2:]
        for interval in masks.intervals:
            mask = masks.get(photo.number, interval, height, width)
            case = Case(photo.name, interval, float(mask.mean()))
            yield case, photo.image, mask_to_tensor(mask)


def _batches(pairs: Iterable[tuple[Case, Tensor, Tensor]], batch_size: int) -> Iterator[_Batch]:
    """Collect pairs of one shape, ``batch_size`` at most."""
    batch = _Batch()
    for case, image, mask in pairs:
        full = len(batch.cases) == batch_size
        if full or (batch.images and batch.images[0].shape != image.shape):
            yield batch
            batch = _Batch()
        batch.cases.append(case)
        batch.images.append(image)
        batch.masks.append(mask)
    if batch.cases:
        yield batch


def _fill(name: str, model: Filler, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Composited results, photos and masks of a batch, on the device that the model answers on."""
    image, mask = batch.on(torch.device("cpu"))
    with torch.inference_mode():
        # Models see what a user would give them: nothing of the photo is left under the hole.
        output = model(image * (1 - mask), mask)
        if output.shape != image.shape:
            raise ValueError(
                f"model {name!r} returned shape {list(output.shape)} for photos of"
                f" {list(image.shape)}; it must return filled photos of the same shape"
            )
        image, mask = batch.on(output.device)
        result = composite(image, output.float(), mask)
    if not bool(result.isfinite().all()):
        bad = next(i for i, photo in enumerate(result) if not bool(photo.isfinite().all()))
        raise ValueError(
            f"model {name!r} returned values that are not finite"
            f" for {batch.cases[bad].photo}; its weights may be damaged"
        )
    return result, image, mask


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
