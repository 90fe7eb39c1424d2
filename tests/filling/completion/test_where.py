"""Which holes pieces may fill: wide ones and strokes of a brush; lines and thin letters not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from regionnorm.filling.completion.where import (
    NARROWEST,
    pieces_fit,
    stroke_holes,
    stroke_sections,
    wide_holes,
)

Place = npt.NDArray[np.bool_]


def drawn(
    *lines: tuple[float, float, float, float, int], size: tuple[int, int] = (120, 160)
) -> Place:
    """Straight lines with round ends: from x, y to x, y, so many pixels wide."""
    rows, columns = np.indices(size)
    found = np.zeros(size, bool)
    for left, top, right, bottom, width in lines:
        across, down = right - left, bottom - top
        along = ((columns - left) * across + (rows - top) * down) / (across**2 + down**2 or 1)
        along = along.clip(0, 1)
        away = np.hypot(columns - left - along * across, rows - top - along * down)
        found |= away <= width / 2
    return found


def naive_strokes(mask: Place) -> Place:
    """By SciPy: what a disk opens, part by part, but for parts that a square of 23 fits into."""
    down, right = np.indices((9, 9)) - 4
    disk, eight = np.hypot(down, right) <= 4, np.ones((3, 3), bool)
    brush = ndimage.binary_erosion(mask, disk, border_value=1)
    opened = ndimage.binary_dilation(brush, disk)
    core = ndimage.binary_erosion(mask, np.ones((23, 23), bool), border_value=1)
    parts, count = ndimage.label(mask, eight)
    found = np.zeros_like(mask)
    for number in range(1, count + 1):
        part = parts == number
        if opened[part].mean() >= 0.9 and not core[part].any():
            found |= part
    return found


@pytest.mark.parametrize(
    ("lines", "strokes"),
    [
        ([(30, 30, 120, 30, 17)], True),
        ([(30, 30, 110, 90, 18)], True),  # diagonal
        ([(30, 90, 110, 30, 30)], True),  # wider than 24, and no square of that size fits
        ([(0, 60, 159, 60, 17)], True),  # from side to side
        ([(0, 0, 159, 0, 20)], True),  # half of it outside the photo
        ([(40, 60, 40, 60, 18)], True),  # a spot
        ([(40, 60, 40, 60, 7)], False),
        ([(30, 30, 120, 30, 7)], False),
        ([(20, 20, 140, 100, 6), (20, 100, 140, 20, 6), (80, 0, 80, 119, 6)], False),  # a crossing
        ([(30, 30, 120, 30, 17), (120, 30, 120, 110, 6)], False),  # with a long thin tail
    ],
)
def test_a_stroke_is_wide_all_along(
    lines: list[tuple[float, float, float, float, int]], strokes: bool
) -> None:
    mask = drawn(*lines)
    assert (stroke_holes(mask) == (mask if strokes else False)).all()
    assert not wide_holes(mask).any()
    assert pieces_fit(mask) is strokes


def test_holes_are_told_apart_one_by_one() -> None:
    line, stroke, wide = (
        drawn((10, 10, 150, 10, 6)),
        drawn((20, 40, 140, 40, 17)),
        drawn((40, 90, 100, 90, 34)),
    )
    mask = line | stroke | wide
    assert (stroke_holes(mask) == stroke).all()
    assert (wide_holes(mask) == wide).all()


def test_what_is_very_wide_somewhere_is_wide_with_its_tail_and_no_stroke() -> None:
    mask = drawn((40, 60, 40, 60, 50), (40, 60, 150, 60, 6))
    assert (wide_holes(mask) == mask).all()
    assert not stroke_holes(mask).any()


def test_thin_letters_are_no_strokes_although_they_are_wide_somewhere() -> None:
    canvas = Image.new("1", (400, 90))
    ImageDraw.Draw(canvas).text((8, 8), "Remove", 1, ImageFont.load_default(54), stroke_width=1)
    letters = np.asarray(canvas)
    assert ndimage.binary_erosion(letters, np.ones((7, 7), bool)).any()
    assert not stroke_holes(letters).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (30, 30)])
def test_nothing_and_everything(size: tuple[int, int]) -> None:
    assert not pieces_fit(np.zeros(size, bool))
    assert wide_holes(np.ones(size, bool)).all(), "nothing known is near"


@pytest.mark.parametrize("seed", range(12))
def test_strokes_are_what_a_plain_opening_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = [
        (*rng.uniform(-20, 180, 4).tolist(), int(rng.integers(3, 34)))
        for _ in range(int(rng.integers(1, 5)))
    ]
    mask = drawn(*lines)
    assert (stroke_holes(mask) == naive_strokes(mask)).all()
    assert (
        stroke_holes(mask[:, ::2].repeat(2, 1)[:, 1:])
        == naive_strokes(mask[:, ::2].repeat(2, 1)[:, 1:])
    ).all()


def test_the_narrowest_hole_that_pieces_may_fill() -> None:
    for width in range(5, 24):
        bar = np.zeros((80, 100), bool)
        bar[20 : 20 + width, 10:90] = True
        assert pieces_fit(bar) == (width >= NARROWEST)


def test_sections_are_every_pixel_of_strokes_once_and_each_lies_in_a_small_window() -> None:
    size = (700, 900)
    mask = drawn((10, 10, 890, 690, 18), (20, 600, 300, 600, 20), (800, 50, 800, 50, 16), size=size)
    count, sizes = np.zeros(size, int), []
    for section, window in stroke_sections(mask):
        assert section.shape == (window.height, window.width)
        assert max(section.shape) <= 192 + 96
        rows, columns = np.nonzero(section)
        for at, side, whole in ((rows, 0, size[0]), (columns, 1, size[1])):
            low, high = (window.top, window.bottom) if side == 0 else (window.left, window.right)
            assert at.min() >= min(48, low) or low == 0
            assert section.shape[side] - 1 - at.max() >= 48 or high == whole
        count[window.slices] += section
        sizes.append(np.count_nonzero(section))
    assert (count == mask).all()
    assert sizes == sorted(sizes, reverse=True)
