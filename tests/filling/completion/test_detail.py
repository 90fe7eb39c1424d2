"""Narrow holes take their fine detail from places that look like what is painted in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

pytest.importorskip("numba")

from regionnorm.filling.completion import complete as module
from regionnorm.filling.completion import detail
from regionnorm.filling.completion.complete import complete
from regionnorm.filling.completion.detail import lookalike, with_detail
from regionnorm.filling.completion.structure import source_centres

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def stripes(height: int = 60, width: int = 80) -> Floats:
    """Oblique stripes of unlike greys: a patch is found again along them, and not elsewhere."""
    rows, columns = np.indices((height, width))
    greys = np.random.default_rng(2).permutation(np.linspace(0.1, 0.9, 40)).astype(np.float32)
    return np.repeat(greys[(columns - rows) % 40][..., None], 3, axis=2)


def scratched(photo: Floats) -> tuple[Place, Floats]:
    """A crooked scratch, and a fill of it that is the original softened."""
    hole = np.zeros(photo.shape[:2], bool)
    hole[8:50, 30:34] = hole[30:33, 10:70] = True
    soft = ndimage.gaussian_filter(photo, (1.5, 1.5, 0))
    return hole, np.where(hole[..., None], soft, photo).astype(np.float32)


def test_a_soft_fill_leads_to_the_pixels_that_belong_there() -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    alike = lookalike(painted, hole, hole)
    assert alike.dtype == np.float32
    assert np.mean(np.abs(alike - photo[hole]) < 1e-6) > 0.9
    assert np.isin(alike, photo[~hole]).all(), "known pixels, and no means of them"


def test_what_is_not_wanted_is_not_filled_and_nobody_copies_from_it() -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    painted[40:44, 60:64] = 7  # a hole of somebody else's
    hole[40:44, 60:64] = True
    place = hole.copy()
    place[40:44, 60:64] = False
    alike = lookalike(painted, hole, place)
    assert alike.shape == (np.count_nonzero(place), 3)
    assert alike.max() < 1


@pytest.mark.parametrize("known", [0, 6])
def test_without_a_known_patch_what_is_painted_stays(known: int) -> None:
    painted = np.random.default_rng(0).random((30, 40, 3), dtype=np.float32)
    hole = np.ones((30, 40), bool)
    hole[:known] = False  # a patch has seven rows
    assert np.array_equal(lookalike(painted, hole, hole), painted[hole])


@pytest.mark.parametrize("furthest", [128, 6])
def test_the_first_match_is_the_nearest_place_there_is(furthest: int) -> None:
    hole = np.random.default_rng(4).random((50, 60)) < 0.01
    hole[:, 25:40] = True
    sources = source_centres(hole)
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(hole))
    down, right = detail._nearest(rows, columns, sources, furthest)
    away = ndimage.distance_transform_cdt(~sources, metric="chessboard")[rows, columns]
    found = away <= furthest
    assert found.any()
    assert np.array_equal(np.maximum(np.abs(down), np.abs(right)), np.where(found, away, 0))
    assert sources[rows + down, columns + right][found].all()


def test_only_what_is_fine_is_taken_and_only_a_share_of_it() -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    other = photo[hole]
    assert np.array_equal(with_detail(painted, other, hole, 0), painted[hole])
    whole, half = (with_detail(painted, other, hole, share) for share in (1, 0.5))
    assert np.allclose(whole - painted[hole], 2 * (half - painted[hole]), atol=1e-6)
    wide = np.zeros_like(hole)
    wide[10:50, 10:70] = True
    brighter = with_detail(painted, painted[wide] + np.float32(0.2), wide, 1)
    inside = np.zeros_like(hole)
    inside[22:38, 22:58] = True
    assert np.abs(brighter - painted[wide])[inside[wide]].max() < 0.01


def test_what_is_fine_is_the_rest_of_eight_binomial_filters() -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    difference = np.where(hole[..., None], photo - painted, 0).astype(np.float64)
    low = np.pad(difference, ((8, 8), (8, 8), (0, 0)), mode="edge")
    for axis in (0, 1) * 8:
        low = (np.roll(low, 1, axis) + 2 * low + np.roll(low, -1, axis)) / 4
    expected = painted + 0.4 * (difference - low[8:-8, 8:-8])
    assert np.abs(with_detail(painted, photo[hole], hole, 0.4) - expected[hole]).max() < 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_narrow_holes_come_nearer_to_the_photo_and_keep_the_networks_colours(dtype: type) -> None:
    levels = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    photo = stripes()
    hole, painted = scratched(photo)
    tinged = np.where(hole[..., None], painted + np.float32(0.05), photo)
    image, network = ((x * levels).astype(dtype) for x in (photo, tinged))
    filled = complete(image, hole, network=network)
    assert filled.dtype == dtype
    assert np.array_equal(filled[~hole], image[~hole])
    error = filled[hole] / levels - photo[hole]
    before = network[hole] / levels - photo[hole]
    assert np.std(error) < 0.7 * np.std(before)
    assert error.mean() == pytest.approx(before.mean(), abs=0.02)
    assert np.array_equal(filled, complete(image, hole, network=network, seed=3))


def test_detail_by_tiles_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    whole = complete(photo, hole, network=painted)
    monkeypatch.setattr(module, "_TILE", 17)
    monkeypatch.setattr(module, "_NEAR", 30)
    tiled = complete(photo, hole, network=painted)
    assert np.array_equal(tiled[~hole], photo[~hole])
    errors = [np.std((filled - photo)[hole]) for filled in (tiled, whole, painted)]
    assert errors[0] < 1.2 * errors[1] < errors[2]
    assert np.abs(tiled - whole).mean() < 0.02


def test_hidden_pixels_lend_no_detail() -> None:
    photo = stripes()
    hole, painted = scratched(photo)
    hidden = np.zeros_like(hole)
    hidden[:, 45:] = True
    hidden &= ~hole
    image = np.where(hidden[..., None], np.float32(np.nan), photo)
    filled = complete(image, hole, network=painted, hidden=hidden)
    assert np.isfinite(filled[hole]).all()
    black = np.where(hidden[..., None], np.float32(0), photo)
    assert np.array_equal(filled[hole], complete(black, hole, network=painted, hidden=hidden)[hole])
