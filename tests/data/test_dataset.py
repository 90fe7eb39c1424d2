"""Samples depend on seed and position only, and unreadable photos are passed over."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from regionnorm.data.dataset import InpaintingDataset
from regionnorm.data.sources import ImageSource, UnreadableImageError, open_source
from regionnorm.masks.generated import CenterSquare, GeneratedMasks


class Photos(ImageSource):
    """``count`` flat photos, whose gray level is their number; those in ``bad`` are damaged."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), size: tuple[int, int] = (40, 30)):
        self.count, self.bad, self.size = count, bad, size
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"photo {index}"

    def _bytes(self, index: int) -> bytes:
        raise NotImplementedError

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        self.reads.append(index)
        if index in self.bad:
            raise UnreadableImageError(f"{self.name(index)}: damaged")
        return Image.new("RGB", self.size, (index, index, index))


def make(source: ImageSource, **options) -> InpaintingDataset:
    return InpaintingDataset(source, GeneratedMasks(), **({"size": 32, "seed": 5} | options))


def photo_number(sample) -> int:
    return int(sample["image"][0, 0, 0])


def assert_same(first, second) -> None:
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["mask"], second["mask"])
    assert first["skipped"] == second["skipped"]


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = rng.integers(0, 256, (50 + index, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def test_a_sample_has_the_promised_shapes_and_types(noise_folder: Path) -> None:
    sample = make(open_source(noise_folder))[3]
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.uint8
    assert sample["mask"].shape == (1, 32, 32)
    assert sample["mask"].dtype == torch.float32
    assert set(sample["mask"].unique().tolist()) == {0.0, 1.0}
    assert sample["skipped"] == 0


def test_a_sample_depends_on_seed_and_position_only(noise_folder: Path) -> None:
    source = open_source(noise_folder)
    forward = [make(source)[position] for position in range(15)]
    dataset = make(source)
    for position in reversed(range(15)):
        assert_same(dataset[position], forward[position])
    other = make(source, seed=6)[0]
    assert not torch.equal(other["mask"], forward[0]["mask"])


def test_every_epoch_shows_every_photo_once_in_an_order_of_its_own() -> None:
    dataset = make(Photos(12))
    epochs = [[photo_number(dataset[12 * e + i]) for i in range(12)] for e in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert all(a != b for a, b in itertools.combinations(epochs, 2))


def test_crops_and_masks_change_from_epoch_to_epoch(noise_folder: Path) -> None:
    single = noise_folder / "0.png"
    first, second = (make(open_source(single))[position] for position in (0, 1))
    assert not torch.equal(first["image"], second["image"])
    assert not torch.equal(first["mask"], second["mask"])


def test_a_full_scale_crop_of_a_fitting_photo_is_the_photo_or_its_mirror(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    dataset = make(open_source(tmp_path), min_scale=1.0)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    mirrored = 0
    for position in range(40):
        image = dataset[position]["image"]
        is_mirror = torch.equal(image, expected.flip(-1))
        assert is_mirror or torch.equal(image, expected)
        mirrored += is_mirror
    assert 8 < mirrored < 32
    unflipped = make(open_source(tmp_path), min_scale=1.0, flip=False)
    assert all(torch.equal(unflipped[p]["image"], expected) for p in range(10))


def test_crops_reach_into_all_corners_and_keep_to_the_scale(tmp_path: Path) -> None:
    # Column and row are written in the colours, so that a crop shows where it came from.
    y, x = np.mgrid[0:100, 0:200].astype(np.uint8)
    Image.fromarray(np.stack([x, y, 0 * x], axis=-1)).save(tmp_path / "map.png")
    dataset = make(open_source(tmp_path), min_scale=0.5, flip=False)
    crops = torch.stack([dataset[position]["image"] for position in range(80)]).float()
    widths = (crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2))) * 32 / 31
    heights = (crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2))) * 32 / 31
    assert torch.allclose(widths, heights, atol=5)
    assert widths.min() >= 45
    assert widths.max() <= 103
    assert widths.max() - widths.min() > 30
    assert crops[:, 0].min() < 15
    assert crops[:, 0].max() > 185


@pytest.mark.parametrize("size", [(1, 1), (16, 500), (20, 20), (3, 4)])
def test_photos_of_any_size_fill_the_sample(size: tuple[int, int]) -> None:
    sample = make(Photos(1, size=size))[0]
    assert sample["image"].shape == (3, 32, 32)


def test_an_unreadable_photo_gives_way_to_the_next_in_the_order() -> None:
    whole = make(Photos(8))
    order = [photo_number(whole[position]) for position in range(8)]
    dataset = make(Photos(8, bad=(order[2], order[3], order[7])))
    samples = [dataset[position] for position in range(8)]
    replaced = [*order[:2], order[4], order[4], *order[4:7], order[0]]
    assert [photo_number(sample) for sample in samples] == replaced
    assert [sample["skipped"] for sample in samples] == [0, 0, 2, 1, 0, 0, 0, 1]
    # The crop and the mask of the position stay what they were.
    assert torch.equal(samples[2]["mask"], whole[2]["mask"])


def test_garbage_files_are_counted_and_never_fatal(noise_folder: Path) -> None:
    for index in range(5):
        (noise_folder / f"bad-{index}.jpg").write_bytes(b"\xff\xd8garbage" * (index + 1))
    dataset = make(open_source(noise_folder))
    assert len(dataset) == 11
    assert sum(dataset[position]["skipped"] > 0 for position in range(11)) == 5


def test_a_source_of_nothing_but_garbage_is_an_error_that_names_the_first() -> None:
    source = Photos(6, bad=tuple(range(6)))
    with pytest.raises(UnreadableImageError, match=r"none of 6 photos.*photo \d: damaged"):
        make(source)[0]
    assert sorted(source.reads) == list(range(6))


def test_the_number_of_workers_changes_nothing(noise_folder: Path) -> None:
    dataset = make(open_source(noise_folder))
    batches = [
        list(
            DataLoader(
                dataset,
                batch_size=3,
                sampler=range(4, 13),
                num_workers=workers,
                multiprocessing_context="fork" if workers else None,
            )
        )
        for workers in (0, 2)
    ]
    assert len(batches[0]) == 3
    for alone, helped in zip(*batches, strict=True):
        assert alone["image"].shape == (3, 3, 32, 32)
        assert torch.equal(alone["image"], helped["image"])
        assert torch.equal(alone["mask"], helped["mask"])
        assert torch.equal(alone["skipped"], torch.zeros(3, dtype=torch.int64))


def test_a_fixed_mask_can_be_trained_on() -> None:
    dataset = InpaintingDataset(Photos(2), CenterSquare(), size=32, seed=0)
    assert dataset[0]["mask"][0, 8:24, 8:24].all()
    assert dataset[0]["mask"].mean() == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "size 15"),
        ({"seed": -1}, "seed -1"),
        ({"min_scale": 0.0}, "min_scale 0"),
        ({"min_scale": 1.5}, "min_scale 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Photos(3), **options)


def test_an_empty_source_and_a_negative_position_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no photos"):
        make(Photos(0))
    with pytest.raises(IndexError, match="position -1"):
        make(Photos(3))[-1]
