"""Filling at any size: windows, tiles, coarse to fine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from regionnorm.filling import any_size
from regionnorm.filling.any_size import REACH, STRATEGIES, fill_holes
from regionnorm.nn.prefill import push_pull

Run = Callable[[Tensor, Tensor], Tensor]


def half(image: Tensor, mask: Tensor) -> Tensor:
    """Mid-gray, known pixels too."""
    return torch.full_like(image, 0.5)


def mean(image: Tensor, mask: Tensor) -> Tensor:
    """The mean of all that it is given, which shows what it was given."""
    return image.mean((2, 3), keepdim=True).expand_as(image)


LENGTHS = "REACH _BAND _TILE _MARGIN _RAMP _CONTEXT _LEAST _BLOCK _RESIZED".split()


class Watched:
    """Remembers the sizes of what it is given."""

    def __init__(self, run: Run = push_pull) -> None:
        self.run = run
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        self.sizes.append((image.shape[-1], image.shape[-2]))
        return self.run(image, mask)

    @property
    def pixels(self) -> int:
        return sum(width * height for width, height in self.sizes)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of all lengths, so that small arrays take the ways of large ones."""
    for name in LENGTHS:
        monkeypatch.setattr(any_size, name, getattr(any_size, name) // 8)
    monkeypatch.setattr(any_size, "_ONE_PASS", any_size._ONE_PASS // 64)


def ramp(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    levels = [30 + 190 * x / width, 40 + 170 * y / height, 100 + 50 * (x + y) / (width + height)]
    return np.stack(levels, 2).astype(np.uint8)


def hole_at(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros(shape, bool)
    for top, left, height, width in boxes:
        hole[top : top + height, left : left + width] = True
    return hole


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_known_pixels_stay_identical_at_every_size(
    tiny: None, rng: np.random.Generator, strategy: str, dtype: type
) -> None:
    for _ in range(25):
        height, width = (int(side) for side in rng.integers(1, 220, 2))
        pixels = rng.integers(0, np.iinfo(dtype).max + 1, (height, width, 3)).astype(dtype)
        hole = hole_at((height, width), *(rng.integers(0, 150, 4) for _ in range(3)))
        hole[0, 0] = False
        hole[-1, -1] |= height * width > 1
        if not hole.any():
            continue
        result = fill_holes(half, pixels, hole, strategy=strategy)
        assert result.dtype == dtype
        assert np.array_equal(result[~hole], pixels[~hole])
        # Enlarging mixes in a little of the known ones, and all of it in `resize`.
        if strategy != "resize":
            middle = result[hole] / np.iinfo(dtype).max
            assert abs(middle - 0.5).max() < 0.02


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_the_hole_covers_never_shows(
    tiny: None, rng: np.random.Generator, strategy: str
) -> None:
    pixels = rng.integers(0, 256, (150, 190, 3)).astype(np.uint8)
    hole = hole_at((150, 190), (10, 20, 70, 90), (120, 150, 5, 5))
    other = pixels.copy()
    other[hole] = 255 - other[hole]
    results = [fill_holes(mean, photo, hole, strategy=strategy) for photo in (pixels, other)]
    assert np.array_equal(results[0][hole], results[1][hole])


def test_a_small_hole_costs_the_same_in_a_large_photo() -> None:
    costs = []
    for height, width in ((512, 512), (3000, 4000)):
        watched = Watched(half)
        hole = hole_at((height, width), (height // 2 - 100, width // 2 - 100, 200, 200))
        fill_holes(watched, np.zeros((height, width, 3), np.uint8), hole)
        costs.append(watched.pixels)
    assert costs[1] < 1.5 * costs[0]


def test_the_cost_follows_the_hole_at_every_size() -> None:
    costs = {}
    for height, width in ((256, 256), (600, 900), (768, 768), (780, 780), (3000, 4000)):
        watched = Watched(half)
        hole = hole_at((height, width), (height // 2, width // 2, 18, 18))
        fill_holes(watched, np.zeros((height, width, 3), np.uint8), hole)
        costs[height, width] = watched.pixels
    assert max(costs.values()) <= 1.1 * costs[256, 256]


def test_many_holes_cost_no_more_than_the_photo() -> None:
    hole = np.zeros((700, 800), bool)
    hole[40::100, 40::100] = True
    watched = Watched(half)
    fill_holes(watched, np.zeros((700, 800, 3), np.uint8), hole)
    assert watched.pixels <= 700 * 800


def test_no_pass_is_larger_than_memory_allows_except_on_request() -> None:
    pixels = np.zeros((1200, 1500, 3), np.uint8)
    hole = hole_at((1200, 1500), (50, 50, 1000, 1300))
    for strategy in ("auto", "crop", "resize"):
        watched = Watched(half)
        fill_holes(watched, pixels, hole, strategy=strategy)
        assert max(width * height for width, height in watched.sizes) <= 768 * 768
    watched = Watched(half)
    fill_holes(watched, pixels, hole, strategy="original")
    assert watched.sizes == [(1500, 1200)]


def test_auto_gives_small_photos_to_the_network_as_they_are() -> None:
    watched = Watched(half)
    fill_holes(watched, ramp(90, 120), hole_at((90, 120), (30, 30, 20, 20)))
    assert watched.sizes == [(120, 90)]


def test_far_holes_are_filled_apart_and_near_ones_together() -> None:
    shape = (600, 2400)
    near = Watched(half)
    boxes = (300, 300, 10, 10), (300, 330, 10, 10)
    fill_holes(near, np.zeros((*shape, 3), np.uint8), hole_at(shape, *boxes), strategy="crop")
    assert len(near.sizes) == 1
    far = Watched(half)
    boxes = (300, 300, 10, 10), (300, 1900, 10, 10)
    fill_holes(far, np.zeros((*shape, 3), np.uint8), hole_at(shape, *boxes), strategy="crop")
    assert len(far.sizes) == 2
    assert far.pixels < 600 * 2400 / 5


@pytest.mark.parametrize("strategy", ["auto", "crop"])
def test_a_window_fills_its_own_holes_and_not_those_that_reach_into_it(
    tiny: None, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(any_size, "_ONE_PASS", 150 * 150)  # no tiles: one call at each scale
    calls: list[float] = []

    def numbered(image: Tensor, mask: Tensor) -> Tensor:
        calls.append(len(calls) * 10 / 255)
        return torch.full_like(image, calls[-1])

    # An eighth of a hole of 400 pixels, and another 110 pixels beside it.
    boxes = (20, 20, 50, 50), (20, 84, 24, 24)
    result = fill_holes(numbered, ramp(150, 150), hole_at((150, 150), *boxes), strategy=strategy)
    for top, left, _, width in boxes:
        edge = result[top, left : left + width]
        # The last pass along a hole's border is one call.
        assert len(np.unique(edge)) == 1


def test_a_deep_hole_is_first_filled_where_the_network_reaches_its_middle() -> None:
    watched = Watched()
    side = 6 * REACH
    hole = hole_at((2 * side, 2 * side), (side // 2, side // 2, side, side))
    fill_holes(watched, ramp(*hole.shape), hole)
    # The depth of three times the reach asks for two halvings.
    assert watched.sizes[0][0] <= 2 * side / 4 + 1
    areas = [width * height for width, height in watched.sizes]
    assert areas[0] < areas[-1]


def test_a_band_is_filled_with_no_more_around_it_than_a_shallow_hole_is() -> None:
    watched = Watched()
    hole = hole_at((700, 760), (260, 280, 180, 200))
    fill_holes(watched, ramp(700, 760), hole)
    context = 2 * any_size._CONTEXT
    assert len(watched.sizes) == 2, "a copy of half the size, and the band"
    assert watched.sizes[1] == (200 + context, 180 + context)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_smooth_photo_shows_no_border_of_hole_or_tile(tiny: None, strategy: str) -> None:
    pixels = ramp(210, 280)
    hole = hole_at((210, 280), (30, 40, 130, 190), (5, 5, 3, 200))
    result = fill_holes(push_pull, pixels, hole, strategy=strategy).astype(int)
    steps = [abs(np.diff(result, axis=axis)).max() for axis in (0, 1)]
    # The ramp itself moves by one level at a time.
    assert max(steps) <= 5


def test_tiles_cover_every_pixel_of_the_hole() -> None:
    for low, high, limit in ((0, 3000, 3000), (10, 520, 4000), (700, 701, 5000), (90, 600, 640)):
        total = np.zeros(limit)
        for first, last, weights in any_size._spans(low, high, limit):
            assert last - first == min(512, limit)
            total[first:last] += weights
        assert (total[low:high] > 0).all()


def test_feather_moves_the_colours_at_the_border_and_not_further_in() -> None:
    pixels = np.full((120, 120, 3), 200, np.uint8)
    hole = hole_at((120, 120), (30, 30, 60, 60))
    plain = fill_holes(half, pixels, hole)
    soft = fill_holes(half, pixels, hole, feather=10)
    assert (plain[hole] == 128).all()
    assert (soft[30, 60] > 185).all()
    assert (soft[60, 60] == 128).all()
    assert (np.diff(soft[30:60, 60, 0].astype(int)) <= 0).all()


def test_unknown_strategies_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="'tiles' is not known; use auto, original, crop, resize"):
        fill_holes(half, ramp(20, 20), hole_at((20, 20), (1, 1, 2, 2)), strategy="tiles")
