"""Where a study finds its photos: this project's layout, Places2's or CelebA's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regionnorm.data.sources import open_source
from regionnorm.files.formats import list_images
from regionnorm.files.whole import atomic_path
from regionnorm.studies.plan import PhotoKind

__all__ = ["Photos", "StudyData", "find_photos", "spread_photos"]

# As their authors distribute them: Places2's small and large packages, CelebA's aligned photos.
_PLACES = (("data_256", "val_256"), ("data_large", "val_large"), ("train", "val"))
_CELEBA = ("img_align_celeba", "Img/img_align_celeba")
_PARTITIONS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
_TRAIN, _TEST = "0", "2"
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Photos:
    """Photos to train on and photos to measure on, as ``regionnorm train`` takes them."""

    train: str
    val: str


@dataclass(frozen=True)
class StudyData:
    """All that studies train and measure on; None for what there is not.

    Attributes:
        scenes: Places2's part.
        faces: CelebA's part.
        masks: Folder of masks to measure with, white = hole; None for a fixed generated set.
    """

    scenes: Photos | None
    faces: Photos | None
    masks: str | None = None

    def lacks(self, kind: PhotoKind) -> bool:
        """Whether there are no photos of a kind."""
        return (self.scenes if kind == "scenes" else self.faces) is None

    def get(self, kind: PhotoKind) -> Photos:
        """Photos of a kind.

        Raises:
            ValueError: There are none.
        """
        found = self.scenes if kind == "scenes" else self.faces
        if found is None:
            wanted = (
                "train/ and val/, or Places2's data_256/ and val_256/"
                if kind == "scenes"
                else "faces/train and faces/val, or CelebA's img_align_celeba/ and "
                "list_eval_partition.txt"
            )
            raise ValueError(f"no {kind} under --data; expected {wanted}")
        return found


def find_photos(roots: list[Path], lists: Path, masks: Path | None = None) -> StudyData:
    """Look for scenes and faces under folders.

    Args:
        roots: Folders, of which each holds scenes, faces or both.
        lists: Folder for the list files that CelebA's partition needs.
        masks: Folder of masks, see :class:`StudyData`.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: There are neither scenes nor faces.
    """
    scenes = faces = None
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"--data {root}: no such folder")
        scenes = scenes or _scenes(root)
        faces = faces or _faces(root, lists)
    if scenes is None and faces is None:
        where = ", ".join(map(str, roots))
        raise ValueError(
            f"--data {where}: neither scenes (train/ and val/, or Places2's data_256/ and val_256/)"
            " nor faces (faces/, or CelebA's img_align_celeba/)"
        )
    return StudyData(scenes, faces, None if masks is None else str(masks.resolve()))


def spread_photos(photos: str, count: int) -> list[str]:
    """Absolute paths of ``count`` photos from all over a folder, so ordered that any first few
    are from all over it, too.

    Args:
        photos: As ``regionnorm train --val`` takes them; files, not shards.
        count: How many; all if there are fewer.

    Raises:
        ValueError: They lie in shards, which a list cannot name.
    """
    source = open_source(photos)
    # Multiples of the golden ratio, modulo 1, lie as evenly as any sequence can.
    order = sorted(range(len(source)), key=lambda i: i * _GOLDEN % 1)[:count]
    paths = [Path(source.name(index)).resolve() for index in order]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: photos to judge by have to be files here, not tar shards")
    return list(map(str, paths))


def _scenes(root: Path) -> Photos | None:
    for train, val in _PLACES:
        if (root / train).is_dir() and (root / val).is_dir():
            return Photos(_spec(root / train), _spec(root / val))
    return None


def _faces(root: Path, lists: Path) -> Photos | None:
    for folder in (root / "faces", root / "CelebA", root):
        for photos in _CELEBA:
            partition = next((p for p in _PARTITIONS if (folder / p).is_file()), None)
            if (folder / photos).is_dir() and partition is not None:
                return _celeba(folder / photos, folder / partition, lists)
    folder = root / "faces"
    if not (folder / "val").is_dir():
        return None
    val = _spec(folder / "val")
    if (folder / "train").is_dir():
        return Photos(_spec(folder / "train"), val)
    if any(folder.glob("*.tar")):
        return Photos(_spec(folder), val)
    # The photos beside val/, which a folder's search would take in.
    judged = (folder / "val").resolve()
    found = [Path(path).absolute() for path in list_images(folder)]
    trained = [str(path) for path in found if not path.resolve().is_relative_to(judged)]
    if not trained:
        return None
    return Photos(_write_list(lists / "faces-train.txt", trained), val)


def _spec(folder: Path) -> str:
    """Shards where there are any: a folder of shards may hold other folders, too."""
    shards = sorted(folder.glob("*.tar"))
    return str(folder.resolve() / "*.tar") if shards else str(folder.resolve())


def _celeba(photos: Path, partition: Path, lists: Path) -> Photos:
    """List files of CelebA's training and test photos."""
    names: dict[str, list[str]] = {_TRAIN: [], _TEST: []}
    for line in partition.read_text(encoding="utf-8").splitlines():
        name, _, part = line.strip().partition(" ")
        if part.strip() in names:
            names[part.strip()].append(str((photos / name).resolve()))
    paths = {}
    for part, label in ((_TRAIN, "train"), (_TEST, "test")):
        if not names[part]:
            raise ValueError(f"{partition}: no photos of part {part} ({label})")
        paths[part] = _write_list(lists / f"celeba-{label}.txt", names[part])
    return Photos(paths[_TRAIN], paths[_TEST])


def _write_list(path: Path, photos: list[str]) -> str:
    """Write a list file; return where it is."""
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(photos) + "\n", encoding="utf-8")
    return str(path.resolve())
