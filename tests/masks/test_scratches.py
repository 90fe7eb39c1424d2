"""Scratches and dust are found, and smooth photos have none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data

from regionnorm.masks.regions import dilate_disk
from regionnorm.masks.scratches import find_scratches


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
    found = find_scratches(pixels.astype(dtype) * (257 if dtype is np.uint16 else 1))
    assert found[marks].mean() > 0.9
    assert dilate_disk(marks, 3)[found].mean() > 0.95


def test_most_scratches_on_a_real_photo_are_found(rng: np.random.Generator) -> None:
    pixels, marks = scratched(data.chelsea(), 250, rng)
    found = find_scratches(pixels)
    assert found[marks].mean() > 0.75
    assert found.mean() < 3 * dilate_disk(marks, 2).mean()


def test_a_photo_without_scratches_gives_none(rng: np.random.Generator) -> None:
    y, x = np.mgrid[0:300, 0:400]
    smooth = np.stack([100 + x / 4, 90 + y / 3, 120 + (x + y) / 9], 2)
    noisy = (smooth + rng.normal(0, 5, smooth.shape)).clip(0, 255).astype(np.uint8)
    assert find_scratches(noisy).mean() < 1e-3


def test_large_photos_are_looked_at_in_a_smaller_copy(rng: np.random.Generator) -> None:
    pixels = np.full((1500, 2600, 3), 120, np.uint8)
    pixels[200:1300, 1000:1006] = 240
    found = find_scratches(pixels)
    assert found.shape == (1500, 2600)
    assert found[250:1250, 1000:1006].all()
    assert found.mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 2, 3)])
def test_tiny_photos_have_no_scratches(shape: tuple[int, int, int]) -> None:
    assert not find_scratches(np.zeros(shape, np.uint8)).any()


def test_sensitivity_finds_fainter_marks() -> None:
    pixels = np.full((200, 300, 3), 120, np.uint8)
    pixels[50:150, 100] = 138
    assert not find_scratches(pixels).any()
    assert find_scratches(pixels, sensitivity=2)[55:145, 100].all()
    with pytest.raises(ValueError, match="sensitivity is 0"):
        find_scratches(pixels, sensitivity=0)
