"""What holds for every completed photo, and photos that are nearly none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import complete as module
from regionnorm.filling.completion import where
from regionnorm.filling.completion.complete import complete, warm_up
from regionnorm.filling.completion.where import NARROWEST

Pixels = npt.NDArray[Any]
Place = npt.NDArray[np.bool_]


def photo(height: int = 72, width: int = 80, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Stripes with some noise."""
    rng = np.random.default_rng(seed)
    stripes = 90 + 80 * (np.arange(width) // 5 % 2)
    picture = stripes[None, :, None] + rng.normal(0, 6, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def with_hole(image: Pixels, *, top: int = 20, left: int = 24, side: int = 30) -> Place:
    mask = np.zeros(image.shape[:2], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_known_pixels_stay_and_what_is_under_the_hole_is_not_read() -> None:
    image = photo()
    mask = with_hole(image)
    other = image.copy()
    other[mask] = 255 - other[mask]
    filled = complete(image, mask)
    assert (filled[~mask] == image[~mask]).all()
    assert (filled == complete(other, mask)).all()
    assert filled.dtype == np.uint8


def test_stripes_run_through() -> None:
    image = photo()
    mask = with_hole(image)
    filled = complete(image, mask).astype(float)
    assert np.abs(filled[mask] - image[mask]).mean() < 12


@pytest.mark.parametrize("painted", [False, True])
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_fill(painted: bool) -> None:
    image = np.random.default_rng(5).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    mask = with_hole(image)
    network = np.full_like(image, 128) if painted else None
    first, again, other = (complete(image, mask, network=network, seed=s) for s in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_the_number_of_threads_changes_nothing() -> None:
    program = (
        "import hashlib, numpy as np; from regionnorm.filling.completion.complete import complete;"
        "image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8);"
        "mask = np.zeros((150, 200), bool); mask[20:130, 30:170] = True;"
        "digest = hashlib.sha256(complete(image, mask).tobytes()).hexdigest()"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = "4" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    run = subprocess.run(
        [sys.executable, "-c", program + ";print(digest)"],
        env=os.environ | dict.fromkeys(names, threads),
        capture_output=True,
        check=True,
        text=True,
    )
    here: dict[str, str] = {}
    exec(program, here)
    assert run.stdout.strip() == here["digest"]


def test_grey_photos_stay_grey_though_the_network_has_colours() -> None:
    image = photo()
    image[...] = image[..., :1]
    mask = with_hole(image)
    network = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    for fill in (None, network):
        filled = complete(image, mask, network=fill)
        assert (filled == filled[..., :1]).all()


def test_one_colour_stays_one_colour() -> None:
    image = np.full((60, 70, 3), (12, 200, 90), np.uint8)
    mask = with_hole(image)
    network = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    assert (complete(image, mask, network=network) == image).all()


def test_dark_photos_are_filled_as_bright_ones() -> None:
    image = photo().astype(np.float64) / 255
    mask = with_hole(image)
    bright, dark = complete(image, mask), complete(image / 16, mask)
    assert np.abs(bright - 16 * dark).mean() < 0.02


def test_narrow_holes_stay_the_networks_but_for_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    network = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    mask = with_hole(image, side=NARROWEST - 1)
    mask[4:10, 4:70] = True
    filled = complete(image, mask, network=network).astype(float)
    assert (filled[mask] != network[mask]).any()
    assert np.abs(filled[mask].mean(0) - network[mask].mean(0)).max() < 4
    monkeypatch.setattr(module, "_DETAIL", 0)
    assert (complete(image, mask, network=network)[mask] == network[mask]).all()


def test_a_wide_hole_beside_a_narrow_one_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DETAIL", 0)
    image = photo()
    network = np.full_like(image, 128)
    mask = with_hole(image)
    mask[4:10, 4:70] = True
    filled = complete(image, mask, network=network)
    assert (filled[4:10, 4:70] == 128).all()
    assert filled[30:40, 30:45].std() > 20


def test_a_stroke_takes_pieces_in_fine_detail_and_elsewhere_for_another_fill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_DETAIL", 0)
    lively = photo(height=80, width=200)
    calm = (lively // 16 + 100).astype(np.uint8)
    calm[:6], calm[-6:] = 0, 255  # far from the stroke, so that the photo's range is as wide
    mask = np.zeros(lively.shape[:2], bool)
    mask[32:50, 20:180] = True
    for image, pieces in ((lively, True), (calm, False)):
        network = np.full_like(image, 90)
        first, second = (complete(image, mask, network=network, seed=seed) for seed in (0, 1))
        assert (first[mask] == 90).all() == (not pieces)
        assert (second[mask] != 90).any()


def test_only_what_is_known_and_near_says_how_calm_a_place_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_DETAIL", 0)
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (90, 700, 3), dtype=np.uint8)
    image[:, 100:400] //= 16
    mask, hidden = np.zeros((2, 90, 700), bool)
    mask[40:58, 150:350] = mask[40:58, 500:650] = True
    mask[30:36, 150:350] = True  # a line beside the first stroke
    network = np.full_like(image, 128)
    network[30:36] = rng.integers(0, 256, (6, 700, 3))
    hidden[62:, 150:350] = hidden[:, 480:570] = True
    image[hidden] = 9
    image[62:, 150:350] = rng.integers(0, 256, (28, 200, 3))
    filled = complete(image, mask, network=network, hidden=hidden)
    assert (filled[40:58, 150:350] == 128).all(), "the network's"
    assert (filled[40:58, 500:650] != 128).mean() > 0.9, "pieces"


def test_sections_of_a_stroke_are_decided_one_by_one_and_meet() -> None:
    rows, columns = np.indices((100, 900))
    image = np.repeat((0.5 + 0.4 * np.sin((rows + columns) / 2))[..., None], 3, axis=2)
    image[:, 450:] = 0.5 + (image[:, 450:] - 0.5) / 40  # fine detail, and then calm
    mask = np.zeros((100, 900), bool)
    mask[42:58, 20:880] = True
    network = image.copy()
    network[mask] = 0.5
    filled = complete(image, mask, network=network)
    off = np.abs(filled - image)[..., 0][42:58]
    assert off[:, 20:430].mean() < 0.05, "stripes go on"
    assert off[:, 220:250].mean() < 0.05, "over the cut as well"
    assert np.abs(filled[42:58, 680:880] - 0.5).max() < 0.03, "the network's"


def test_the_next_section_sees_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    beside, completed = [], module._completed

    def spy(pixels: Pixels, hole: Place, place: Place, *rest: Any, **more: Any) -> Pixels:
        beside.append(np.count_nonzero(hole & ~place))
        filled: Pixels = completed(pixels, hole, place, *rest, **more)
        return filled

    monkeypatch.setattr(module, "_completed", spy)
    image = photo(height=80, width=440)
    mask = np.zeros((80, 440), bool)
    mask[32:50, 20:420] = True
    complete(image, mask, network=np.full_like(image, 90))
    assert len(beside) == 3
    assert beside[0] > 0
    assert beside[-1] == 0


def test_more_strokes_than_time_allows_stay_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DETAIL", 0)
    monkeypatch.setattr(where, "_MOST_SECTIONS", 3)
    image = np.random.default_rng(0).integers(0, 256, (120, 300, 3), dtype=np.uint8)
    mask = np.zeros((120, 300), bool)
    for number in range(5):
        mask[50:64, 10 + 55 * number : 30 + 60 * number] = True  # each longer than the one before
    filled = complete(image, mask, network=np.full_like(image, 128))
    kept = [(filled[50:64, 12 + 55 * n : 28 + 60 * n] == 128).all() for n in range(5)]
    assert kept == [True, True, False, False, False]


def test_a_small_photo_takes_whole_pieces_as_a_large_one_does() -> None:
    image = photo()
    mask = with_hole(image)
    network = np.full_like(image, 64)  # far from the photo's mean
    filled = complete(image, mask, network=network)
    assert filled[mask].std() > 0.9 * image[~mask].std()
    assert abs(filled[mask].mean() - image[~mask].mean()) < 10


def test_without_the_networks_fill_or_beside_it_the_exemplar_is_the_same() -> None:
    image = photo()
    mask = with_hole(image)
    network = np.full_like(image, 128)
    beside = complete(image, mask, network=network, method="exemplar")
    assert (beside == complete(image, mask)).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_other_depths_are_filled_alike(dtype: type) -> None:
    image = photo()
    mask = with_hole(image)
    factor = 257 if dtype is np.uint16 else 1 / 255
    filled = complete((image.astype(float) * factor).astype(dtype), mask)
    assert filled.dtype == dtype
    assert np.abs(filled[mask] / factor - complete(image, mask)[mask]).mean() < 2


@pytest.mark.parametrize("halvings", [1, 2, 3, 4])
def test_a_tone_begins_without_a_step_at_the_holes_border(halvings: int) -> None:
    side = 24 * 2**halvings
    hole = np.zeros((side, side), bool)
    hole[side // 6 : -side // 6, side // 6 : -side // 6] = True
    painted = np.full((side, side, 3), 0.4, np.float32)
    tone = np.zeros((side, side), np.float32)
    filled = np.full((np.count_nonzero(hole), 3), 0.5, np.float32)
    tone[hole] = module._toned(painted, filled, hole, halvings)[:, 0]
    middle = tone[side // 2]
    assert middle[side // 2] < -0.05
    assert np.abs(np.diff(middle[: side // 2])).max() < 0.08 / 2**halvings


def test_a_pattern_is_not_darkened_by_what_is_painted_as_most_of_it() -> None:
    hole = np.zeros((96, 96), bool)
    hole[16:80, 16:80] = True
    bricks = np.full((96, 96, 3), 0.4, np.float32)
    bricks[::10], bricks[1::10], bricks[:, ::14] = 0.8, 0.8, 0.8  # light joints
    painted = np.full((96, 96, 3), 0.4, np.float32)
    assert np.abs(module._toned(painted, bricks[hole], hole, 2)).max() < 0.01
    # A pattern that is darker as a whole is told.
    tone = np.zeros((96, 96), np.float32)
    tone[hole] = module._toned(painted + 0.08, bricks[hole], hole, 2)[:, 0]
    assert 0.05 < tone[48, 48] < 0.09


@pytest.mark.parametrize("place", ["corner", "all borders", "all but a corner", "lattice"])
def test_holes_in_awkward_places(place: str) -> None:
    image = photo(60, 66)
    mask = np.zeros((60, 66), bool)
    if place == "corner":
        mask[:30, :33] = True
    elif place == "all borders":
        mask[:] = True
        mask[20:40, 20:40] = False
    elif place == "all but a corner":
        mask[:] = True
        mask[0, 0] = False
        image[0, 0] = (1, 2, 3)
    else:
        mask[::3], mask[:, ::3] = True, True
    filled = complete(image, mask)
    assert (filled[~mask] == image[~mask]).all()
    if place in ("corner", "all borders"):
        assert np.abs(filled[mask].mean() - image[~mask].mean()) < 25


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (3, 3), (1, 40), (9, 5), (20, 3)])
def test_tiny_photos(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, bool)
    mask[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2] = True
    filled = complete(image, mask)
    assert (filled[~mask] == image[~mask]).all()


def test_no_hole_is_a_copy() -> None:
    image = photo()
    filled = complete(image, np.zeros(image.shape[:2], bool))
    assert (filled == image).all()
    assert filled is not image


def test_all_hole_is_the_networks_or_an_error() -> None:
    image = photo()
    mask = np.ones(image.shape[:2], bool)
    network = np.full_like(image, 7)
    assert (complete(image, mask, network=network) == 7).all()
    with pytest.raises(ValueError, match="covers the whole image"):
        complete(image, mask)
    with pytest.raises(ValueError, match="covers the whole image"):
        complete(image, mask, network=network, method="exemplar")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, "give \\[H, W, 3\\]"),
        ({"image": np.zeros((4, 4, 3), np.int64)}, "int64"),
        ({"mask": np.zeros((4, 5), bool)}, "\\[4, 5\\]"),
        ({"mask": np.zeros((4, 4), np.uint8)}, "uint8"),
        ({"network": np.zeros((4, 4, 3), np.float32)}, "float32"),
        ({"method": "best"}, "auto, exemplar"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"image": np.zeros((4, 4, 3), np.uint8), "mask": np.eye(4, dtype=bool)}
    with pytest.raises(ValueError, match=message):
        complete(**(arguments | change))


def test_warming_up_leaves_nothing_to_compile() -> None:
    from regionnorm.filling.completion import (
        graph_cut,
        multigrid,
        patchmatch,
        planes,
        structure,
        vanishing,
    )

    warm_up()
    kernels = [graph_cut._expand, graph_cut._take_over, multigrid._smooth]
    kernels += [patchmatch.improve, patchmatch.vote, planes._plane_match, vanishing._support]
    kernels += [planes._move, structure._mismatch, structure._add_looks]
    before = [len(kernel.signatures) for kernel in kernels]
    image = photo()
    complete(image, with_hole(image), network=image, seed=9)
    complete(image / 255, with_hole(image))
    floor = run_path(str(Path(__file__).with_name("floors.py")))["floor"]
    tiles = 255 * floor(120, 160, horizon=-60, tile=40)
    hole = np.zeros((120, 160), bool)
    hole[40:80, 60:110] = True
    complete(tiles.astype(np.uint8), hole)
    assert all(before)
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_a_hole_far_larger_than_what_is_known_is_decided_on_a_small_copy() -> None:
    hole = np.ones((600, 800), bool)
    hole[200:400, 300:500] = False  # a twelfth is known
    assert np.count_nonzero(hole) / 4 ** module._depth(hole) < 60_000
    mesh = np.ones((120, 160), bool)
    mesh[::8] = False  # lines that a smaller copy would lose
    assert module._depth(mesh) == 0


def test_a_hole_amid_transparency_is_filled_from_farther_away() -> None:
    image = np.full((300, 420, 3), 200, np.uint8)
    image[..., 0] = np.random.default_rng(0).integers(100, 200, (300, 420))
    hidden = np.ones((300, 420), bool)
    hidden[:, 380:] = False
    mask = np.zeros((300, 420), bool)
    mask[130:170, 40:80] = True
    image[mask] = (255, 0, 0)
    filled = complete(image, mask, hidden=hidden, method="exemplar")
    assert (filled[mask][:, 1] > 150).all()


@pytest.mark.parametrize("where", ["mask", "hidden"])
def test_nan_where_nothing_is_read_changes_nothing(where: str) -> None:
    image = np.random.default_rng(0).random((90, 100, 3)).astype(np.float32)
    mask, hidden = np.zeros((2, 90, 100), bool)
    mask[30:60, 30:70], hidden[:, 75:] = True, True
    poisoned = image.copy()
    poisoned[mask if where == "mask" else hidden] = np.nan
    expected = complete(image, mask, hidden=hidden, method="exemplar")[mask]
    found = complete(poisoned, mask, hidden=hidden, method="exemplar")[mask]
    assert np.array_equal(found, expected)
