"""Photos that stay decoded in a device's memory, and random crops that are made there.

Training from files decodes every photo once in each epoch; a fast GPU then waits for the decoder.
Here every photo is decoded once. The crops are those of :class:`InpaintingDataset`, position by
position; they are resampled on the device, with the same cubic filter, a whole batch at a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from regionnorm.data.dataset import InpaintingDataset
from regionnorm.data.sources import ImageSource, UnreadableImageError

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

_SAMPLED = 64  # photos, taken at random, from which the memory for all is estimated
_MOST_THREADS = 32
_PIXELS_AT_ONCE = 1 << 24  # of the windows that are resampled together: bounds the memory
_CUBIC = -0.5  # Pillow's bicubic filter (Keys, 1981)


class DoesNotFitError(ValueError):
    """The photos need more memory than they may have; the message says how much."""


class ResidentBatch(NamedTuple):
    """Crops of a batch."""

    image: Tensor
    """float32 ``[B, 3, S, S]`` in [0, 1], whole multiples of 1/255."""
    skipped: int
    """How many unreadable photos were passed over."""


class ResidentPhotos:
    """The photos of a dataset as uint8 on a device, and batches of random crops of them.

    Crop, mirroring and photo at a position are those of the dataset at that position, and like
    those a function of seed and position alone. The pixels differ a little, by rounding, and where
    the photo was reduced for storing. A batch is made without waiting for the device.

    Args:
        dataset: names photos and crops; its masks are not used.
        device: where the pixels are kept and the crops are made.
        limit: the most bytes that the pixels may take; None takes half of what is free. More than
            six tenths of what is free are never taken: training needs the rest.
        threads: how many photos are decoded at once; None takes one for each core.
        on_progress: called with the number of photos decoded and of all.

    Raises:
        DoesNotFitError: the photos need more than ``limit``.
        UnreadableImageError: none of the photos can be read.
    """

    def __init__(
        self,
        dataset: InpaintingDataset,
        device: torch.device | str = "cpu",
        *,
        limit: int | None = None,
        threads: int | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        free = free_memory(self.device)
        limit = free // 2 if limit is None else min(limit, free * 6 // 10)
        # The smallest crop then has a photo pixel for each of its own; more would not be seen.
        short = math.ceil(dataset.size / dataset.min_scale)
        photos = _decoded(dataset.source, short, threads)
        count = len(dataset.source)
        self.pixels, self._starts, self._sides = _load(
            photos, count, limit, self.device, on_progress
        )

    @property
    def readable(self) -> int:
        """How many photos are kept."""
        return int(np.count_nonzero(self._starts >= 0))

    def batch(self, positions: Sequence[int]) -> ResidentBatch:
        """Return the crops at ``positions`` of the dataset."""
        dataset, size = self.dataset, self.dataset.size
        indices, skipped = zip(*(self._photo(position) for position in positions), strict=True)
        drawn = [dataset.draw(position)[0] for position in positions]
        chosen = list(indices)
        sides = self._sides[chosen].astype(np.float64)  # [B, 2] as height, width
        side = np.maximum(1.0, np.array([one.scale for one in drawn]) * sides.min(axis=1))
        place = np.array([(one.down, one.across) for one in drawn])
        begin, step = place * (sides - side[:, None]), np.repeat(side[:, None] / size, 2, axis=1)
        mirrored = np.array([one.mirrored for one in drawn])
        # Read from right to left, the crop is mirrored for free.
        begin[mirrored, 1] += side[mirrored]
        step[mirrored, 1] *= -1
        parts = []
        each = max(1, _PIXELS_AT_ONCE // _window(step, size) ** 2)
        for part in (slice(start, start + each) for start in range(0, len(chosen), each)):
            photos = np.column_stack([self._starts[chosen[part]], self._sides[chosen[part]]])
            parts.append(_resample(self.pixels, photos, begin[part], step[part], size))
        return ResidentBatch(torch.cat(parts), sum(skipped))

    def _photo(self, position: int) -> tuple[int, int]:
        """Return the readable photo of a position, and how many others were passed over."""
        for skipped, index in enumerate(self.dataset.candidates(position)):
            if self._starts[index] >= 0:
                return index, skipped
        raise UnreadableImageError(f"no readable photo near position {position}")


def free_memory(device: torch.device) -> int:
    """Return how many bytes a device has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # Linux counts the file cache as available; the portable figure leaves it out.
    with suppress(OSError), Path("/proc/meminfo").open(encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2
    except (AttributeError, ValueError):  # Windows has no sysconf
        return 4 << 30


# --- loading --------------------------------------------------------------------------------------


def _load(
    photos: Iterable[tuple[int, Pixels | UnreadableImageError]],
    count: int,
    limit: int,
    device: torch.device,
    on_progress: Progress | None,
) -> tuple[Tensor, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Put photos into one flat buffer: a canvas for the largest would waste memory.

    Returns:
        uint8 ``[P, 3]``, the pixels of all photos row by row; ``[N]``, where each photo begins, -1
        if it is unreadable; ``[N, 2]``, height and width.
    """
    starts = np.full(count, -1, dtype=np.int64)
    sides = np.zeros((count, 2), dtype=np.int64)
    buffer = torch.empty((max(limit // 3, 1), 3), dtype=torch.uint8, device=device)
    used, error = 0, ""
    for done, (index, photo) in enumerate(photos, start=1):
        if isinstance(photo, UnreadableImageError):
            error = str(photo)
        else:
            start, used = used, used + photo.shape[0] * photo.shape[1]
            _check_fit(3 * used, limit, done, count)
            buffer[start:used].copy_(torch.from_numpy(photo).view(-1, 3))
            starts[index], sides[index] = start, photo.shape[:2]
        if on_progress is not None:
            on_progress(done, count)
    if not used:
        raise UnreadableImageError(f"none of {count} photos can be read; the last: {error}")
    # A copy as large as needed, where there surely is room for both.
    pixels = buffer[:used].clone() if 2 * used < len(buffer) else buffer[:used]
    del buffer
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return pixels, starts, sides


def _decoded(
    source: ImageSource, short: int, threads: int | None
) -> Iterator[tuple[int, Pixels | UnreadableImageError]]:
    """Yield number and pixels ``[H, W, 3]`` of each photo, in a shuffled order."""
    threads = min(_MOST_THREADS, threads or os.cpu_count() or 1)

    def decode(index: int) -> Pixels | UnreadableImageError:
        try:
            return np.array(_reduced(source.read(index, at_least=short), short))
        except UnreadableImageError as error:
            return error

    # Shuffled, so that the first photos tell how much memory all of them need.
    order = iter(np.random.default_rng(0).permutation(len(source)).tolist())
    with ThreadPoolExecutor(threads) as pool:
        # In groups: the pool would otherwise run ahead and pile up decoded photos.
        while group := list(islice(order, 8 * threads)):
            yield from zip(group, pool.map(decode, group), strict=True)


def _reduced(photo: Image.Image, short: int) -> Image.Image:
    if (least := min(photo.size)) <= short:
        return photo
    width, height = (max(1, round(side * short / least)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _check_fit(used: int, limit: int, done: int, count: int) -> None:
    """Stop at the limit, or as soon as it is clear that it will be passed."""
    expected = used * count / done
    if used > limit or (done >= _SAMPLED and expected > 1.2 * limit):
        gib = 1 << 30
        raise DoesNotFitError(
            f"{count} photos need about {expected / gib:.3g} GiB decoded, more than the "
            f"{limit / gib:.3g} GiB allowed"
        )


# --- resampling -----------------------------------------------------------------------------------


def _window(step: npt.NDArray[np.float64], size: int) -> int:
    """Return how many photo pixels in a row the filter may reach, rounded up for few shapes."""
    largest = float(np.abs(step).max())
    return math.ceil((largest * size + 4 * max(1.0, largest) + 2) / 32) * 32


def _resample(
    pixels: Tensor,
    photos: npt.NDArray[np.int64],
    begin: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    size: int,
) -> Tensor:
    """Resample crops of photos with a cubic filter that widens where the crop is scaled down.

    Args:
        pixels: uint8 ``[P, 3]``.
        photos: ``[B, 3]``: where each photo begins in ``pixels``, its height, its width.
        begin: ``[B, 2]``: top and left of each crop in photo pixels; right if it is mirrored.
        step: ``[B, 2]``: photo pixels to an output pixel down and across, below 0 if mirrored.
        size: output side ``S``.

    Returns:
        float32 ``[B, 3, S, S]`` in [0, 1], rounded to multiples of 1/255 as files are.
    """
    device, window = pixels.device, _window(step, size)
    reach = 2 * np.maximum(1.0, np.abs(step))
    first = np.floor(np.minimum(begin, begin + step * size) - reach).astype(np.int64)
    # Relative to the window, float32 places a pixel to 1e-4; relative to a panorama it would not.
    where = _to_device(np.stack([begin - first, step], axis=1).astype(np.float32), device)
    whole = _to_device(np.concatenate([photos, first], axis=1), device)
    start, sides, first_on_device = whole[:, :1, None], whole[:, 1:3], whole[:, 3:]
    places = first_on_device[:, :, None] + torch.arange(window, device=device)  # [B, 2, W]
    inside = (places >= 0) & (places < sides[:, :, None])
    places = places.clamp(min=0).minimum(sides[:, :, None] - 1)
    index = start + places[:, 0, :, None] * sides[:, 1:, None] + places[:, 1, None, :]
    values = pixels[index].permute(0, 3, 1, 2).to(torch.float32)
    weights = _weights(where[:, 0], where[:, 1], inside, size)
    # Across, then down, with whole levels from 0 to 255 after each, as Pillow does it.
    across = (values @ weights[:, 1, None].transpose(-1, -2)).round_().clamp_(0, 255)
    return (weights[:, 0, None] @ across).round_().clamp_(0, 255).div_(255)


def _weights(begin: Tensor, step: Tensor, inside: Tensor, size: int) -> Tensor:
    """Return the filter as matrices ``[B, 2, S, W]`` from window to output pixels.

    Weights of places outside the photo are zero and the others grow to a sum of 1, as in Pillow.
    """
    device, window = begin.device, inside.shape[2]
    centres = begin[:, :, None] + step[:, :, None] * (torch.arange(size, device=device) + 0.5)
    places = torch.arange(window, device=device) + 0.5
    widening = step.abs().clamp(min=1)[:, :, None, None]
    x = ((places - centres[..., None]) / widening).abs_()
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0)) * inside[:, :, None]
    return weights / weights.sum(dim=-1, keepdim=True)


def _to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy to a device without waiting for it; that takes page-locked memory."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
