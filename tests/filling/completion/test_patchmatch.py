"""PatchMatch against trying every match, and votes against a plain loop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.patchmatch import (
    RADIUS,
    Field,
    Patches,
    improve,
    measure,
    padded_rows,
    patches_at,
    vote,
)

SIDE = 30
Floats = npt.NDArray[np.float32]


def scene(seed: int = 0) -> tuple[Floats, npt.NDArray[np.bool_], Patches]:
    """Smooth noise with a hole of 8x8 pixels, and the patches that touch it."""
    rng = np.random.default_rng(seed)
    photo = rng.random((SIDE, SIDE, 3), dtype=np.float32)
    photo = (photo + np.roll(photo, 1, 0) + np.roll(photo, 1, 1)) / 3
    hole = np.zeros((SIDE, SIDE), bool)
    hole[11:19, 11:19] = True
    near = np.zeros_like(hole)
    near[11 - RADIUS : 19 + RADIUS, 11 - RADIUS : 19 + RADIUS] = True
    sources = np.zeros_like(hole)
    inside = slice(RADIUS, SIDE - RADIUS)
    sources[inside, inside] = True
    sources &= ~near
    return photo, hole, patches_at(near, sources)


def random_field(patches: Patches, seed: int = 0) -> Field:
    places = np.argwhere(patches.sources).astype(np.int32)
    at = places[np.random.default_rng(seed).integers(len(places), size=len(patches.rows))]
    costs = np.zeros(len(patches.rows), np.float32)
    return Field(at[:, 0] - patches.rows, at[:, 1] - patches.columns, costs)


def plain_rows(picture: Floats) -> Floats:
    return picture.reshape(SIDE, -1)


def patch(picture: Floats, row: int, column: int) -> Floats:
    padded = np.pad(picture, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="edge")
    return padded[row : row + 2 * RADIUS + 1, column : column + 2 * RADIUS + 1]


def test_costs_are_squared_differences_of_patches() -> None:
    photo, _, patches = scene()
    field = random_field(patches)
    measure(padded_rows(photo)[0], plain_rows(photo), patches, field)
    for number in range(0, len(patches.rows), 17):
        row, column = patches.rows[number], patches.columns[number]
        to = patch(photo, row + field.down[number], column + field.right[number])
        expected = np.square(patch(photo, row, column) - to).sum()
        assert field.costs[number] == pytest.approx(expected, rel=1e-4)


def test_an_offset_that_leads_to_no_match_costs_most() -> None:
    photo, _, patches = scene()
    field = random_field(patches)
    field.down[0], field.right[0] = 0, 0
    field.down[1] = -1000
    measure(padded_rows(photo)[0], plain_rows(photo), patches, field)
    assert (field.costs[:2] > 1e29).all()
    assert (field.costs[2:] < 1e3).all()


def test_most_patches_get_the_best_match_there_is() -> None:
    photo, _, patches = scene()
    flat = padded_rows(photo)[0]
    field = random_field(patches)
    measure(flat, plain_rows(photo), patches, field)
    before = field.costs.copy()
    improve(flat, plain_rows(photo), patches, field, 24, SIDE, 0, 0)
    assert (field.costs <= before).all()
    windows = [patch(photo, row, column) for row, column in np.argwhere(patches.sources)]
    every = np.stack(windows).reshape(len(windows), -1)
    best = [
        np.square(every - patch(photo, row, column).ravel()).sum(1).min()
        for row, column in zip(patches.rows, patches.columns, strict=True)
    ]
    assert np.mean(np.isclose(field.costs, best, rtol=1e-4)) > 0.5
    assert field.costs.mean() < 1.05 * np.mean(best)
    assert (field.costs >= np.array(best) * 0.999).all()


def test_matches_are_known_and_not_too_near() -> None:
    photo, _, patches = scene()
    flat = padded_rows(photo)[0]
    field = random_field(patches)
    field.down[:] = 1000  # nowhere
    measure(flat, plain_rows(photo), patches, field)
    field.down[0], field.right[0] = 10, 0
    field.costs[0] = 1e9
    improve(flat, plain_rows(photo), patches, field, 6, SIDE, 9, 3)
    good = field.costs < 1e9
    assert good.mean() > 0.9
    assert patches.sources[
        (patches.rows + field.down)[good], (patches.columns + field.right)[good]
    ].all()
    assert (np.maximum(np.abs(field.down), np.abs(field.right))[good] >= 9).all()


def test_the_seed_decides() -> None:
    photo, _, patches = scene()
    flat = padded_rows(photo)[0]
    fields = []
    for seed in (1, 1, 2):
        field = random_field(patches)
        measure(flat, plain_rows(photo), patches, field)
        improve(flat, plain_rows(photo), patches, field, 2, SIDE, 0, seed)
        fields.append(field)
    assert (fields[0].down == fields[1].down).all()
    assert (fields[0].down != fields[2].down).any()


@pytest.mark.parametrize("best_only", [False, True])
def test_votes_are_those_of_a_plain_loop(best_only: bool) -> None:
    photo, hole, patches = scene()
    field = random_field(patches)
    flat = padded_rows(photo)[0]
    measure(flat, plain_rows(photo), patches, field)
    trust = np.random.default_rng(0).random(len(patches.rows), dtype=np.float32)
    result, down, right = (
        photo.copy(),
        np.zeros(hole.shape, np.int32),
        np.zeros(hole.shape, np.int32),
    )
    vote(photo, hole, hole, patches, field, trust, np.float32(3), best_only, result, down, right)
    assert (result[~hole] == photo[~hole]).all()
    for row, column in np.argwhere(hole)[::7]:
        votes = []
        for number in range(len(patches.rows)):
            near = max(abs(patches.rows[number] - row), abs(patches.columns[number] - column))
            to = row + field.down[number], column + field.right[number]
            if near <= RADIUS and min(to) >= 0 and max(to) < SIDE and not hole[to]:
                votes.append((float(trust[number] * np.exp(-field.costs[number] / 3)), number, to))
        weights = np.array([weight for weight, _, _ in votes])
        colours = np.array([photo[to] for _, _, to in votes])
        heaviest = int(np.argmax(weights))
        expected = colours[heaviest] if best_only else weights @ colours / weights.sum()
        np.testing.assert_allclose(result[row, column], expected, atol=1e-4)
        assert down[row, column] == field.down[votes[heaviest][1]]
