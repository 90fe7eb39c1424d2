"""The ring match against a plain loop, and which offsets are taken."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.offsets import arcs_of, peaks, repetitions, ring_match
from regionnorm.masks.regions import dilate_square

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def scene(height: int = 14, width: int = 17) -> tuple[Floats, Place, Place]:
    features = np.random.default_rng(0).random((height, width, 4), dtype=np.float32)
    hole = np.zeros((height, width), bool)
    hole[5:9, 6:10] = True
    return features, ~hole, dilate_square(hole, 2) & ~hole


def naive(features: Floats, known: Place, ring: Place, down: int, right: int, most: float) -> float:
    differences = []
    for row, column in np.argwhere(ring):
        to = row + down, column + right
        inside = 0 <= to[0] < known.shape[0] and 0 <= to[1] < known.shape[1]
        difference = most
        if inside and known[to]:
            difference = min(most, float(np.linalg.norm(features[row, column] - features[to])))
        differences.append(difference)
    return float(np.mean(differences))


def test_every_offset_scores_as_in_a_plain_loop() -> None:
    features, known, ring = scene()
    arc = np.zeros(np.count_nonzero(ring), np.int32)
    score = ring_match(features, known, ring, arc, 1, 0.8)[0]
    for down in range(-13, 14, 2):
        for right in range(-16, 17, 3):
            expected = naive(features, known, ring, down, right, 0.8)
            assert score[down + 13, right + 16] == pytest.approx(expected, abs=1e-5)


def test_arcs_score_by_themselves() -> None:
    features, known, ring = scene()
    arc = arcs_of(ring, 4)
    score = ring_match(features, known, ring, arc, 4, 0.8)
    for number in range(4):
        part = np.zeros_like(ring)
        part[ring] = arc == number
        assert score[number, 13 + 3, 16 - 2] == pytest.approx(
            naive(features, known, part, 3, -2, 0.8), abs=1e-5
        )


def test_a_copy_of_the_surroundings_is_found_first() -> None:
    features, known, ring = scene(30, 30)
    features[18:28, 12:24] = features[2:12, 2:14]
    arc = np.zeros(np.count_nonzero(ring), np.int32)
    score = ring_match(features, known, ring, arc, 1, 0.8)[0]
    assert peaks(score, 3, apart=2, least=2)[0].tolist() == [16, 10]


def test_arcs_are_numbered_around_the_middle() -> None:
    ring = np.ones((5, 5), bool)
    arc = np.zeros((5, 5), np.int32)
    arc[ring] = arcs_of(ring, 4)
    assert len({int(arc[1, 0]), int(arc[0, 3]), int(arc[3, 4]), int(arc[4, 1])}) == 4
    assert arc.max() == 3


def test_peaks_keep_their_distance() -> None:
    score = np.random.default_rng(0).random((41, 41)).astype(np.float32)
    found = peaks(score, 20, apart=4, least=5)
    assert len(found) == 20
    assert (np.abs(found).max(1) >= 5).all()
    for number, offset in enumerate(found):
        assert (np.abs(found[:number] - offset).max(1, initial=0) >= 4).all() or number == 0
    values = score[found[:, 0] + 20, found[:, 1] + 20]
    assert (np.diff(values) >= 0).all()


def test_no_peaks_where_all_offsets_are_alike() -> None:
    assert peaks(np.ones((9, 9), np.float32), 5, apart=2, least=2).shape == (0, 2)


def test_the_most_frequent_offset_is_the_first() -> None:
    down = np.array([3, 3, 3, -2, -2, 1], np.int32)
    right = np.array([4, 4, 4, 5, 5, -6], np.int32)
    found = peaks(repetitions(down, right, (10, 12)), 3, apart=3, least=2)
    assert found.tolist() == [[3, 4], [-2, 5], [1, -6]]
