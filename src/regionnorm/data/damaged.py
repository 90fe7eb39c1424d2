"""Crops of photos with drawn marks, for training what finds them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from regionnorm.data.sources import ImageSource, candidates, read_first
from regionnorm.masks.damage import FAINT, VISIBLE, damage_photo

__all__ = ["DamagedBatch", "DamagedPhotos"]

_PHOTO, _DAMAGE, _ORDER, _TURN = range(4)  # streams of random numbers


class DamagedBatch(NamedTuple):
    """Crops with marks."""

    image: Tensor
    """float32 ``[B, 3, S, S]`` in [0, 1]."""
    marks: Tensor
    """float32 ``[B, 1, S, S]``, 1 where a mark is to be found."""
    counted: Tensor
    """float32 ``[B, 1, S, S]``, 0 where a mark is too faint to be either."""


class DamagedPhotos:
    """Samples that depend on a seed and a position only.

    Drawing a sample takes longer than a training step on it. So many different ones as ``pool``
    says are drawn when first needed and kept, and come again in another order, turned and
    mirrored in eight ways.

    Args:
        source: The photos.
        size: Side of the samples in pixels.
        seed: 0 or more.
        pool: How many different samples there are; each takes ``4 * size**2`` bytes.
        scales: Pixels of a sample for each of the photo's, from and to: scans are softer than
            small photos are.
        ignore_unseen: What a mark covers without being seen, as a white line does a white wall,
            counts neither way: a line goes on where it crosses its own colour.

    Raises:
        ValueError: The source is empty.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        size: int,
        seed: int,
        pool: int,
        scales: tuple[float, float] = (0.5, 3.0),
        ignore_unseen: bool = False,
    ) -> None:
        if len(source) == 0:
            raise ValueError("the source holds no photos")
        self.source, self.size, self.seed, self.pool = source, size, seed, pool
        self.scales, self.ignore_unseen = scales, ignore_unseen
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        self._photos = np.random.default_rng((seed, _PHOTO)).permutation(len(source))
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def batch(self, positions: range) -> DamagedBatch:
        """The samples at positions, 0 or more, without an upper end."""
        samples = np.stack([self._turned(position) for position in positions])
        data = torch.from_numpy(samples).permute(0, 3, 1, 2)
        change = data[:, 3:]
        return DamagedBatch(
            data[:, :3].float() / 255,
            (change >= VISIBLE).float(),
            ((change >= VISIBLE) | (change < FAINT)).float(),
        )

    def _turned(self, position: int) -> npt.NDArray[np.uint8]:
        round_number, place = divmod(position, self.pool)
        if self._order is None or self._order[0] != round_number:
            order = np.random.default_rng((self.seed, _ORDER, round_number))
            self._order = round_number, order.permutation(self.pool)
        number = int(self._order[1][place])
        if number not in self._kept:
            self._kept[number] = self._drawn(number)
        turn = int(np.random.default_rng((self.seed, _TURN, position)).integers(8))
        sample = np.rot90(self._kept[number], turn % 4)
        return sample[:, ::-1] if turn >= 4 else sample

    def _drawn(self, number: int) -> npt.NDArray[np.uint8]:
        """Colours and change of a sample, uint8 ``[S, S, 4]``."""
        rng = np.random.default_rng((self.seed, _DAMAGE, number))
        low, high = self.scales
        scale = math.exp(rng.uniform(math.log(low), math.log(high)))
        across, down = rng.random(2).tolist()
        place = number % len(self.source)
        photo, _ = read_first(self.source, candidates(self._photos, place))
        side = min(self.size / scale, *photo.size)
        left, top = across * (photo.width - side), down * (photo.height - side)
        crop = photo.resize(
            (self.size, self.size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        damaged = damage_photo(np.asarray(crop), rng)
        change = damaged.change
        if self.ignore_unseen:
            change = np.maximum(change, np.uint8(FAINT) * damaged.covered)
        return np.concatenate([damaged.image, change[..., None]], 2)
