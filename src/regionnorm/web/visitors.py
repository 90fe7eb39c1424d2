"""What the app keeps for each visitor, and where.

A visitor is a random name that only their page knows. All addresses of their photos, masks and
results begin with it, and the files lie in a folder of that name's own.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HISTORY", "Box", "Gone", "Picture", "Store", "Visitor", "Visitors", "random_folder"]

HISTORY = 24
"""How many photos and fills a visitor can go back to."""

_MOST_BYTES = 512 * 2**20  # of a visitor's files, and what was made of them to be shown
_LEAST = 2  # pictures that are kept however large
_MOST_VISITORS = 2000
_AWAY, _LONGEST = 3600, 6 * 3600  # seconds after which a visitor's files are removed
_LOOK = 30  # seconds between looks for those

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


class Gone(LookupError):
    """What was asked for is not there, or not any more."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo that was opened, or a fill.

    Attributes:
        path: The file; nothing else lies in its folder but what was made from it.
        name: What a visitor calls it, and what it is downloaded as.
        size: Width and height, upright.
        parent: The picture that was filled; None for a photo.
        mask: The mask it was filled by, a file of its size; None for a photo.
        box: What lies outside is the parent's; None where the photo grew, and for a photo.
        grown: By how many pixels on the left, top, right and bottom it is larger than its parent.
        task: The same for all fills of one photo and mask, and for no others.
        variant: Which of those it is.
        number: What the page calls it.
    """

    path: Path
    name: str
    size: tuple[int, int]
    parent: Picture | None = None
    mask: Path | None = None
    box: Box | None = None
    task: str = ""
    variant: int = 0
    grown: Box = (0, 0, 0, 0)
    number: str = field(default_factory=lambda: secrets.token_urlsafe(9))

    @property
    def origin(self) -> Picture:
        """The photo that it all began with."""
        picture = self
        while picture.parent is not None:
            picture = picture.parent
        return picture

    @property
    def frame(self) -> Box:
        """Where the origin lies in it."""
        left = top = right = bottom = 0
        picture = self
        while picture.parent is not None:
            sides = zip((left, top, right, bottom), picture.grown, strict=True)
            left, top, right, bottom = (one + more for one, more in sides)
            picture = picture.parent
        return left, top, self.size[0] - right, self.size[1] - bottom

    def there(self) -> Picture:
        """Itself.

        Raises:
            Gone: Its file was removed.
        """
        if not self.path.is_file():
            raise Gone("this picture is not kept any more; open the photo again")
        return self

    def used(self) -> set[Picture]:
        """The pictures whose files it needs: itself, what was filled, and the first photo."""
        return {self, self.origin, *([self.parent] if self.parent else [])}


@dataclass
class Visitor:
    """One visitor's pictures.

    Attributes:
        name: Random; nobody else knows it.
        folder: Where the files lie, made when there is a first one.
        pictures: The last ones, latest first.
    """

    name: str
    folder: Path
    pictures: list[Picture] = field(default_factory=list)
    masks: dict[str, Path] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    _made: set[Picture] = field(default_factory=set)
    _held: Counter[Picture] = field(default_factory=Counter)
    _current: Picture | None = None
    _names: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def picture(self, number: str) -> Picture:
        """Find one of the pictures, or one that fills which are kept were made of.

        Raises:
            Gone: There is none of that number any more.
        """
        with self._lock:
            pictures = list(self._made)
        for picture in pictures:
            if picture.number == number:
                return picture.there()
        raise Gone("this picture is not kept any more; open the photo again")

    def new_folder(self) -> Path:
        """A folder for one picture or mask."""
        return random_folder(self.folder)

    def add(self, picture: Picture) -> Picture:
        """Put a picture in front, and remove the files that no picture needs any more."""
        with self._lock:
            self.pictures.insert(0, picture)
            self._made.add(picture)
            self._tidy()
        return picture

    def add_mask(self, path: Path) -> str:
        """Keep a mask that the page draws, and the last few others; returns its number."""
        number = secrets.token_urlsafe(9)
        with self._lock:
            self.masks[number] = path
            while len(self.masks) > HISTORY:
                old = self.masks.pop(next(iter(self.masks)))
                shutil.rmtree(old.parent, ignore_errors=True)
        return number

    def mask(self, number: str) -> Path:
        """Find one of the masks.

        Raises:
            Gone: There is none of that number any more.
        """
        path = self.masks.get(number)
        if path is None:
            raise Gone("this mask is not kept any more; load it again")
        return path

    def result_name(self, parent: Picture, suffix: str) -> str:
        """What the next fill is downloaded as: ``photo-filled.png``, ``photo-filled-2.png``, ...

        No two of a visitor's fills share a name, and a fill that is filled on, or that is opened
        as a photo, does not get a second ``-filled``.
        """
        stem = Path(parent.origin.name).stem
        found = re.fullmatch(r"(.+?)-filled(?:-([0-9]{1,3}))?", stem)
        stem, first = (found[1], int(found[2] or 1)) if found else (stem, 0)
        with self._lock:
            number = self._names[stem] = max(self._names[stem], first) + 1
        return f"{stem}-filled{f'-{number}' if number > 1 else ''}{suffix}"

    def next_variant(self, fill: Picture) -> int:
        """The first variant above all those of the same photo and mask."""
        with self._lock:
            return 1 + max(
                (other.variant for other in self._made if other.task == fill.task), default=-1
            )

    def hold(self, picture: Picture) -> None:
        """Keep a picture's files, whatever is opened meanwhile, until :meth:`release`."""
        with self._lock:
            self._held[picture] += 1

    def release(self, picture: Picture) -> None:
        """Stop holding a picture, and remove its files if nothing else needs them."""
        with self._lock:
            self._held[picture] -= 1
            self._tidy()

    def stay(self, picture: Picture) -> None:
        """The page is on this picture, which is kept until the page is on another."""
        with self._lock:
            self._current = picture

    def delete(self) -> None:
        """Remove every file."""
        with self._lock:
            self.pictures.clear()
            self.masks.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tidy(self) -> None:
        kept: list[Picture] = []
        size = 0
        # The current one counts before the latest.
        for picture in sorted(self.pictures, key=lambda one: one is not self._current)[:HISTORY]:
            size += _size_of(picture.path.parent)
            if len(kept) >= _LEAST and size > _MOST_BYTES:
                break
            kept.append(picture)
        self.pictures = [picture for picture in self.pictures if picture in kept]
        held = [picture for picture, count in self._held.items() if count > 0]
        if self._current is not None:
            held.append(self._current)
        used = set().union(*(picture.used() for picture in (*kept, *held)))
        for picture in self._made - used:
            shutil.rmtree(picture.path.parent, ignore_errors=True)
        self._made &= used


class Visitors:
    """Everybody who is there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def new(self) -> Visitor:
        """Somebody who just came.

        If there are too many, the one not seen for longest leaves, of those who have brought
        nothing before all others.
        """
        name = secrets.token_urlsafe(24)
        visitor = Visitor(name, self._root / name)
        with self._lock:
            many = len(self._known) >= _MOST_VISITORS
            oldest = min(self._known.values(), key=_importance) if many else None
            self._known[name] = visitor
        if oldest is not None:
            self.remove(oldest)
        return visitor

    def knows(self, name: str) -> bool:
        """Whether somebody of that name is there."""
        with self._lock:
            return name in self._known

    def get(self, name: str) -> Visitor:
        """Find somebody by the name that their page has.

        Raises:
            Gone: They are not known, or were away for too long.
        """
        with self._lock:
            visitor = self._known.get(name)
        if visitor is None:
            raise Gone("your pictures are not kept any more; reload the page")
        visitor.seen = time.monotonic()
        return visitor

    def remove(self, visitor: Visitor) -> None:
        """Forget somebody and all their files."""
        with self._lock:
            self._known.pop(visitor.name, None)
        visitor.delete()

    def remove_old(self, now: float) -> None:
        """Forget those who left an hour ago, and everybody after six."""
        with self._lock:
            known = list(self._known.values())
        for visitor in known:
            if now - visitor.seen > _AWAY or now - visitor.began > _LONGEST:
                self.remove(visitor)

    def watch(self) -> None:
        """Remove old files from now on, in a thread of its own, until :meth:`close`."""

        def work() -> None:
            while not self._closed.wait(_LOOK):
                self.remove_old(time.monotonic())

        threading.Thread(target=work, name="old files", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


@dataclass(frozen=True)
class Store:
    """The folders of one server.

    Attributes:
        private: Visitors' folders; no address leads there but through their names.
        public: What programs upload and get, each in a folder whose random name is the only way
            to it.
    """

    private: Path
    public: Path

    def hide_folders(self, text: str) -> str:
        """Remove from a message where files lie; their names stay."""
        for root in (self.private, self.public):
            text = re.sub(rf"{re.escape(str(root))}(?:(?:/[A-Za-z0-9_-]+)*/|\b)", "", text)
        return text


def _importance(visitor: Visitor) -> tuple[bool, float]:
    return visitor.folder.exists(), visitor.seen


def _size_of(folder: Path) -> int:
    """Bytes of the files of a folder and of those in it."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            size += path.stat().st_size if path.is_file() else 0
    return size


def random_folder(parent: Path) -> Path:
    """Make a folder whose name nobody can guess, readable by this user only."""
    folder = parent / secrets.token_urlsafe(24)
    folder.mkdir(parents=True, mode=0o700)
    return folder
