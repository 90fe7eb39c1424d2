"""Studies find their photos where people have them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from regionnorm.data import open_source
from regionnorm.studies import find_photos
from regionnorm.studies.photos import spread_photos


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)


def test_this_projects_layout(tmp_path: Path) -> None:
    put(tmp_path / "photo.png", tmp_path / "val/1.png", tmp_path / "faces/val/1.jpg")
    for shard in ("train/train-000.tar", "faces/faces-000.tar"):
        path = tmp_path / shard
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "photo.png", "photo.png")
    data = find_photos([tmp_path], tmp_path / "lists")
    for photos in (data.get("scenes"), data.get("faces")):
        assert len(open_source(photos.train)) == len(open_source(photos.val)) == 1
    # Shards beside faces/val: the folder's own pictures are not trained on.
    assert data.get("faces").train.endswith("*.tar")


def test_photos_beside_val_are_trained_on_without_those_in_it(tmp_path: Path) -> None:
    put(*(tmp_path / "faces" / name for name in ("1.png", "more/2.png", "val/3.png")))
    faces = find_photos([tmp_path], tmp_path / "lists").get("faces")
    train, val = open_source(faces.train), open_source(faces.val)
    assert sorted(Path(train.name(i)).name for i in range(len(train))) == ["1.png", "2.png"]
    assert [Path(val.name(i)).name for i in range(len(val))] == ["3.png"]


def test_places2_as_its_authors_pack_it(tmp_path: Path) -> None:
    put(tmp_path / "data_256/a/abbey/1.jpg", tmp_path / "data_256/b/2.jpg")
    put(tmp_path / "val_256/Places365_val_00000001.jpg")
    photos = find_photos([tmp_path], tmp_path / "lists").get("scenes")
    assert len(open_source(photos.train)) == 2
    assert len(open_source(photos.val)) == 1


def test_celeba_by_its_partition(tmp_path: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(1, 7)]
    put(*(tmp_path / "img_align_celeba" / name for name in names))
    parts = "001122"
    lines = (f"{name} {part}" for name, part in zip(names, parts, strict=True))
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines))
    data = find_photos([tmp_path], tmp_path / "lists")
    photos = data.get("faces")
    train, test = open_source(photos.train), open_source(photos.val)
    assert [Path(train.name(i)).name for i in range(len(train))] == names[:2]
    assert [Path(test.name(i)).name for i in range(len(test))] == names[4:]
    with pytest.raises(ValueError, match="no scenes"):
        data.get("scenes")


def test_two_folders_together(tmp_path: Path) -> None:
    put(tmp_path / "places/train/1.png", tmp_path / "places/val/1.png")
    put(tmp_path / "other/faces/train/1.png", tmp_path / "other/faces/val/1.png")
    data = find_photos([tmp_path / "places", tmp_path / "other"], tmp_path / "lists")
    assert data.scenes is not None
    assert data.faces is not None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_photos([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(ValueError, match="neither scenes"):
        find_photos([tmp_path], tmp_path)
    put(tmp_path / "img_align_celeba/1.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("1.jpg 1\n")
    with pytest.raises(ValueError, match="part 0"):
        find_photos([tmp_path], tmp_path)


def test_spread_photos_come_from_all_over_the_folder_and_so_do_the_first_of_them(
    tmp_path: Path,
) -> None:
    put(*(tmp_path / f"{i:03d}.png" for i in range(100)))
    chosen = [int(Path(path).stem) for path in spread_photos(str(tmp_path), 40)]
    assert len(set(chosen)) == 40
    for first in (10, 20, 40):
        tenths = [sum(i // 10 == tenth for i in chosen[:first]) for tenth in range(10)]
        assert min(tenths) >= first // 10 - 1
        assert max(tenths) <= first // 10 + 1
    assert len(spread_photos(str(tmp_path), 500)) == 100


def test_photos_to_judge_by_in_shards_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "photo.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(tmp_path / "photo.png", "photo.png")
    with pytest.raises(ValueError, match="not tar shards"):
        spread_photos(str(tmp_path / "photos.tar"), 1)
