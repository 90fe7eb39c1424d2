"""Drawn damage: the same by seed, of each kind, and its truth is where the photo changed."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from regionnorm.masks.damage import FAINT, VISIBLE, damage_photo
from regionnorm.masks.marks import KINDS, blurred, draw_marks


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(data.chelsea()[:128, 150:278])


def test_damage_is_the_same_by_seed(photo: np.ndarray) -> None:
    first, same, other = (damage_photo(photo, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first.image, same.image)
    assert np.array_equal(first.change, same.change)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_marks_some_of_the_photo_and_little_of_it(photo: np.ndarray, kind: str) -> None:
    shares = [
        damage_photo(photo, np.random.default_rng(seed), kinds=[kind]).marks.mean()
        for seed in range(12)
    ]
    assert np.median(shares) > 0.001
    assert np.mean(shares) < 0.2


def test_an_old_photo_without_marks_changes_everywhere_and_is_marked_nowhere(
    photo: np.ndarray,
) -> None:
    aged = damage_photo(photo, np.random.default_rng(1), kinds=[])
    assert not aged.change.any()
    assert aged.image.shape == photo.shape
    assert (aged.image != photo).mean() > 0.2


def test_marks_and_faint_pixels_share_none(photo: np.ndarray) -> None:
    damaged = damage_photo(photo, np.random.default_rng(0), kinds=["dust", "folds"])
    assert damaged.marks.any()
    assert damaged.faint.any()
    assert not (damaged.marks & damaged.faint).any()
    assert damaged.change[damaged.marks].min() >= VISIBLE
    assert damaged.change[~damaged.marks & ~damaged.faint].max() < FAINT


def test_a_mark_that_has_the_colour_of_the_photo_covers_it_unseen(photo: np.ndarray) -> None:
    assert not damage_photo(photo, np.random.default_rng(0), kinds=[]).covered.any()
    white = np.full_like(photo, 255)
    cases = [damage_photo(white, np.random.default_rng(s), kinds=["lines"]) for s in range(12)]
    plain = np.concatenate([case.change[case.covered] >= 60 for case in cases])
    unseen = np.concatenate([case.change[case.covered] < FAINT for case in cases])
    assert plain.sum() > 50
    assert unseen.sum() > 50


def test_about_a_sixth_of_the_photos_has_no_marks(photo: np.ndarray) -> None:
    small = photo[:48, :48]
    untouched = [
        not damage_photo(small, np.random.default_rng(seed)).change.any() for seed in range(60)
    ]
    assert 4 <= sum(untouched) <= 30  # some marks miss so small a photo


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (90, 33)])
def test_marks_have_the_photos_size_and_are_opacities(kind: str, size: tuple[int, int]) -> None:
    for layer in draw_marks(kind, *size, np.random.default_rng(0)):
        assert layer.cover.shape == size
        assert layer.cover.dtype == np.float32
        assert layer.cover.min() >= 0
        assert layer.cover.max() <= 1


def test_an_unknown_kind_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="kind 'rust' is not known; choose from scratches"):
        damage_photo(photo, np.random.default_rng(0), kinds=["rust"])


def test_blur_keeps_the_sum_of_what_lies_inside() -> None:
    plane = np.zeros((31, 31, 2), np.float32)
    plane[15, 15] = 1
    soft = blurred(plane, 1.2)
    assert soft.sum((0, 1)) == pytest.approx([1, 1], abs=1e-5)
    assert soft[15, 15, 0] == pytest.approx(1 / (2 * np.pi * 1.2**2), rel=0.05)
