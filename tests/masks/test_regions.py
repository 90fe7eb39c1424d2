"""Dilation, connected regions and windows, against SciPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from regionnorm.masks.regions import (
    Window,
    bounding_window,
    dilate_disk,
    dilate_square,
    label_regions,
    overlapping_spans,
)

HOLES = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@settings(max_examples=60, deadline=None)
@given(HOLES)
def test_regions_are_scipys(hole: np.ndarray) -> None:
    labels, count = label_regions(hole)
    expected, number = ndimage.label(hole, np.ones((3, 3)))
    assert count == number
    assert np.array_equal(labels > 0, hole)
    pairs = {(int(a), int(b)) for a, b in zip(labels[hole], expected[hole], strict=True)}
    assert len(pairs) == count


@settings(max_examples=60, deadline=None)
@given(HOLES, st.integers(0, 14))
def test_dilations_are_scipys(hole: np.ndarray, radius: int) -> None:
    if hole.any():
        near = ndimage.distance_transform_edt(~hole) <= radius
        assert np.array_equal(dilate_disk(hole, radius), near | hole)
    else:
        assert not dilate_disk(hole, radius).any()
    square = ndimage.maximum_filter(hole, 2 * radius + 1, mode="constant")
    assert np.array_equal(dilate_square(hole, radius), square)


@settings(max_examples=60, deadline=None)
@given(HOLES, st.integers(0, 9), st.integers(0, 40))
def test_windows_grow_inside_the_picture(hole: np.ndarray, margin: int, least: int) -> None:
    hole[0, 0] = True
    height, width = hole.shape
    box = bounding_window(hole)
    grown = box.grow(margin, height, width, at_least=least)
    assert 0 <= grown.top <= box.top < box.bottom <= grown.bottom <= height
    assert 0 <= grown.left <= box.left < box.right <= grown.right <= width
    assert grown.width >= min(width, least) and grown.height >= min(height, least)
    assert hole[grown.slices].sum() == hole.sum()


def test_a_window_at_the_border_grows_to_the_other_side() -> None:
    assert Window(0, 90, 10, 100).grow(5, 100, 100, at_least=50) == Window(0, 50, 50, 100)


@given(st.integers(1, 9000), st.sampled_from([(768, 96), (1280, 192)]))
def test_spans_cover_a_side_and_overlap(side: int, tiles: tuple[int, int]) -> None:
    longest, overlap = tiles
    spans = overlapping_spans(side, longest, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == side
    assert len({stop - start for start, stop in spans}) == 1
    assert spans[0][1] <= longest and (len(spans) == 1 or side > longest)
    assert all(one[1] - other[0] >= overlap - 1 for one, other in pairwise(spans))
