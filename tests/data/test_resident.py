"""Photos kept on a device: the dataset's own crops, position by position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from regionnorm.data import InpaintingDataset, UnreadableImageError, open_source
from regionnorm.data.resident import DoesNotFitError, ResidentPhotos, free_memory
from regionnorm.masks import CenterSquare

Folder = Callable[..., Path]


def dataset(folder: Path, **options) -> InpaintingDataset:
    return InpaintingDataset(
        open_source(folder), CenterSquare(), **({"size": 16, "seed": 3} | options)
    )


def both(folder: Path, count: int = 12, **options) -> tuple[Tensor, Tensor]:
    """Crops from files and from memory, in levels of 0 to 255."""
    samples = dataset(folder, **options)
    files = torch.stack([samples[position]["image"] for position in range(count)])
    kept = ResidentPhotos(samples, threads=1).batch(range(count)).image
    return files.float(), kept * 255


def test_crops_are_those_of_the_dataset_to_a_rounding(photo_folder: Folder) -> None:
    # Photos small enough to be stored as they are.
    files, kept = both(photo_folder(5, 40, 30), size=16, min_scale=0.5)
    assert kept.shape == (12, 3, 16, 16)
    assert (files - kept).abs().max() <= 1
    assert (files - kept).abs().mean() < 0.3


def test_crops_larger_than_their_part_of_the_photo_match_too(photo_folder: Folder) -> None:
    files, kept = both(photo_folder(3, 24, 30), size=32, min_scale=0.6, max_scale=0.9)
    assert (files - kept).abs().max() <= 1


def test_large_photos_look_as_sharp_as_from_files(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(2):
        noise = rng.integers(0, 256, (100, 150, 3), np.uint8)
        Image.fromarray(noise).resize((300, 200), 3).save(tmp_path / f"{index}.png")
    files, kept = both(tmp_path, size=16, min_scale=0.4, max_scale=0.8)

    def detail(crops: Tensor) -> float:
        return float((crops[..., 1:] - crops[..., :-1]).square().mean())

    assert detail(kept) == pytest.approx(detail(files), rel=0.15)
    assert (files - kept).abs().mean() < 0.15 * files.std()


def test_large_photos_are_stored_no_larger_than_crops_need(photo_folder: Folder) -> None:
    photos = ResidentPhotos(dataset(photo_folder(2, 128, 96), size=16, min_scale=0.5))
    assert photos.pixels.shape == (2 * 32 * 43, 3)
    assert photos.pixels.dtype == torch.uint8


def test_a_batch_depends_on_its_positions_only(photo_folder: Folder) -> None:
    photos = ResidentPhotos(dataset(photo_folder(4)))
    whole = photos.batch(range(3, 9)).image
    again = ResidentPhotos(dataset(photo_folder(4, name="same")), threads=3)
    parts = torch.cat([again.batch([position]).image for position in range(3, 9)])
    assert torch.allclose(whole, parts, atol=1.01 / 255)
    assert (whole != parts).float().mean() < 0.001
    assert torch.equal(whole, again.batch(range(3, 9)).image)


def test_pixels_are_whole_levels(photo_folder: Folder) -> None:
    image = ResidentPhotos(dataset(photo_folder(2))).batch(range(4)).image
    assert torch.equal((image * 255).round() / 255, image)
    assert 0 <= image.min() <= image.max() <= 1


def test_unreadable_photos_are_passed_over_as_from_files(photo_folder: Folder) -> None:
    folder = photo_folder(3)
    (folder / "broken.png").write_bytes(b"no picture")
    samples = dataset(folder, size=32)
    photos = ResidentPhotos(samples)
    assert photos.readable == 3
    for position in range(8):
        image, skipped = photos.batch([position])
        sample = samples[position]
        assert skipped == sample["skipped"]
        assert (image[0] * 255 - sample["image"].float()).abs().max() <= 1


def test_a_folder_without_a_readable_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"none of 1 photos.*broken\.png"):
        ResidentPhotos(dataset(tmp_path))


def test_photos_beyond_the_limit_are_refused_in_one_line(photo_folder: Folder) -> None:
    with pytest.raises(DoesNotFitError, match="3 photos need about .* GiB") as caught:
        ResidentPhotos(dataset(photo_folder(3)), limit=3000)
    assert "\n" not in str(caught.value)


def test_progress_counts_every_photo(photo_folder: Folder) -> None:
    seen: list[tuple[int, int]] = []
    ResidentPhotos(dataset(photo_folder(3)), on_progress=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_free_memory_is_a_plausible_number_of_bytes() -> None:
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50
