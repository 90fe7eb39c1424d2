"""Files that lie elsewhere, named by a URL and reached through fsspec, as if they were paths."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from regionnorm._extras import require

__all__ = ["Place", "RemotePath", "as_place", "is_url", "local_copy", "upload"]

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WEB = ("http", "https")
# What is written there appears at once, when the last byte has arrived.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory", "hf"})
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp"}
_PACKAGES |= {"https": "aiohttp", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_PACKAGES |= {"hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko", "oss": "ossfs"}
_IN_ONE_PIECE = 64 * 2**20  # larger files are sent in parts


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder behind a URL, with those of :class:`pathlib.Path`'s methods that are used.

    Each call asks the store anew, so that objects can be pickled and go to forked processes.

    Attributes:
        url: Without a slash at its end.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        scheme, rest = scheme.lower(), rest.rstrip("/")
        rest = rest.lstrip("/") if scheme == "memory" else rest  # which has no hosts
        object.__setattr__(self, "url", f"{scheme}://{rest}")

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    # --- names -----------------------------------------------------------------------------------

    @property
    def scheme(self) -> str:
        """What stands before ``://``."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part; of a web address without its query."""
        path = urlsplit(self.url).path if self.scheme in _WEB else self.url.partition("://")[2]
        return (
            unquote(posixpath.basename(path)) if self.scheme in _WEB else posixpath.basename(path)
        )

    @property
    def suffix(self) -> str:
        """The name's ending with its dot, as of a path."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """The folder that holds it; of the topmost, itself."""
        scheme, _, rest = self.url.partition("://")
        above = posixpath.dirname(rest)
        return RemotePath(f"{scheme}://{above}") if above else self

    def __truediv__(self, other: str | os.PathLike[str]) -> RemotePath:
        inside = PurePosixPath(other).as_posix()
        return RemotePath(f"{self.url}{'' if self.url.endswith('/') else '/'}{inside}")

    def with_name(self, name: str) -> RemotePath:
        """The same place under another name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """The same place with another ending."""
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def is_relative_to(self, other: object) -> bool:
        """Whether it is ``other``, or lies inside it."""
        return str(self) == str(other) or str(self).startswith(f"{str(other).rstrip('/')}/")

    def relative_to(self, other: RemotePath) -> Path:
        """The way from ``other``, inside which it lies, to here."""
        if not self.is_relative_to(other):
            raise ValueError(f"{self} does not lie in {other}")
        return Path(self.url[len(other.url) :].lstrip("/"))

    def resolve(self) -> RemotePath:
        """Itself: there are no links."""
        return self

    def expanduser(self) -> RemotePath:
        """Itself."""
        return self

    # --- what is there ---------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        with self._reach() as (store, path):
            return bool(store.exists(path))

    def is_file(self) -> bool:
        """Whether there is a file."""
        with self._reach() as (store, path):
            return bool(store.isfile(path))

    def is_dir(self) -> bool:
        """Whether there is a folder, or files whose names begin so; the web has files only."""
        if self.scheme in _WEB:
            return False
        with self._reach() as (store, path):
            return bool(store.isdir(path))

    def is_symlink(self) -> bool:
        """Never: there are no links."""
        return False

    def samefile(self, other: object) -> bool:
        """Whether ``other`` is this place."""
        return isinstance(other, RemotePath) and other.url == self.url

    def files(self, recursive: bool = True) -> list[RemotePath]:
        """The files inside, sorted; in one listing, however many there are."""
        if self.scheme in _WEB:
            raise PermissionError(errno.EACCES, "web addresses name files to read only", self.url)
        with self._reach() as (store, path):
            found = store.find(path, maxdepth=None if recursive else 1)
            root = path.rstrip("/")
            names = (name[len(root) :].lstrip("/") for name in found if name != path)
            return sorted(self / name for name in names if name)

    def glob(self) -> list[RemotePath]:
        """What its own name, a pattern with ``*`` or ``?``, stands for, sorted."""
        with self._reach() as (store, path):
            return sorted(RemotePath(store.unstrip_protocol(name)) for name in store.glob(path))

    # --- reading and writing ---------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """The whole file."""
        with self._reach() as (store, path):
            return bytes(store.cat_file(path))

    def read_range(self, offset: int, size: int) -> bytes:
        """A part of the file, shorter where the file ends."""
        with self._reach() as (store, path):
            return bytes(store.cat_file(path, start=offset, end=offset + size))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The whole file, in memory: one request, whatever is then read of it in which order."""
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())

    @contextmanager
    def stream(self, block: int = 2**22) -> Iterator[IO[bytes]]:
        """The file from its beginning on, read ahead in blocks of so many bytes."""
        with self._reach() as (store, path):
            file = store.open(path, "rb", block_size=block, cache_type="readahead")
        with file:
            yield file

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Make the folder where the store knows folders."""
        if self.scheme in _WEB:
            raise PermissionError(errno.EACCES, "web addresses name files to read only", self.url)
        if self.scheme not in _WHOLE:
            with self._reach() as (store, path):
                store.makedirs(path, exist_ok=exist_ok)

    @contextmanager
    def _reach(self) -> Iterator[tuple[Any, str]]:
        """The store and the path in it; all that stores raise becomes an OSError of one line."""
        store, path = _store(self.url)
        try:
            store.invalidate_cache()  # others write there too
            yield store, path
        except (ImportError, GeneratorExit):
            raise
        except (FileNotFoundError, IsADirectoryError) as error:
            # The store's own words may name no place, as those on a bucket that is not there.
            if self.url in str(error):
                raise
            raise type(error)(error.errno or errno.ENOENT, _line(error), self.url) from error
        except PermissionError as error:
            raise PermissionError(errno.EACCES, _line(error), self.url) from error
        except Exception as error:  # botocore's, aiohttp's and others' are no OSError
            raise OSError(errno.EIO, _line(error), self.url) from error


Place: TypeAlias = Path | RemotePath
"""Where a file or folder is: here, or elsewhere."""


def is_url(path: object) -> bool:
    """Whether a path names a place elsewhere, such as ``s3://bucket/photos``."""
    if isinstance(path, RemotePath):
        return True
    return isinstance(path, str) and _URL.match(path) is not None


def as_place(path: str | os.PathLike[str]) -> Place:
    """The place that a path or a URL names; ``file://`` is here."""
    if isinstance(path, (Path, RemotePath)):
        return path
    text = os.fspath(path)
    if not text:
        raise ValueError("a path is empty; name a file or a folder, '.' for the current one")
    if not is_url(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(url2pathname(text[len("file://") :]))
    return RemotePath(text)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """A file of this machine with the content of a file, for readers that want one."""
    if isinstance(place, Path):
        yield place
        return
    content = place.read_bytes()
    with tempfile.TemporaryDirectory(prefix="regionnorm-") as folder:
        path = Path(folder) / (place.name or "file")
        path.write_bytes(content)
        del content
        yield path


def upload(local: Path, target: RemotePath) -> None:
    """Write a file of this machine elsewhere; it appears there whole or not at all.

    Raises:
        OSError: The place cannot be written to.
    """
    if target.scheme in _WEB:
        raise PermissionError(errno.EACCES, "web addresses name files to read only", target.url)
    whole = target.scheme in _WHOLE
    target.parent.mkdir()
    with target._reach() as (store, path):
        if whole and local.stat().st_size <= _IN_ONE_PIECE:
            store.pipe_file(path, local.read_bytes())
        elif whole:
            store.put_file(os.fspath(local), path)
        else:
            hidden = posixpath.join(posixpath.dirname(path), f".{secrets.token_hex(8)}")
            store.put_file(os.fspath(local), hidden)
            store.mv(hidden, path)


def _store(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    core = require("fsspec.core", extra="remote")
    try:
        store, path = core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "a package of its own")
        raise ImportError(
            f"{scheme}:// needs {package}, which is not installed; run: "
            f"pip install 'regionnorm[remote]' {package if scheme in _PACKAGES else ''}".rstrip()
        ) from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        raise ValueError(
            f"{scheme}:// is not known; use a path, s3://, gs://, az://, https:// or memory://"
        ) from error
    return store, str(path)


def _line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
