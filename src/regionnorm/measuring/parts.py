"""Some of the photos of an evaluation, filled and measured: what one process does at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from regionnorm.data import ImageSource, UnreadableImageError
from regionnorm.files.remote import Place
from regionnorm.imaging import composite, image_to_tensor, mask_to_tensor
from regionnorm.masks import Interval, MaskFolder, evaluation_mask, interval_mask
from regionnorm.masks.levels import read_hole
from regionnorm.measuring.metrics import METRICS, MetricPreset, compute_metrics
from regionnorm.measuring.perceptual import PairMetric, SetMetric
from regionnorm.measuring.report import Case, interval_label

__all__ = ["Filler", "FixedMasks", "FolderMasks", "Part", "Setup", "measure_part"]

Filler = Callable[[Tensor, Tensor], Tensor]
"""``filler(image, mask) -> image``: ``[B, 3, H, W]`` in [0, 1] and ``[B, 1, H, W]``, 1 = hole."""


@dataclass(frozen=True)
class Setup:
    """What all parts of an evaluation have in common.

    Attributes:
        source: The photos.
        masks: A mask for each photo and interval.
        size: Side of the photos; None keeps them.
        smallest: Side in pixels of the smallest photo that is used.
        preset: How to measure.
        batch_size: How many photos a model gets at once.
    """

    source: ImageSource
    masks: FixedMasks | FolderMasks
    size: int | None
    smallest: int
    preset: MetricPreset
    batch_size: int


@dataclass
class Part:
    """What was found on some of the photos.

    Attributes:
        cases: What was filled.
        values: Model to metric to one value per case.
        skipped: Photos that could not be used, each with the reason.
    """

    cases: list[Case] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def measure_part(
    setup: Setup,
    models: Mapping[str, Filler],
    further: Mapping[str, PairMetric],
    photos: range,
    sets: Mapping[tuple[str, Interval | None], SetMetric] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Part:
    """Fill and measure some of the photos.

    Args:
        setup: What all parts have in common.
        models: As for :func:`evaluate`.
        further: As for :func:`evaluate`.
        photos: Numbers of the photos.
        sets: Measures of sets to tell of every fill.
        advance: Called with the number of fillings that were just finished.
    """
    part = Part(values={m: {k: [] for k in (*METRICS, *further)} for m in models})
    read = _read_photos(setup.source, photos, setup.size, setup.smallest, part.skipped)
    for batch in _batches(_pairs(read, setup.masks), setup.batch_size):
        part.cases += batch.cases
        for name, model in models.items():
            result, image, mask = _fill(name, model, batch)
            measured = compute_metrics(result, image, setup.preset)
            measured |= {key: metric(result, image, mask) for key, metric in further.items()}
            for metric_name, column in measured.items():
                part.values[name][metric_name] += column.tolist()
            for i, case in enumerate(batch.cases if sets else ()):
                for group in (case.interval, None):
                    assert sets is not None
                    sets[name, group].update(result[i : i + 1], image[i : i + 1])
            if advance is not None:
                advance(len(batch.cases))
    return part


# --- masks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixedMasks:
    """Generated masks that are the same in every run and on every machine."""

    intervals: tuple[Interval, ...]
    seed: int

    @property
    def description(self) -> str:
        """Where the masks come from, in words."""
        return f"fixed set, seed {self.seed}"

    def get(self, photo: int, interval: Interval, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The bool ``[H, W]`` mask of a photo's number in an interval."""
        if height == width:
            return evaluation_mask(photo, interval, height, self.seed)
        low, high = (round(1_000_000 * share) for share in interval)
        rng = np.random.default_rng((self.seed, low, high, height, width, photo))
        # As in the square set: every other mask touches the border.
        return interval_mask(height, width, interval, rng, touch_border=photo % 2 == 0)


@dataclass(frozen=True)
class FolderMasks:
    """Mask files sorted into intervals by their area."""

    files: Mapping[Interval, Sequence[Place]]
    description: str

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """Those that there are masks for."""
        return tuple(self.files)

    @classmethod
    def measure(
        cls, folder: MaskFolder, intervals: Sequence[Interval], size: int | None, count: int
    ) -> FolderMasks:
        """Measure files until every interval has one for each of ``count`` photos."""
        files: dict[Interval, list[Place]] = {interval: [] for interval in intervals}
        damaged = 0
        for path in folder.files:
            try:
                mask = read_hole(path, refuse_photos=True)
            except (OSError, ValueError):
                damaged += 1
                continue
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
                + (f"; {damaged} cannot be read or look like photos" if damaged else "")
            )
        left_out = f", {damaged} of which are left out: damaged, or photos" if damaged else ""
        return cls(found, f"files in {folder.path}{left_out}")

    def get(self, photo: int, interval: Interval, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The bool ``[H, W]`` mask of a photo's number in an interval."""
        paths = self.files[interval]
        return _stretch(read_hole(paths[photo % len(paths)]), height, width)


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
    source: ImageSource, numbers: range, size: int | None, minimum: int, skipped: list[str]
) -> Iterator[_Photo]:
    """Yield the usable photos among these; name the others in ``skipped``."""
    for number in numbers:
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
    photos: Iterable[_Photo], masks: FixedMasks | FolderMasks
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
