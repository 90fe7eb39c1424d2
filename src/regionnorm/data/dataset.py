"""Photos and masks as training samples that depend on a seed and a position only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from regionnorm.data.sources import ImageSource, candidates, read_first
from regionnorm.masks.generated import MIN_SIDE, MaskSampler

_ORDER_STREAM, _SAMPLE_STREAM = 0, 1


class Sample(TypedDict):
    """One training sample."""

    image: Tensor
    """uint8 ``[3, S, S]``, RGB; divide by 255 on the device."""
    mask: Tensor
    """float32 ``[1, S, S]``, 1 in the hole."""
    skipped: int
    """How many unreadable photos were passed over to find this one."""


class Drawn(NamedTuple):
    """What chance decides about the crop of a sample."""

    scale: float
    """Side of the crop as a share of the photo's short side."""
    across: float
    """Where the crop lies from left to right, 0 to 1."""
    down: float
    """Where it lies from top to bottom, 0 to 1."""
    mirrored: bool


class InpaintingDataset(Dataset[Sample]):
    """Randomly cropped and flipped photos with masks.

    The sample at position ``p`` is a function of ``seed`` and ``p`` alone: ``p // len(self)`` is
    the epoch, each with its own order, and ``p`` seeds the crop, the flip and the mask. A run
    therefore resumes exactly by going on from the position that it reached, and neither the
    number of workers nor the batch size changes a sample.

    Args:
        source: the photos.
        masks: draws the holes.
        size: side ``S`` of the samples in pixels, at least 16.
        seed: 0 or more.
        min_scale: the side of a crop is drawn from ``min_scale`` to ``max_scale`` times the
            photo's short side; above 0, at most ``max_scale``.
        max_scale: at most 1.
        flip: mirror half of the photos from left to right.

    Raises:
        ValueError: for an empty source or an option out of range.
    """

    def __init__(
        self,
        source: ImageSource,
        masks: MaskSampler,
        *,
        size: int = 256,
        seed: int = 0,
        min_scale: float = 0.5,
        max_scale: float = 1.0,
        flip: bool = True,
    ) -> None:
        if len(source) == 0:
            raise ValueError("the source holds no photos")
        if size < MIN_SIDE:
            raise ValueError(f"size {size}: must be at least {MIN_SIDE} px")
        if seed < 0:
            raise ValueError(f"seed {seed}: must be 0 or more")
        if not 0 < min_scale <= max_scale <= 1:
            raise ValueError(
                f"min_scale {min_scale:g} and max_scale {max_scale:g}: "
                "should be above 0, in order and at most 1"
            )
        self.source = source
        self.masks = masks
        self.size = size
        self.seed = seed
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.flip = flip
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Return the number of photos, which is the length of an epoch."""
        return len(self.source)

    def __getitem__(self, position: int) -> Sample:
        """Return the sample at ``position``, 0 or more, without an upper end.

        Raises:
            IndexError: for a negative position.
            UnreadableImageError: if none of the photos tried can be read.
        """
        if position < 0:
            raise IndexError(f"position {position}: must be 0 or more")
        drawn, rng = self.draw(position)
        mask = self.masks(self.size, self.size, rng)
        photo, skipped = self._photo(position, at_least=int(np.ceil(self.size / drawn.scale)))
        crop = _crop(photo, drawn.scale, drawn.across, drawn.down, self.size)
        pixels = np.asarray(crop)
        if drawn.mirrored:
            pixels = pixels[:, ::-1]
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        hole = torch.from_numpy(mask.astype(np.float32)[None])
        return {"image": image, "mask": hole, "skipped": skipped}

    def draw(self, position: int) -> tuple[Drawn, np.random.Generator]:
        """Return the crop of the sample at ``position``, and what then draws its mask."""
        rng = np.random.default_rng((self.seed, _SAMPLE_STREAM, position))
        # All numbers are drawn before the photo is known, so that a file that turns up
        # unreadable changes the photo of this sample and nothing else.
        scale = float(rng.uniform(self.min_scale, self.max_scale))
        across, down, side = rng.random(3).tolist()
        return Drawn(scale, across, down, self.flip and side < 0.5), rng

    def candidates(self, position: int) -> Iterator[int]:
        """The photo of a position, then those to take if it cannot be read."""
        epoch, place = divmod(position, len(self.source))
        return candidates(self._epoch_order(epoch), place)

    def _photo(self, position: int, at_least: int) -> tuple[Image.Image, int]:
        """Read the photo of a position, or the first readable one after it in the same order."""
        return read_first(self.source, self.candidates(position), at_least=at_least)

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, _ORDER_STREAM, epoch))
            self._order = (epoch, rng.permutation(len(self.source)))
        return self._order[1]


def _crop(photo: Image.Image, scale: float, across: float, down: float, size: int) -> Image.Image:
    """Cut a square of ``scale`` times the short side and resize it to ``size``."""
    side = max(1.0, scale * min(photo.size))
    left, top = across * (photo.width - side), down * (photo.height - side)
    box = (left, top, left + side, top + side)
    resample = Image.Resampling.BICUBIC
    return photo.resize((size, size), resample, box=box, reducing_gap=3.0)
