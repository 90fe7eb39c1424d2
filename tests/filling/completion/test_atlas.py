"""Views stand beside the photo, where shifts alone reach them, and never touch each other."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import structure
from regionnorm.filling.completion.atlas import View, make_atlas
from regionnorm.filling.completion.blend import correction
from regionnorm.filling.completion.complete import complete
from regionnorm.filling.completion.graph_cut import choose, energy
from regionnorm.filling.completion.maxflow import neighbours_of
from regionnorm.filling.completion.pyramid import coarser_hole, halve
from regionnorm.filling.completion.refine import faded, refine
from regionnorm.filling.completion.seams import move_seams


@pytest.mark.parametrize(("width", "unit"), [(24, 1), (24, 4), (21, 4), (21, 8)])
def test_a_mirrored_view_begins_at_a_multiple_of_the_unit_behind_a_gap(
    width: int, unit: int
) -> None:
    pixels = np.random.default_rng(0).random((16, width, 3), dtype=np.float32)
    hole = np.random.default_rng(1).random((16, width)) < 0.3
    wide, missing, place = make_atlas(pixels, hole, hole, [View(mirrored=True, scale=1)], unit)
    begin = wide.shape[1] - width
    assert begin % unit == 0 and begin >= width + unit
    assert (wide[:, :width] == pixels).all() and (wide[:, begin:] == pixels[:, ::-1]).all()
    assert (missing[:, :width] == hole).all() and (missing[:, begin:] == hole[:, ::-1]).all()
    assert missing[:, width:begin].all()
    assert (place[:, :width] == hole).all() and not place[:, width:].any()


def test_a_smaller_view_is_interpolated_from_known_pixels_alone() -> None:
    rows, columns = np.mgrid[:20, :30].astype(np.float32)
    pixels = np.stack([rows, columns, rows + columns], axis=2)
    hole = np.zeros((20, 30), bool)
    hole[8, 10] = True
    pixels[hole] = 1e6
    wide, missing, _ = make_atlas(pixels, hole, hole, [View(mirrored=False, scale=0.8)], 1)
    view, gap = wide[:16, -24:], missing[:, -24:]
    assert gap[16:].all() and 1 <= gap[:16].sum() <= 4
    for row, column in np.argwhere(~gap[:16]):
        y, x = (row + 0.5) / 0.8 - 0.5, (column + 0.5) / 0.8 - 0.5
        assert view[row, column] == pytest.approx([y, x, y + x], abs=1e-3)


def test_no_views_are_the_photo_itself() -> None:
    pixels, hole = np.zeros((4, 5, 3), np.float32), np.eye(4, 5, dtype=bool)
    atlas = make_atlas(pixels, hole, hole, (), 4)
    assert atlas.pixels is pixels and (atlas.missing == hole).all() and (atlas.place == hole).all()


def test_reduced_views_do_not_mix() -> None:
    black, hole = np.zeros((16, 22, 3), np.float32), np.zeros((16, 22), bool)
    hole[4:8, 4:8] = True
    black[:, -1] = 1  # both views end or begin with it at the gap
    wide, missing, _ = make_atlas(black, hole, hole, [View(mirrored=True, scale=1)], 4)
    small, gap = wide, missing
    for _ in range(2):
        small, gap = halve(small, gap)
    known = small[~gap]
    assert set(np.unique(known)) <= {0, 0.25, 0.5}  # a quarter of a pixel, or two, are white
    assert gap[:, 5:7].all()


def test_half_of_a_hole_is_where_any_of_four_pixels_is() -> None:
    hole = np.random.default_rng(0).random((7, 9)) < 0.2
    half = coarser_hole(hole)
    assert half.shape == (4, 5)
    for row, column in np.ndindex(half.shape):
        part = hole[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert half[row, column] == part.any()


def test_what_is_seen_only_mirrored_is_copied() -> None:
    half = np.random.default_rng(3).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    mask = np.zeros((80, 120), bool)
    mask[25:55, 12:42] = True
    filled = complete(image, mask)
    error = np.abs(filled[mask].astype(float) - image[mask])
    assert error.mean() < 5  # a random other piece: 85


def test_a_hole_at_the_photos_end_meets_nothing_of_what_lies_beside() -> None:
    pixels = np.random.default_rng(0).random((40, 60, 3), dtype=np.float32)
    hole = np.zeros((40, 60), bool)
    hole[10:30, 36:] = True
    choice = np.random.default_rng(1).integers(2, size=(8, 12)).repeat(5, 0).repeat(5, 1)
    right = (np.array([-24, -36])[choice] * hole).astype(np.int32)
    down = (np.array([0, 3])[choice] * hole).astype(np.int32)
    strip = np.random.default_rng(2).random((40, 9, 3), dtype=np.float32)
    wide, wide_right, wide_down = (
        np.concatenate([array, more], axis=1)
        for array, more in (
            (pixels, strip),
            (right, np.zeros((40, 9), np.int32)),
            (down, np.zeros((40, 9), np.int32)),
        )
    )
    place = np.pad(hole, ((0, 0), (0, 9)))
    missing = place.copy()
    missing[:, 60:] = True
    arrays = wide, missing, wide_down, wide_right
    expected = correction(pixels, hole, down, right, 0.5)
    np.testing.assert_allclose(correction(*arrays, 0.5, place=place), expected, atol=2e-3)
    assert (faded(*arrays, place=place) == faded(pixels, hole, down, right)).all()
    move_seams(pixels, hole, down, right, painted=None)
    move_seams(*arrays, painted=None, place=place)
    assert (wide_down[:, :60] == down).all() and (wide_right[:, :60] == right).all()
    assert not wide_down[:, 60:].any() and not wide_right[:, 60:].any()
    refine(*arrays, seed=0, sharp=True, place=place)
    rows, columns = np.nonzero(place)
    assert not missing[rows + wide_down[place], columns + wide_right[place]].any()


def test_several_orders_are_no_worse_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    neighbours = neighbours_of(np.ones((12, 12), bool))
    gains = []
    for _ in range(4):
        costs = rng.random((9, 144), dtype=np.float32)
        values = rng.random((9, 144, 5), dtype=np.float32) / 5
        found = []
        for orders in (1, 6):
            monkeypatch.setattr(structure, "_ORDERS", orders)
            chosen = structure._cheapest(values, costs, neighbours)
            found.append(energy(values, costs, neighbours, chosen, structure._POTTS))
        single = choose(values, costs, neighbours, potts=structure._POTTS)
        assert found[0] == energy(values, costs, neighbours, single, structure._POTTS)
        gains.append(found[0] - found[1])
    assert min(gains) >= 0
    assert max(gains) > 0
    # Of a large hole one order is all that time allows.
    monkeypatch.setattr(structure, "_MOST_OFFERS", 9 * 144)
    assert (structure._cheapest(values, costs, neighbours) == single).all()
