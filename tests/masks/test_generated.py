"""Generated masks keep their promises at every size, and files round-trip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from regionnorm.masks import generated
from regionnorm.masks.generated import (
    INTERVALS,
    MASK_KINDS,
    CenterSquare,
    GeneratedMasks,
    Interval,
    MaskFolder,
    box_mask,
    center_square_mask,
    ellipse_mask,
    evaluation_mask,
    free_form_mask,
    interval_mask,
    scratch_mask,
    touches_border,
    write_masks,
)


def in_interval(mask: np.ndarray, interval: Interval) -> bool:
    return bool(interval[0] < mask.mean() <= interval[1])


# --- interval_mask ---


@settings(max_examples=120, deadline=None)
@given(
    height=st.integers(16, 80),
    width=st.integers(16, 80),
    interval=st.sampled_from([*INTERVALS, (0.0, 0.02), (0.31, 0.33), (0.6, 0.7)]),
    touch=st.booleans(),
    kind=st.sampled_from(MASK_KINDS),
    seed=st.integers(0, 2**32),
)
def test_every_mask_hits_its_interval_and_its_border(
    height: int, width: int, interval: Interval, touch: bool, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = interval_mask(height, width, interval, rng, touch_border=touch, kinds=(kind,))
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    assert in_interval(mask, interval)
    assert touches_border(mask) is touch


@pytest.mark.parametrize("size", [(16, 16), (1024, 1024), (16, 700), (333, 517)])
@pytest.mark.parametrize("interval", [INTERVALS[0], INTERVALS[-1]])
def test_extreme_sizes_hit_the_interval(size: tuple[int, int], interval: Interval) -> None:
    for touch in (False, True):
        mask = interval_mask(*size, interval, np.random.default_rng(4), touch_border=touch)
        assert in_interval(mask, interval)
        assert touches_border(mask) is touch


@pytest.mark.parametrize("touch", [False, True])
def test_an_interval_of_a_single_pixel_count_is_met(touch: bool) -> None:
    # Of 1024 pixels only 205 lie in it, a share of 0.2002.
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mask = interval_mask(32, 32, (0.2, 0.2005), rng, touch_border=touch)
        assert np.count_nonzero(mask) == 205
        assert touches_border(mask) is touch


def test_a_hole_may_fill_all_but_the_border() -> None:
    mask = interval_mask(16, 16, (0.76, 0.77), np.random.default_rng(0), touch_border=False)
    assert mask[1:-1, 1:-1].all()
    assert not touches_border(mask)


def test_without_a_wish_about_half_of_the_masks_touch_the_border(rng: np.random.Generator) -> None:
    touching = sum(touches_border(interval_mask(32, 32, (0.2, 0.3), rng)) for _ in range(200))
    assert 70 < touching < 130


def test_the_same_generator_state_draws_the_same_mask() -> None:
    first, second = (
        interval_mask(64, 48, (0.1, 0.2), np.random.default_rng(seed)) for seed in (8, 8)
    )
    other = interval_mask(64, 48, (0.1, 0.2), np.random.default_rng(9))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        ((0.3, 0.2), "0 <= low < high <= 1"),
        ((-0.1, 0.2), "0 <= low < high <= 1"),
        ((0.5, 1.5), "0 <= low < high <= 1"),
        ((float("nan"), 0.2), "0 <= low < high <= 1"),
        ((0.2, 0.2001), "no number of pixels out of 256"),
        ((0.8, 0.9), "off the border"),
    ],
)
def test_impossible_intervals_are_refused(interval: Interval, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_mask(16, 16, interval, np.random.default_rng(0), touch_border=False)


def test_small_sizes_and_unknown_kinds_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="15x40: both sides must be 16 to 16384 px"):
        interval_mask(15, 40, (0.1, 0.2), rng)
    with pytest.raises(ValueError, match="choose from free-form"):
        interval_mask(40, 40, (0.1, 0.2), rng, kinds=("star",))
    with pytest.raises(ValueError, match="choose from free-form"):
        interval_mask(40, 40, (0.1, 0.2), rng, kinds=())


# --- kinds ---


@pytest.mark.parametrize("draw", [free_form_mask, scratch_mask, ellipse_mask, box_mask])
def test_each_kind_stays_within_the_area_asked_for(draw, rng: np.random.Generator) -> None:
    for _ in range(5):
        mask = draw(50, 70, rng, area=(0.05, 0.1))
        assert mask.shape == (50, 70)
        assert in_interval(mask, (0.05, 0.1))


def test_scratches_are_thinner_than_blobs() -> None:
    def edge_share(kind: str) -> float:
        shares = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            mask = interval_mask(128, 128, (0.08, 0.1), rng, touch_border=False, kinds=(kind,))
            inside = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1]
            inside &= mask[1:-1, :-2] & mask[1:-1, 2:]
            shares.append(1 - inside.sum() / mask.sum())
        return float(np.mean(shares))

    assert edge_share("scratch") > 2 * edge_share("blob")


@pytest.mark.parametrize("size", [(16, 16), (256, 256), (64, 100)])
def test_the_center_square_is_a_quarter_of_the_image(size: tuple[int, int]) -> None:
    mask = center_square_mask(*size)
    assert mask.mean() == 0.25
    assert np.array_equal(mask, mask[::-1, ::-1])
    assert np.array_equal(CenterSquare()(*size, np.random.default_rng(0)), mask)


# --- samplers ---


def test_training_masks_cover_all_intervals_alike_and_half_touch(rng: np.random.Generator) -> None:
    draw = GeneratedMasks()
    masks = [draw(48, 48, rng) for _ in range(600)]
    counts, _ = np.histogram([mask.mean() for mask in masks], bins=6, range=(0, 0.6))
    assert counts.sum() == 600
    assert counts.min() > 60
    assert 240 < sum(touches_border(mask) for mask in masks) < 360


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (300, 40), (400, 500)])
def test_thin_masks_are_windows_of_scratches_a_few_pixels_wide(size):
    draw = GeneratedMasks(thin=1.0)
    for seed in range(20):
        mask = draw(*size, np.random.default_rng(seed))
        assert mask.shape == size
        assert mask.any()
        # Crossings are wider than the lines that cross.
        radius = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
        assert np.median(radius[mask]) <= 5


def test_a_thin_mask_holds_the_pixel_around_which_it_was_cut(monkeypatch):
    def one_pixel(height, width, rng):
        mask = np.zeros((height, width), bool)
        mask[rng.integers(height), rng.integers(width)] = True
        return mask

    monkeypatch.setattr(generated, "scratch_mask", one_pixel)
    draw, rng = GeneratedMasks(thin=1.0), np.random.default_rng(0)
    assert all(draw(16, 20, rng).sum() == 1 for _ in range(500))


def test_a_share_of_the_masks_is_thin():
    def shares(thin):
        draw = GeneratedMasks(0.6, ("box",), thin=thin)
        masks = [draw(64, 64, np.random.default_rng(seed)) for seed in range(200)]
        return [ndimage.distance_transform_edt(mask).max() < 6 for mask in masks]

    assert np.mean(shares(0.5)) > np.mean(shares(0.0)) + 0.3
    with pytest.raises(ValueError, match="thin 2"):
        GeneratedMasks(thin=2)


def test_training_masks_stay_below_the_largest_area(rng: np.random.Generator) -> None:
    draw = GeneratedMasks(max_area=0.15, kinds=("box",))
    assert all(0 < draw(32, 32, rng).mean() <= 0.15 for _ in range(50))
    with pytest.raises(ValueError, match="max_area 0"):
        GeneratedMasks(max_area=0)


def test_a_mask_folder_reads_white_as_hole(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:, :15] = 128
    pixels[:, 15:] = 127
    Image.fromarray(pixels).save(tmp_path / "half.png")
    masks = [MaskFolder(tmp_path)(40, 60, rng) for _ in range(20)]
    assert all(mask.shape == (40, 60) and mask.dtype == np.bool_ for mask in masks)
    left = np.zeros((40, 60), np.bool_)
    left[:, :30] = True
    seen = {mask.tobytes() for mask in masks}
    assert seen == {left.tobytes(), left[:, ::-1].tobytes()}


def test_a_mask_folder_uses_all_of_its_files(tmp_path: Path, rng: np.random.Generator) -> None:
    for area in (0.1, 0.3, 0.5):
        mask = interval_mask(32, 32, (area, area + 0.1), rng)
        Image.fromarray(mask).save(tmp_path / f"{area}.png")
    folder = MaskFolder(tmp_path)
    assert len(folder) == 3
    assert len({round(float(folder(32, 32, rng).mean()), 4) for _ in range(60)}) == 3


def test_a_mask_folder_passes_over_damaged_files(tmp_path: Path, rng: np.random.Generator) -> None:
    Image.fromarray(interval_mask(32, 32, (0.1, 0.2), rng)).save(tmp_path / "good.png")
    for name in ("a", "z"):
        (tmp_path / f"{name}.png").write_bytes(b"not an image")
    folder = MaskFolder(tmp_path)
    assert all(folder(32, 32, rng).any() for _ in range(20))
    (tmp_path / "good.png").unlink()
    with pytest.raises(ValueError, match="none of its 2 mask images"):
        MaskFolder(tmp_path)(32, 32, rng)


def test_an_empty_mask_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no mask images"):
        MaskFolder(tmp_path)


# --- the fixed test set ---


def test_evaluation_masks_depend_on_their_arguments_only() -> None:
    alone = evaluation_mask(7, (0.2, 0.3), 64)
    for index in range(7):
        evaluation_mask(index, (0.2, 0.3), 64)
    np.random.default_rng(1).random(10)
    assert np.array_equal(evaluation_mask(7, (0.2, 0.3), 64), alone)
    assert not np.array_equal(evaluation_mask(7, (0.2, 0.3), 64, seed=1), alone)
    assert not np.array_equal(evaluation_mask(9, (0.2, 0.3), 64), alone)


@pytest.mark.parametrize("interval", INTERVALS)
def test_half_of_the_evaluation_masks_touch_the_border(interval: Interval) -> None:
    masks = [evaluation_mask(index, interval, 64) for index in range(12)]
    assert all(in_interval(mask, interval) for mask in masks)
    assert [touches_border(mask) for mask in masks] == [True, False] * 6


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="index -1"):
        evaluation_mask(-1, (0.2, 0.3), 64)


# --- writing ---


def test_written_masks_are_in_the_interval_and_half_touch(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    written = write_masks(
        tmp_path / "out",
        interval=(0.2, 0.3),
        count=6,
        size=48,
        seed=1,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert written == 6
    assert calls == [(done, 6) for done in range(1, 7)]
    files = sorted((tmp_path / "out").glob("*.png"))
    assert [file.name for file in files] == [f"0000{i}.png" for i in range(6)]
    masks = [np.asarray(Image.open(file).convert("L")) for file in files]
    assert all(set(np.unique(mask)) == {0, 255} for mask in masks)
    assert all(in_interval(mask > 0, (0.2, 0.3)) for mask in masks)
    assert sum(touches_border(mask > 0) for mask in masks) == 3


def test_the_list_beside_written_masks_holds_what_is_in_them(tmp_path: Path) -> None:
    write_masks(tmp_path, interval=None, count=8, size=32, seed=2, kind="free-form")
    listed = json.loads((tmp_path / "masks.json").read_text())
    expected = {"interval": None, "count": 8, "size": 32, "seed": 2, "kind": "free-form"}
    assert listed["settings"] == expected
    for index, entry in enumerate(listed["masks"]):
        mask = np.asarray(Image.open(tmp_path / entry["file"]))
        assert entry["area"] == pytest.approx(mask.mean(), abs=1e-6)
        assert in_interval(mask, INTERVALS[index % 6])
        assert entry["touches_border"] is touches_border(mask)


def test_a_seed_writes_the_same_files_again(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_masks(tmp_path / name, interval=(0.1, 0.2), count=3, size=32, seed=seed)
    a, b, c = (
        [file.read_bytes() for file in sorted((tmp_path / name).glob("*.png"))] for name in "abc"
    )
    assert a == b
    assert a != c


def test_center_masks_can_be_written(tmp_path: Path) -> None:
    write_masks(tmp_path, interval=(0.2, 0.3), count=1, size=64, seed=0, kind="center")
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "00000.png")), center_square_mask(64, 64)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count 0"),
        ({"size": 8}, "8x8"),
        ({"seed": -1}, "seed -1"),
        ({"kind": "star"}, "'star'"),
        ({"interval": (0.3, 0.2)}, "0.3-0.2"),
        ({"kind": "center", "interval": (0.4, 0.5)}, "'center' covers 0.250"),
        ({"count": 2, "size": 16, "interval": (0.8, 0.9)}, "covers at most 0.766"),
    ],
)
def test_nonsense_settings_write_nothing(tmp_path: Path, changes: dict, message: str) -> None:
    settings = {"interval": (0.2, 0.3), "count": 1, "size": 32, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        write_masks(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_images_that_are_there_are_neither_replaced_nor_mixed_in(tmp_path: Path) -> None:
    settings: dict = {"interval": (0.2, 0.3), "count": 3, "size": 32, "seed": 0}
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    Image.new("RGB", (20, 20)).save(photos / "00000.png")
    before = (photos / "00000.png").read_bytes()
    write_masks(masks, **settings)
    for folder, changes in ((photos, {}), (masks, {"seed": 5}), (masks, {"count": 1})):
        there = {path.name for path in folder.iterdir()}
        with pytest.raises(ValueError, match="holds images"):
            write_masks(folder, **settings | changes)
        assert {path.name for path in folder.iterdir()} == there
    assert (photos / "00000.png").read_bytes() == before


def test_writing_that_was_stopped_goes_on_with_the_same_settings(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    settings: dict = {"interval": (0.2, 0.3), "count": 3, "size": 32, "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        write_masks(tmp_path / "a", **settings, on_progress=stop)
    for name in "ab":
        write_masks(tmp_path / name, **settings)
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in "ab")
    assert a == b and len(a) == 4


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="name a folder"):
        write_masks(tmp_path / "out", interval=None, count=1, size=32, seed=0)


@pytest.mark.parametrize("kind", ["strokes", "layer", "labels"])
def test_a_mask_folder_reads_masks_as_inpaint_does(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    hole = np.zeros((32, 32), bool)
    hole[8:24, 8:20] = True
    if kind == "strokes":  # of a colour, on white
        pixels = np.full((32, 32, 3), 255, np.uint8)
        pixels[hole] = (200, 0, 0)
    elif kind == "layer":  # black on transparent black
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[hole, 3] = 255
    else:
        pixels = hole.astype(np.uint8)
        pixels[0, 0] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert MaskFolder(tmp_path)(32, 32, rng).mean() == hole.mean()
