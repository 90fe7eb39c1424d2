"""Which photos there are, where their results go, and which mask is whose."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from regionnorm.files.formats import list_images
from regionnorm.files.remote import Place, RemotePath, as_place

__all__ = [
    "Identity",
    "Job",
    "check_apart",
    "check_paths",
    "check_plan",
    "count_results",
    "find_result",
    "identities",
    "identity",
    "inside",
    "is_folder",
    "is_same",
    "left_out",
    "make_folder",
    "make_plan",
    "mask_files",
    "mask_finder",
    "results_there",
]


Identity: TypeAlias = tuple[int, int] | str
"""What paths share that lead to one file: device and inode here, the URL elsewhere."""


@dataclass(frozen=True)
class Job:
    """One photo to fill.

    Attributes:
        photo: Where it is.
        target: Where its result goes; None where nothing is filled.
        name: Its path inside the folder of photos.
        named_by_user: Whether the user named the target, whose format is then not ours to change.
        twin: Whether another photo has its stem.
        taken: Whether the name that its result gets where its own format cannot hold it, with
            ``.png`` appended, is that of another photo.
    """

    photo: Place
    target: Place | None
    name: Path
    named_by_user: bool = False
    twin: bool = False
    taken: bool = False

    @property
    def stem(self) -> Path:
        """What its mask is called."""
        return _stem(self.name)

    @property
    def as_png(self) -> Place | None:
        """Where its result goes if its own format cannot hold it."""
        return None if self.target is None else self.target.with_name(f"{self.target.name}.png")

    @property
    def saved(self) -> Path:
        """What its mask is called where that is written: so that it is found again."""
        if self.twin:
            return self.name.with_name(f"{self.name.name}.png")
        return self.name.with_suffix(".png")


def check_paths(source: Place, masks: Place | None, out: Place | None) -> None:
    """Refuse places that do not exist, or that are given twice.

    Raises:
        FileNotFoundError: Photos or masks do not exist.
        NotADirectoryError: The output of a folder of photos is a file.
        ValueError: Two of the places are the same.
    """
    given = [(source, "photo or folder"), (masks, "mask or folder of masks")]
    for path, what in given:
        if path is not None and not path.exists():
            raise FileNotFoundError(f"there is no {what} {path}; check the path")
    if masks is not None and is_same(source, masks):
        raise ValueError(
            f"{masks} is given as photos and as masks; keep the masks in another place"
        )
    for path, what in ((source, "photo"), (masks, "mask")):
        if path is not None and out is not None and is_same(path, out):
            raise ValueError(f"the output {out} is also the {what} given; choose another place")
    if isinstance(out, Path) and source.is_dir() and out.exists() and not out.is_dir():
        raise NotADirectoryError(
            f"the output {out} is a file; for a folder of photos name a folder"
        )


def check_apart(places: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """Refuse results that would be written over each other.

    Args:
        places: What is written, and where to; None is not written.

    Raises:
        ValueError: Two of the places are the same.
    """
    taken: dict[str, str] = {}
    for what, given in places.items():
        if given is None:
            continue
        place = str(as_place(given).resolve())
        if place in taken:
            raise ValueError(
                f"{given} is named for the {taken[place]} and for the {what}; give each its own"
            )
        taken[place] = what


def check_plan(
    plan: Iterable[Job], folders: Mapping[str, Place | None], report: Place | None
) -> None:
    """Refuse results of a folder, masks and previews that would be written over each other.

    Args:
        plan: The photos.
        folders: Where ``"result"``, ``"mask"`` and ``"preview"`` of each go; None is not written.
        report: A file that is written besides.

    Raises:
        ValueError: Two of them are the same file.
    """
    written = {what: folder.resolve() for what, folder in folders.items() if folder is not None}
    taken = {} if report is None else {str(report.resolve()): "the report"}
    for job in plan:
        for what, folder in written.items():
            place = str(folder / (job.name if what == "result" else job.saved))
            mine = f"the {what} of {job.name}"
            if place in taken:
                raise ValueError(
                    f"{taken[place]} and {mine} would both be {place}; choose other places"
                )
            taken[place] = mine


def make_plan(
    source: Place,
    masks: Place | None,
    output: str | os.PathLike[str] | None,
    recursive: bool,
    extras: Iterable[Place] = (),
) -> list[Job]:
    """List the photos and where their results go.

    Args:
        source: A photo, or a folder of photos.
        masks: A mask, or a folder of masks.
        output: A file or a folder; None fills nothing.
        recursive: Take the folders inside too.
        extras: What else is written: if in the folder of photos, it holds none.

    Raises:
        ValueError: There are no photos.
    """
    out = None if output is None else as_place(output)
    if not source.is_dir():
        into_folder = output is not None and is_folder(output)
        target = out / source.name if out is not None and into_folder else out
        return [Job(source, target, Path(source.name), named_by_user=not into_folder)]
    # Masks and earlier results may lie inside the folder of photos; they are no photos.
    root = source.resolve()
    places = [path.resolve() for path in (masks, out, *extras) if path is not None]
    others = [path for path in places if path.is_relative_to(root)]
    photos = [
        photo
        for photo in list_images(source, recursive=recursive)
        if not any((root / inside(photo, source)).is_relative_to(other) for other in others)
    ]
    if not photos:
        raise ValueError(f"there are no photos in {source}; give a folder of .jpg, .png, ... files")
    names = [inside(photo, source) for photo in photos]
    stems, taken = Counter(map(_stem, names)), set(names)
    return [
        Job(
            photo,
            None if out is None else out / name,
            name,
            twin=stems[_stem(name)] > 1,
            taken=name.with_name(f"{name.name}.png") in taken,
        )
        for photo, name in zip(photos, names, strict=True)
    ]


def is_folder(output: str | os.PathLike[str]) -> bool:
    """Whether an output is a folder, or will be one by its name."""
    place = as_place(output)
    return place.is_dir() or not place.suffix or os.fspath(output).endswith(("/", os.sep))


def inside(place: Place, folder: Place) -> Path:
    """The way from a folder to a place inside it."""
    if isinstance(place, RemotePath) and isinstance(folder, RemotePath):
        return place.relative_to(folder)
    return Path(place).relative_to(folder)


def left_out(
    source: Place, written: Iterable[Place | None], recursive: bool
) -> tuple[list[Place], list[tuple[Place, str]]]:
    """What lies in a folder of photos and is not in its plan.

    Args:
        source: The folder; a photo has nothing beside it.
        written: The masks and what is written, which may lie inside.
        recursive: Look into the folders inside too.

    Returns:
        Files that are no photos by their names, hidden ones aside, and what could not be looked
        into, with one line that says why.
    """
    if not source.is_dir():
        return [], []
    places = [place for place in written if place is not None]
    if isinstance(source, RemotePath):
        return _left_out_elsewhere(source, places, recursive), []
    photos = set(list_images(source, recursive=recursive))
    others: list[Place] = []
    failed: list[tuple[Place, str]] = []
    given = {path.resolve() for path in places}

    def fail(error: OSError) -> None:
        place = Path(error.filename)
        failed.append((place, f"the folder {place} cannot be read ({error.strerror})"))

    for folder, folders, files in os.walk(source, onerror=fail):
        here = Path(folder)
        # A link to a folder is not followed: it may lead back here.
        links = [name for name in folders if (here / name).is_symlink()] if recursive else []
        for name in (*files, *links):
            if not name.startswith(".") and here / name not in photos:
                others.append(here / name)
        keep = [name for name in folders if (here / name).resolve() not in given]
        folders[:] = keep if recursive else []
    return sorted(path for path in others if path.resolve() not in given), failed


def _left_out_elsewhere(
    source: RemotePath, places: Sequence[Place], recursive: bool
) -> list[Place]:
    photos = set(list_images(source, recursive=recursive))
    return [
        path
        for path in source.files(recursive)
        if path not in photos
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and not any(path.is_relative_to(place) for place in places)
    ]


def results_there(out: Place | None) -> Set[Place] | None:
    """All files of a folder of results elsewhere, from one listing; None for one that is here.

    Asking for each photo's result by itself would take longer than filling small photos does.
    """
    return set(out.files()) if isinstance(out, RemotePath) else None


def find_result(job: Job, inputs: Set[Identity], there: Set[Place] | None = None) -> Place | None:
    """Where a photo's result is already; None where there is none, or a photo or mask instead.

    Args:
        job: The photo.
        inputs: The photos and masks, which are nobody's result.
        there: What :func:`results_there` found; None looks.
    """
    for path in (job.target, None if job.taken else job.as_png):
        if path is None:
            continue
        found = _is_file(path) if there is None else path in there
        if found and identity(path) not in inputs:
            return path
    return None


def _is_file(path: Place) -> bool:
    try:
        return path.is_file()
    except OSError:  # a longer name than there can be
        return False


def count_results(
    source: Place, masks: Place | None, output: str | os.PathLike[str], recursive: bool
) -> int | None:
    """The number of a folder's photos if the results of all are there, else None.

    It takes no part of the program that fills, so that a run with nothing to do is over at once.
    """
    if not source.is_dir():
        return None
    out = as_place(output)
    check_paths(source, masks, out)
    plan = make_plan(source, masks, output, recursive)
    if any(left_out(source, [masks, out], recursive)):
        return None
    inputs = identities([*mask_files(masks, recursive), *(job.photo for job in plan)])
    there = results_there(out)
    return len(plan) if all(find_result(job, inputs, there) for job in plan) else None


def make_folder(folder: Place) -> None:
    """Make a folder that can be written to.

    Raises:
        OSError: It cannot be made or written to.
    """
    # Before the first photo: a place that cannot be written to should not cost a run to find out.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the folder {folder}: {error.strerror}; choose another place"
        ) from error
    if isinstance(folder, Path) and not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to; choose another place")


def mask_files(masks: Place | None, recursive: bool) -> list[Place]:
    """List the mask files: one, those of a folder, or none for a rule."""
    if masks is None:
        return []
    return list_images(masks, recursive=recursive) if masks.is_dir() else [masks]


def mask_finder(masks: Place, files: list[Place]) -> Callable[[Job], Place]:
    """Return what finds a photo's mask; it raises OSError or ValueError where that is not clear."""
    if not masks.is_dir():
        return lambda job: masks
    by_stem: dict[Path, list[Place]] = {}
    for path in files:
        by_stem.setdefault(_stem(inside(path, masks)), []).append(path)

    def find(job: Job) -> Place:
        # One that was saved beside another photo's of its stem has the photo's whole name.
        found = by_stem.get(_stem(job.saved), []) if job.twin else []
        found = found or by_stem.get(job.stem, [])
        name = job.photo.name
        if not found:
            raise FileNotFoundError(
                f"there is no mask {job.stem}.png (or .jpg, ...) in {masks}; add one"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            found = [path for path in found if _same_name(path.name, name)]
            if not found:
                raise ValueError(f"several masks fit it ({names}); keep one, or name one {name}")
        return found[0]

    return find


def _stem(name: Path) -> Path:
    # File systems and archives write an accent as a part of its letter (NFC) or beside it (NFD).
    return Path(unicodedata.normalize("NFC", os.fspath(name.with_suffix(""))))


def _same_name(first: str, second: str) -> bool:
    return unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)


def identities(paths: Iterable[Place]) -> set[Identity]:
    """The :func:`identity` of each path that leads to a file."""
    # Elsewhere they have just been listed.
    return {identity(path) for path in paths if isinstance(path, RemotePath) or path.exists()}


def identity(path: Place) -> Identity:
    """Return what two paths share that lead to one file."""
    if isinstance(path, RemotePath):
        return path.url
    # Not the name: links, and upper and lower case, may hide that two names are one file.
    status = path.stat()
    return status.st_dev, status.st_ino


def is_same(first: Place, second: Place) -> bool:
    """Whether two paths lead to one file or folder that is there."""
    if isinstance(first, RemotePath) or isinstance(second, RemotePath):
        return first == second
    return first.exists() and second.exists() and first.samefile(second)
