"""Soft masks: how much of the fill shows."""

from __future__ import annotations

import numpy as np
import pytest

from regionnorm.masks.soft import blend, cover_of, grow_cover


def test_black_and_white_is_no_soft_mask() -> None:
    levels = np.array([[0, 255], [3, 252]], np.uint8)
    assert cover_of(levels) is None


def test_gray_is_kept_and_what_an_export_rounds_is_not() -> None:
    cover = cover_of(np.array([[0, 8, 9, 128, 246, 247, 255]], np.uint8))
    assert cover is not None
    assert cover.tolist() == [[0, 0, 9, 128, 246, 255, 255]]


def test_growing_leaves_what_is_white_and_makes_the_rim_white() -> None:
    cover = np.zeros((9, 9), np.uint8)
    cover[4, 4], cover[4, 5], cover[0, 0] = 255, 100, 60
    grown = grow_cover(cover, 2)
    assert grown[4, 4] == grown[4, 6] == grown[2, 4] == 255
    assert grown[0, 0] == 60 and grown[8, 8] == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blending_weighs_as_a_float64_reference_does(dtype: type, rng: np.random.Generator) -> None:
    most = np.iinfo(dtype).max
    photo, fill = rng.integers(0, most, (2, 7, 5, 3), endpoint=True).astype(dtype)
    cover = rng.integers(0, 255, (7, 5), endpoint=True).astype(np.uint8)
    cover[0], cover[1] = 0, 255
    share = cover[..., None] / 255
    wanted = photo.astype(np.float64) * (1 - share) + fill.astype(np.float64) * share
    mixed = blend(photo, fill, cover)
    assert mixed.dtype == dtype
    assert abs(mixed - wanted).max() <= 0.51
    assert np.array_equal(mixed[0], photo[0]) and np.array_equal(mixed[1], fill[1])
