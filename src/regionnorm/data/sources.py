"""Where photos come from: folders, list files, tar shards and globs, behind one interface."""

from __future__ import annotations

import bisect
import glob
import io
import logging
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from regionnorm.files.formats import IMAGE_SUFFIXES, list_images, register_plugins
from regionnorm.files.remote import Place, RemotePath, as_place, is_url
from regionnorm.imaging import standardize

_log = logging.getLogger(__name__)

_SHARD_SUFFIX = ".tar"
_LIST_SUFFIX = ".txt"
_GLOB_CHARACTERS = frozenset("*?[")
# So many unreadable photos in a row of a shuffled source are no accident any more.
_MAX_SKIPPED = 1000
_AT_ONCE = 8  # shards elsewhere that are listed at the same time


class UnreadableImageError(OSError):
    """A photo that cannot be read or decoded; the message names it and says why."""


class ImageSource(ABC):
    """Photos by number. Can be pickled, and read from several processes and threads at once."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of photos."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return a readable name of photo ``index``: its path, or ``shard.tar/member``."""

    @abstractmethod
    def _bytes(self, index: int) -> bytes:
        """Return the encoded photo; raises ``OSError``."""

    def read(self, index: int, *, at_least: int | None = None) -> Image.Image:
        """Decode photo ``index``.

        Args:
            index: 0 to ``len(self) - 1``.
            at_least: a short side that is enough. JPEG files are then decoded at a half, a
                quarter or an eighth of their size where that leaves this many pixels.

        Returns:
            An RGB image with EXIF orientation applied, fully loaded.

        Raises:
            UnreadableImageError: whatever is wrong with the file.
            IndexError: for an index out of range.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"photo {index}: this source has {len(self)}")
        # Decoders that are fed with garbage raise nearly anything (SyntaxError, struct.error,
        # DecompressionBombError ...); for the caller it is all one: this photo is no use.
        try:
            return _decode(self._bytes(index), at_least)
        except Exception as error:
            # Pillow's own words would name the buffer's address, different in every run.
            words = "" if isinstance(error, UnidentifiedImageError) else str(error)
            reason = " ".join(words.split()) or "no image that Pillow knows"
            raise UnreadableImageError(f"{self.name(index)}: cannot be read ({reason})") from error


def candidates(order: npt.NDArray[np.int64], place: int) -> Iterator[int]:
    """Yield the photo at a place of a shuffled order, then those to take if it cannot be read."""
    for skipped in range(min(len(order), _MAX_SKIPPED)):
        yield int(order[(place + skipped) % len(order)])


def read_first(
    source: ImageSource, indices: Iterable[int], *, at_least: int | None = None
) -> tuple[Image.Image, int]:
    """Read the first of some photos that can be read.

    Returns:
        The photo, and how many were passed over.

    Raises:
        UnreadableImageError: None of them can be read.
    """
    first: UnreadableImageError | None = None
    skipped = 0
    for index in indices:
        try:
            return source.read(index, at_least=at_least), skipped
        except UnreadableImageError as error:
            first = first or error
            skipped += 1
    raise UnreadableImageError(f"none of {skipped} photos can be read; the first: {first}")


def _decode(data: bytes, at_least: int | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        if at_least is not None and (short := min(image.size)) > at_least:
            width, height = (max(1, side * at_least // short) for side in image.size)
            image.draft("RGB", (width, height))
        return standardize(image).convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    # Pillow looks at the content, not the name, and knows formats that run other programs (EPS).
    register_plugins()
    known = Image.registered_extensions()
    names = {known[suffix] for suffix in IMAGE_SUFFIXES if suffix in known}
    return tuple(sorted(names & Image.OPEN.keys()))  # MPO is opened as JPEG


class FileSource(ImageSource):
    """Photos that are files."""

    def __init__(self, files: Sequence[Place]) -> None:
        self._files = [str(file) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Return the path of photo ``index``."""
        return self._files[index]

    def _bytes(self, index: int) -> bytes:
        return as_place(self._files[index]).read_bytes()


class ShardSource(ImageSource):
    """Photos inside uncompressed tar files.

    The members are listed once; a photo is then read straight from its place in the shard, so
    that shuffling reaches across all shards, and any photo can be read at any time.
    """

    def __init__(self, shards: Sequence[Place]) -> None:
        self._shards = [str(shard) for shard in shards]
        self._names: list[str] = []
        places: list[tuple[int, int, int]] = []
        # Those elsewhere are waited for together: most of the time nothing comes.
        with ThreadPoolExecutor(_AT_ONCE if any(map(is_url, shards)) else 1) as pool:
            listed = list(pool.map(_shard_members, shards))
        for number, members in enumerate(listed):
            for name, offset, size in members:
                self._names.append(name)
                places.append((number, offset, size))
        self._places = np.array(places, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return ``shard.tar/member`` of photo ``index``."""
        return f"{self._shards[int(self._places[index, 0])]}/{self._names[index]}"

    def _bytes(self, index: int) -> bytes:
        shard, offset, size = self._places[index].tolist()
        # Opened for each photo: microseconds beside the decoding, and nothing is held open that
        # forked workers or threads would share.
        place = as_place(self._shards[shard])
        if isinstance(place, RemotePath):
            data = place.read_range(offset, size)
        else:
            with place.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        if len(data) < size:
            raise OSError(f"the shard ends after {len(data)} of {size} bytes")
        return data


def _is_photo(name: str) -> bool:
    # macOS archives hold a "._name.jpg" of attributes beside each file.
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _shard_members(shard: Place) -> list[tuple[str, int, int]]:
    """List name, offset and size of the photos of a shard, as far as it can be followed."""
    members: list[tuple[str, int, int]] = []
    try:
        with _opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                for member in archive:
                    if member.isreg() and _is_photo(member.name):
                        members.append((member.name, member.offset_data, member.size))
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # it ends for who only iterates
                    raise tarfile.ReadError("what follows is damaged")
            except tarfile.TarError as error:
                # Cut short, as by a broken download: what came before is still good.
                _log.warning("%s: read up to photo %d only (%s)", shard, len(members), error)
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not an uncompressed tar file ({error})") from error
    return members


def _opened(shard: Place) -> AbstractContextManager[IO[bytes]]:
    return shard.stream() if isinstance(shard, RemotePath) else shard.open("rb")


class JoinedSource(ImageSource):
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    def _find(self, index: int) -> tuple[ImageSource, int]:
        part = bisect.bisect_right(self._ends, index)
        return self._sources[part], index - (self._ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        """Return the name that the source of photo ``index`` gives it."""
        source, place = self._find(index)
        return source.name(place)

    def _bytes(self, index: int) -> bytes:
        source, place = self._find(index)
        return source._bytes(place)


def open_source(paths: str | Place | Sequence[str | Place]) -> ImageSource:
    """Open photos, wherever they are.

    Args:
        paths: one or several of: a folder (searched recursively; one that holds no photos but
            ``.tar`` shards is read as shards), a ``.txt`` list file (one path a line, relative to
            the list; empty lines and ``#`` comments are ignored), a ``.tar`` shard, a photo, or a
            glob pattern of these. Each may be a URL, such as ``s3://bucket/photos``; the lines of
            a list too.

    Returns:
        One source with all the photos, in the order given; a folder's are sorted.

    Raises:
        FileNotFoundError: for a path or list entry that does not exist, or where there is no
            photo; the message says what was looked for.
        ValueError: for a file that is none of these, or a shard that is no tar file.
    """
    given = [paths] if isinstance(paths, (str, Path, RemotePath)) else list(paths)
    if not given:
        raise ValueError("no photos given: name a folder, a .txt list, a .tar shard or a pattern")
    sources = [part for path in given for part in _open(path)]
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


def _open(given: str | Place) -> list[ImageSource]:
    path = as_place(given).expanduser()
    if path.is_dir():
        return [_open_folder(path)]
    if path.is_file():
        return [_open_file(path)]
    if _GLOB_CHARACTERS.isdisjoint(str(given)):
        raise FileNotFoundError(f"{given}: no such file or folder")
    found: list[Place] = (
        [*path.glob()]
        if isinstance(path, RemotePath)
        else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    )
    # A pattern such as photos/* also meets files that are nothing of ours.
    usable = [match for match in found if match.is_dir() or _is_source(match)]
    if not usable:
        raise FileNotFoundError(
            f"{given}: the pattern matches {len(found)} files, none of them a photo, a"
            f" {_LIST_SUFFIX} list or a {_SHARD_SUFFIX} shard"
        )
    photos = [match for match in usable if match.is_file() and _is_photo(match.name)]
    if photos:  # texts beside them are captions
        usable = [match for match in usable if match.is_dir() or not _is_list(match)]
    if len(photos) == len(usable):
        return [FileSource(photos)]
    return [part for match in usable for part in _open(match)]


def _is_list(path: Place) -> bool:
    return path.suffix.lower() == _LIST_SUFFIX


def _is_source(path: Place) -> bool:
    return path.suffix.lower() == _SHARD_SUFFIX or _is_list(path) or _is_photo(path.name)


def _open_folder(folder: Place) -> ImageSource:
    photos = list_images(folder)
    if photos:
        return FileSource(photos)
    files: Sequence[Place] = (
        folder.files()
        if isinstance(folder, RemotePath)
        else [path for path in folder.rglob("*") if path.is_file()]
    )
    shards = sorted(path for path in files if path.suffix == _SHARD_SUFFIX)
    if shards:
        return _open_shards(shards, str(folder))
    raise FileNotFoundError(
        f"{folder}: no photos ({_suffixes()}) and no {_SHARD_SUFFIX} shards among the"
        f" {len(files)} files in it"
    )


def _open_file(path: Place) -> ImageSource:
    suffix = path.suffix.lower()
    if suffix == _SHARD_SUFFIX:
        return _open_shards([path], str(path))
    if _is_list(path):
        return _open_list(path)
    if suffix in IMAGE_SUFFIXES:
        return FileSource([path])
    raise ValueError(
        f"{path}: neither a photo ({_suffixes()}), nor a {_LIST_SUFFIX} list, nor a"
        f" {_SHARD_SUFFIX} shard"
    )


def _open_shards(shards: Sequence[Place], where: str) -> ImageSource:
    source = ShardSource(shards)
    if not len(source):
        raise FileNotFoundError(f"{where}: {len(shards)} shards hold no photos ({_suffixes()})")
    return source


def _open_list(path: Place) -> ImageSource:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file with one path a line ({error})") from error
    files: list[Place] = []
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        file = as_place(entry) if is_url(entry) else path.parent / entry
        # Elsewhere each would be a request; one that is not there is told when it is read.
        if isinstance(file, Path) and not file.is_file():
            raise FileNotFoundError(f"{path}, line {number}: no such file: {file}")
        files.append(file)
    if not files:
        raise FileNotFoundError(f"{path}: {len(lines)} lines, none of them names a photo")
    return FileSource(files)


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
