"""Where the planes of drawn pictures vanish."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.vanishing import (
    Edges,
    edges_of,
    vanishing_lines,
    vanishing_points,
)

floor: Any = run_path(str(Path(__file__).with_name("floors.py")))["floor"]
Doubles = npt.NDArray[np.float64]
SHAPE = (200, 300)


def edges_to(point: tuple[float, float, float], count: int, seed: int) -> Edges:
    """Edges at random places that lead to a homogeneous point, a degree off at most."""
    rng = np.random.default_rng(seed)
    at = rng.random((count, 2)) * SHAPE[::-1]
    way = np.array(point[:2]) - point[2] * at
    angle = np.arctan2(way[:, 1], way[:, 0]) + np.deg2rad(rng.uniform(-1, 1, count))
    return Edges(at, np.stack([np.cos(angle), np.sin(angle)], axis=1))


def together(*parts: Edges) -> Edges:
    return Edges(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def test_points_that_edges_lead_to_are_found_among_others() -> None:
    rng = np.random.default_rng(9)
    angle = rng.uniform(0, np.pi, 200)
    scattered = Edges(
        rng.random((200, 2)) * SHAPE[::-1], np.stack([np.cos(angle), np.sin(angle)], axis=1)
    )
    edges = together(edges_to((90, -60, 1), 400, 1), edges_to((900, 80, 1), 250, 2), scattered)
    first, second = vanishing_points(edges, SHAPE)[:2]
    np.testing.assert_allclose(first[:2] / first[2], [90, -60], atol=6)
    np.testing.assert_allclose(second[:2] / second[2], [900, 80], atol=60)


def test_parallel_edges_meet_nowhere() -> None:
    point = vanishing_points(edges_to((3, 1, 0), 300, 1), SHAPE)[0]
    assert abs(point[2]) * max(SHAPE) < 0.02 * np.hypot(point[0], point[1])
    assert point[1] / point[0] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("count", [0, 1, 2, 74, 200])
def test_few_edges_lead_nowhere(count: int) -> None:
    assert vanishing_points(edges_to((90, -60, 1), count, 1), SHAPE).shape == (0, 3)


def test_edges_run_along_what_is_drawn_and_not_along_the_hole() -> None:
    rows, columns = np.indices((80, 100))
    light = np.clip((columns - 20 - 0.5 * rows) / 2, 0, 1)  # 63 degrees
    pixels = np.repeat(light[..., None], 3, axis=2).astype(np.float32)
    hole = np.zeros((80, 100), bool)
    hole[30:50, 30:60] = True
    pixels[hole] = 0.5
    at, along = edges_of(pixels, hole)
    assert len(at) > 50
    np.testing.assert_allclose(along[:, 0] / along[:, 1], 0.5, atol=0.03)
    np.testing.assert_allclose(at[:, 0], 20 + 0.5 * at[:, 1], atol=4)
    inside = hole[at[:, 1].astype(int), at[:, 0].astype(int)]
    assert not inside.any()


def test_noise_has_no_edges_to_speak_of() -> None:
    pixels = np.random.default_rng(0).random((100, 120, 3), dtype=np.float32)
    at, _ = edges_of(pixels, np.zeros((100, 120), bool))
    assert len(at) < 0.01 * 100 * 120


def test_a_floor_vanishes_at_its_horizon() -> None:
    pixels = floor(160, 220, horizon=-70, tile=50)
    hole = np.zeros(pixels.shape[:2], bool)
    hole[60:110, 80:150] = True
    lines = vanishing_lines(pixels, hole)
    middle = np.array([115, 85, 1])
    np.testing.assert_allclose(lines @ middle, 1, atol=0.02)
    horizons = [-c / b for a, b, c in lines if abs(a) < 0.05 * abs(b)]
    assert min(abs(row + 70) for row in horizons) < 8


def test_a_wall_seen_from_the_front_vanishes_nowhere() -> None:
    rows, columns = np.indices((120, 160))
    joint = (rows % 12 < 2) | ((columns + 10 * (rows // 12 % 2)) % 20 < 2)
    pixels = np.repeat(np.where(joint, 0.9, 0.3)[..., None], 3, axis=2).astype(np.float32)
    hole = np.zeros(joint.shape, bool)
    hole[40:80, 50:100] = True
    assert len(vanishing_lines(pixels, hole)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (40, 3)])
def test_what_shows_nothing_vanishes_nowhere(shape: tuple[int, int]) -> None:
    hole = np.zeros(shape, bool)
    hole[0, 0] = True
    assert vanishing_lines(np.full((*shape, 3), 0.5, np.float32), hole).shape == (0, 3)
    assert vanishing_lines(np.zeros((*shape, 3), np.float32), np.ones(shape, bool)).shape == (0, 3)
