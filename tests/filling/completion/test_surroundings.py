"""How strange a pixel is around a hole, against a plain count; and that strange ones cost more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import structure
from regionnorm.filling.completion.surroundings import strangeness
from regionnorm.masks.regions import dilate_square

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def scene() -> tuple[Floats, Place, Place]:
    looks = np.random.default_rng(0).random((13, 17, 5), dtype=np.float32)
    hole = np.zeros((13, 17), bool)
    hole[5:9, 6:10] = True
    looks[hole] = np.nan  # is not read
    return looks, ~hole, dilate_square(hole, 2) & ~hole


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 1.0])
def test_every_pixel_is_as_strange_as_a_plain_count_says(share: float) -> None:
    looks, known, ring = scene()
    result = strangeness(looks, known, ring, share, 0.9)
    there = looks[ring].astype(np.float64)
    for row, column in np.argwhere(known):
        differences = np.sort(np.linalg.norm(there - looks[row, column], axis=1))
        expected = min(differences[max(1, round(share * len(there))) - 1], 0.9)
        assert result[row, column] == pytest.approx(expected, abs=1e-5)
    assert not result[~known].any()


def test_without_a_ring_nothing_is_strange() -> None:
    looks, known, ring = scene()
    assert not strangeness(looks, known, np.zeros_like(ring), 0.05, 1).any()


def test_one_pixel_like_it_is_not_enough() -> None:
    looks = np.zeros((4, 10, 1), np.float32)
    looks[0, 0] = looks[3, 3] = 1
    ring = np.zeros((4, 10), bool)
    ring[0] = True  # one of its ten pixels is like the other
    known = np.ones_like(ring)
    assert strangeness(looks, known, ring, 0.1, 5)[3, 3] == 0
    assert strangeness(looks, known, ring, 0.2, 5)[3, 3] == 1
    assert strangeness(looks, known, ring, 0.2, 0.5)[3, 3] == 0.5


def test_what_stands_nowhere_around_the_hole_costs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ground all over, and far from the hole a thing upon it.
    pixels = np.random.default_rng(3).uniform(0.4, 0.5, (40, 90, 3)).astype(np.float32)
    pixels[14:26, 64:76] = 0.9, 0.1, 0.1
    hole = np.zeros((40, 90), bool)
    hole[10:30, 10:30] = True
    busy, lines = np.zeros((40, 90, 2), np.float32), np.zeros((0, 3))
    scene = structure.Scene(pixels, busy, hole, hole, 90, False, lines)
    features = np.concatenate([scene.pixels, scene.busyness], axis=2)
    offers = [structure._Shift(0, 50), structure._Shift(0, 25)]  # onto the thing, onto ground
    costs = {}
    for weight in (0.0, 1.0):
        monkeypatch.setattr(structure, "_STRANGE", weight)
        costs[weight] = structure._offers(scene, features, offers)[1]
    more = (costs[1.0] - costs[0.0]).reshape(2, 20, 20)
    assert more[0, 6:14, 6:14].min() > 0.3
    assert more[1, :, :15].max() < 0.05
    assert more[0, :2, :2].max() < 0.05, "ground beside the thing is as good as any"


@pytest.mark.parametrize("others", [0, 6])
def test_what_stands_around_one_hole_is_strange_in_another(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    # Sky above, ground below, and a hole in each; small ones in the sky besides.
    rng = np.random.default_rng(3)
    pixels = rng.uniform(0.1, 0.2, (60, 100, 3)).astype(np.float32)
    pixels[30:] += 0.7
    hole = np.zeros((60, 100), bool)
    hole[6:18, 10:30] = hole[40:52, 10:30] = True
    for number in range(others):
        hole[24:26, 2 + 5 * number : 4 + 5 * number] = True
    busy, lines = np.zeros((60, 100, 2), np.float32), np.zeros((0, 3))
    scene = structure.Scene(pixels, busy, hole, hole, 100, False, lines)
    features = np.concatenate([scene.pixels, scene.busyness], axis=2)
    offers = [structure._Shift(0, 50), structure._Shift(34, 50), structure._Shift(-34, 50)]
    costs = {}
    for weight in (0.0, 1.0):
        monkeypatch.setattr(structure, "_STRANGE", weight)
        costs[weight] = structure._offers(scene, features, offers)[1]
    more = np.zeros((3, 60, 100), np.float32)
    more[:, hole] = costs[1.0] - costs[0.0]
    along, down, up = more
    assert along[hole].max() < 0.1
    assert down[6:18, 10:30].min() > 0.5, "ground in the sky"
    assert up[40:52, 10:30].min() > 0.5, "sky in the ground"
