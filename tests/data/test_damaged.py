"""Samples with drawn marks depend on seed and position alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regionnorm.data import damaged, open_source
from regionnorm.data.damaged import DamagedPhotos
from regionnorm.masks.damage import VISIBLE, Damaged

Folder = Callable[..., Path]


@pytest.fixture
def make(photo_folder: Folder) -> Callable[..., DamagedPhotos]:
    source = open_source([photo_folder(3)])
    return lambda pool=6, seed=0, **options: DamagedPhotos(
        source, size=48, seed=seed, pool=pool, **options
    )


def test_a_sample_depends_on_seed_and_position_alone(make: Callable[..., DamagedPhotos]) -> None:
    one, other = make(), make()
    other.batch(range(0, 9))
    first, second = one.batch(range(7, 12)), other.batch(range(7, 12))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.image, make(seed=1).batch(range(7, 12)).image)


def test_the_pool_comes_again_turned_and_in_another_order(
    make: Callable[..., DamagedPhotos],
) -> None:
    photos = make()
    first, second = photos.batch(range(0, 6)), photos.batch(range(6, 12))
    assert not torch.equal(first.image, second.image)
    # Turned and mirrored, samples keep their sums.
    for a, b in zip(first, second, strict=True):
        sums = [part.double().sum((1, 2, 3)).sort().values for part in (a, b)]
        assert torch.allclose(*sums)


def test_marks_are_counted_and_faint_ones_are_not(make: Callable[..., DamagedPhotos]) -> None:
    batch = make(pool=12).batch(range(0, 12))
    assert batch.image.shape == (12, 3, 48, 48)
    assert 0 <= float(batch.image.min()) <= float(batch.image.max()) <= 1
    assert set(batch.marks.unique().tolist()) == {0.0, 1.0}
    assert bool(batch.counted[batch.marks > 0].all())
    assert 0.5 < float(batch.counted.mean()) < 1


def test_where_a_mark_lies_unseen_counts_neither_way(
    make: Callable[..., DamagedPhotos], monkeypatch: pytest.MonkeyPatch
) -> None:
    covered = np.zeros((48, 48), np.bool_)
    covered[:10] = True
    change = np.zeros((48, 48), np.uint8)
    change[:, :5] = VISIBLE
    image = np.zeros((48, 48, 3), np.uint8)
    monkeypatch.setattr(damaged, "damage_photo", lambda *_: Damaged(image, change, covered))
    assert bool(make(pool=1).batch(range(1)).counted.all())
    batch = make(pool=1, ignore_unseen=True).batch(range(1))
    assert int(batch.marks.sum()) == 48 * 5
    assert int(batch.counted.sum()) == 48 * 48 - 10 * (48 - 5)


def test_photos_are_enlarged_by_a_number_between_the_scales(
    photo_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    plain = np.zeros((16, 16, 3), np.uint8)
    nowhere = np.zeros((16, 16), np.bool_)
    case = Damaged(plain, nowhere.astype(np.uint8), nowhere)
    monkeypatch.setattr(damaged, "damage_photo", lambda *_: case)

    def resize(photo: Image.Image, size: tuple[int, int], _: object, box: Any) -> Image.Image:
        seen.append(size[0] / (box[2] - box[0]))
        return Image.new("RGB", size)

    monkeypatch.setattr(Image.Image, "resize", resize)
    source = open_source([photo_folder(3)])
    DamagedPhotos(source, size=16, seed=0, pool=30, scales=(1.5, 2.0)).batch(range(30))
    assert 1.5 <= min(seen) < 1.6 < 1.9 < max(seen) <= 2.0


def test_no_photos_are_refused(tmp_path: Path) -> None:
    class Empty:
        def __len__(self) -> int:
            return 0

    with pytest.raises(ValueError, match="no photos"):
        DamagedPhotos(Empty(), size=48, seed=0, pool=4)  # type: ignore[arg-type]
