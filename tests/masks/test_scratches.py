"""Marks of age are found, by the network or by morphology, and undamaged photos have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from skimage import data

from regionnorm.checkpoints.finder import load_finder
from regionnorm.masks import scratches
from regionnorm.masks.check import make_mask
from regionnorm.masks.damage import FAINT, damage_photo
from regionnorm.masks.marks import KINDS
from regionnorm.masks.regions import dilate_disk
from regionnorm.masks.scratches import find_scratches, mark_probability
from regionnorm.photo import Photo


def scratched(
    pixels: np.ndarray, level: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A copy with thin winding lines and specks of one brightness, and where they are."""
    height, width = pixels.shape[:2]
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for _ in range(6):
        x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 6.3)
        points = [(x, y)]
        for _ in range(30):
            angle += rng.normal(0, 0.06)
            x, y = x + 8 * np.cos(angle), y + 8 * np.sin(angle)
            points.append((x, y))
        draw.line(points, fill=255, width=int(rng.integers(1, 4)))
    for _ in range(15):
        x, y = rng.uniform(5, width - 5), rng.uniform(5, height - 5)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=255)
    marks = np.asarray(mask) > 127
    result = pixels.copy()
    result[marks] = level
    return result, marks


@pytest.mark.parametrize("level", [250, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lines_and_dust_on_a_smooth_photo_are_found(
    rng: np.random.Generator, level: int, dtype: type
) -> None:
    y, x = np.mgrid[0:360, 0:480]
    gray = 90 + 60 * np.sin(x / 90) * np.cos(y / 70) + rng.normal(0, 3, x.shape)
    pixels = np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    pixels, marks = scratched(pixels, level, rng)
    found = find_scratches(
        pixels.astype(dtype) * (257 if dtype is np.uint16 else 1), method="classical"
    )
    assert found[marks].mean() > 0.9
    assert dilate_disk(marks, 3)[found].mean() > 0.95


def test_most_scratches_on_a_real_photo_are_found(rng: np.random.Generator) -> None:
    pixels, marks = scratched(data.chelsea(), 250, rng)
    found = find_scratches(pixels, method="classical")
    assert found[marks].mean() > 0.75
    assert found.mean() < 3 * dilate_disk(marks, 2).mean()


def test_a_photo_without_scratches_gives_none(rng: np.random.Generator) -> None:
    y, x = np.mgrid[0:300, 0:400]
    smooth = np.stack([100 + x / 4, 90 + y / 3, 120 + (x + y) / 9], 2)
    noisy = (smooth + rng.normal(0, 5, smooth.shape)).clip(0, 255).astype(np.uint8)
    assert find_scratches(noisy, method="classical").mean() < 1e-3


def test_large_photos_are_looked_at_in_a_smaller_copy() -> None:
    pixels = np.full((1500, 2600, 3), 120, np.uint8)
    pixels[200:1300, 1000:1006] = 240
    found = find_scratches(pixels, method="classical")
    assert found.shape == (1500, 2600)
    assert found[250:1250, 1000:1006].all()
    assert found.mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 2, 3)])
def test_tiny_photos_have_no_scratches(shape: tuple[int, int, int]) -> None:
    assert not find_scratches(np.zeros(shape, np.uint8)).any()
    assert not find_scratches(np.zeros(shape, np.uint8), method="classical").any()


def test_sensitivity_finds_fainter_marks() -> None:
    pixels = np.full((200, 300, 3), 120, np.uint8)
    pixels[50:150, 100] = 138
    assert not find_scratches(pixels, method="classical").any()
    assert find_scratches(pixels, sensitivity=2, method="classical")[55:145, 100].all()
    with pytest.raises(ValueError, match="sensitivity is 0"):
        find_scratches(pixels, sensitivity=0)


# --- the network --------------------------------------------------------------------------------


def score(method: str) -> tuple[float, float]:
    """Recall and precision, to within two pixels, over marks of all kinds on a real photo."""
    photo = data.chelsea()[:224, 100:324]
    marked = covered = found_pixels = right = 0
    for seed, kind in enumerate(KINDS * 2):
        case = damage_photo(photo, np.random.default_rng(seed), kinds=[kind])
        found = find_scratches(case.image, method=method)  # type: ignore[arg-type]
        near = dilate_disk(case.marks, 2) | (case.change >= FAINT)
        marked, covered = marked + case.marks.sum(), covered + (case.marks & found).sum()
        found_pixels, right = found_pixels + found.sum(), right + (found & near).sum()
    return float(covered / marked), float(right / found_pixels)


def test_the_network_finds_more_than_morphology_and_more_of_it_is_damage() -> None:
    recall, precision = score("learned")
    classical_recall, classical_precision = score("classical")
    assert recall > 0.45
    assert recall > classical_recall + 0.1
    assert precision > classical_precision + 0.15


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_the_network_takes_less_of_an_undamaged_photo_than_morphology(name: str) -> None:
    photo = np.asarray(Image.fromarray(getattr(data, name)()).resize((400, 300)))
    assert find_scratches(photo).mean() < 0.9 * find_scratches(photo, method="classical").mean()


def test_what_is_likely_but_nowhere_sure_is_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    likely = np.zeros((40, 60), np.float32)
    likely[10, 5:25] = 0.8  # sure at one pixel
    likely[10, 15] = 0.99
    likely[30, 5:25] = 0.8
    likely[20, 40:42] = 0.99  # too small
    monkeypatch.setattr(scratches, "mark_probability", lambda *_: likely)
    found = find_scratches(np.zeros((40, 60, 3), np.uint8))
    expected = np.zeros((40, 60), bool)
    expected[10, 5:25] = True
    assert np.array_equal(found, dilate_disk(expected, 1))
    # Who asks for fainter marks gets the unsure ones, too; who asks for fewer gets none.
    assert find_scratches(np.zeros((40, 60, 3), np.uint8), sensitivity=8)[30, 5:25].all()
    assert not find_scratches(np.zeros((40, 60, 3), np.uint8), sensitivity=0.02).any()


def test_sixteen_bits_are_looked_at_as_eight() -> None:
    case = damage_photo(data.chelsea()[:160, :160], np.random.default_rng(2), kinds=["dust"])
    deep = case.image.astype(np.uint16) * 257
    assert np.array_equal(find_scratches(deep), find_scratches(case.image))


def test_tiles_cover_a_photo_and_hardly_show(monkeypatch: pytest.MonkeyPatch) -> None:
    case = damage_photo(data.chelsea()[:230, :310], np.random.default_rng(1))
    whole = mark_probability(load_finder(), case.image)
    monkeypatch.setattr(scratches, "_TILE", 160)
    monkeypatch.setattr(scratches, "_OVERLAP", 48)
    tiled = mark_probability(load_finder(), case.image)
    assert tiled.shape == whole.shape and not np.array_equal(tiled, whole)
    assert np.abs(tiled - whole).mean() < 0.03


def test_a_photo_of_many_megapixels_is_looked_at_in_a_smaller_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scratches, "_MOST_PIXELS", 60_000)
    photo = np.full((600, 500, 3), 120, np.uint8)
    photo[100:520, 240:246] = 240
    found = find_scratches(photo)
    assert found.shape == (600, 500)
    assert found[120:500, 241:245].mean() > 0.9
    assert found.mean() < 0.03


def test_the_photo_is_not_changed_and_the_threads_do_not_matter() -> None:
    case = damage_photo(data.chelsea()[:128, :128], np.random.default_rng(3))
    before, found = case.image.copy(), find_scratches(case.image)
    assert np.array_equal(case.image, before)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert (find_scratches(case.image) != found).mean() < 1e-3
    finally:
        torch.set_num_threads(threads)


def test_without_its_weights_morphology_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = np.full((200, 300, 3), 120, np.uint8)
    pixels[50:150, 100] = 160
    expected = find_scratches(pixels, method="classical")
    assert expected.any()
    missing = tmp_path / "none.safetensors"
    monkeypatch.setattr(scratches, "packaged_finder", lambda: missing)
    assert np.array_equal(find_scratches(pixels), expected)


def test_both_ways_have_a_rule_and_other_ways_none() -> None:
    case = damage_photo(data.chelsea()[:200, :200], np.random.default_rng(5), kinds=["lines"])
    photo = Photo.from_image(Image.fromarray(case.image))
    for rule, method in (("auto:scratches", "learned"), ("auto:scratches-classical", "classical")):
        found = find_scratches(case.image, method=method)  # type: ignore[arg-type]
        assert np.array_equal(make_mask(photo, rule).hole, found)
    with pytest.raises(ValueError, match="method is 'magic'"):
        find_scratches(case.image, method="magic")  # type: ignore[arg-type]
    blank = Photo.from_image(Image.new("RGB", (64, 64), (120, 120, 120)))
    with pytest.raises(ValueError, match="no scratches were found"):
        make_mask(blank, "auto:scratches")
