"""Many photos at once: dropped as files, as a folder or as a zip, and given back as a zip."""

from __future__ import annotations

import asyncio
import lzma
import shutil
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from regionnorm._extras import require
from regionnorm.files.formats import IMAGE_SUFFIXES
from regionnorm.files.whole import atomic_path, check_pixels
from regionnorm.web.api import PageApi, check_rule, file_name
from regionnorm.web.line import Job
from regionnorm.web.pictures import fill_into
from regionnorm.web.visitors import Gone, Visitor, random_folder

__all__ = ["BatchApi"]

_MOST_FILES = 200  # photos, and as many masks
_MOST_BYTES = 2**30  # of them together
_MOST_BATCHES = 1  # of one visitor; older ones are removed
_MOST_FOLDERS = 8  # of a name; deeper ones are cut
_WORK = 0.5  # of a photo, whose hole is not known before
_PIECE = 2**20


@dataclass(frozen=True)
class _Sent:
    """A photo or a mask that was sent.

    Attributes:
        path: The file; nothing else lies in its folder.
        called: Its name with the folders that it came in.
        size: In bytes.
    """

    path: Path
    called: PurePosixPath
    size: int


@dataclass(frozen=True)
class _Result:
    """What became of a photo.

    Attributes:
        path: The file; nothing else lies in its folder.
        made_by: The mask, or the rule. By another one the photo is filled anew.
        unchanged: A rule found nothing, and it is the photo as it was.
    """

    path: Path
    made_by: Path | str
    unchanged: bool


@dataclass(eq=False)
class _Batch:
    """Photos and masks that were sent, by name, and what became of them."""

    folder: Path
    photos: dict[str, _Sent] = field(default_factory=dict)
    masks: dict[str, _Sent] = field(default_factory=dict)
    replaced: list[_Sent] = field(default_factory=list)  # masks that may still be in use
    done: dict[str, _Result] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    packed: bool = False  # the zip holds all that is done

    @property
    def size(self) -> int:
        """Bytes that were sent and are kept."""
        kept = (*self.photos.values(), *self.masks.values(), *self.replaced)
        return sum(sent.size for sent in kept)

    def told(self) -> dict[str, Any]:
        """What the page says of it."""
        unchanged = sum(result.unchanged for result in list(self.done.values()))
        return {
            "photos": len(self.photos),
            "masks": len(self.masks),
            "filled": len(self.done) - unchanged,
            "unchanged": unchanged,
            "failed": [{"photo": name, "error": words} for name, words in self.failed.items()],
        }

    def keep(self, sent: _Sent, kept: dict[str, _Sent]) -> None:
        """A mask takes the place of the one of its name, which may be the one that did not fit."""
        name = str(sent.called)
        if kept is self.photos:
            name = _free_name(name, kept)
        elif name in kept:
            self.replaced.append(kept[name])
        kept[name] = sent

    def tidy(self) -> None:
        """Remove the masks that others have replaced."""
        while self.replaced and not self.busy:
            shutil.rmtree(self.replaced.pop().path.parent, ignore_errors=True)

    def forget(self, name: str) -> None:
        """Remove the result of a photo."""
        if (result := self.done.pop(name, None)) is not None:
            self.packed = False
            shutil.rmtree(result.path.parent, ignore_errors=True)


class BatchApi:
    """Answers the page's part for many photos.

    Args:
        page: Answers the rest; its limits hold here too.
    """

    def __init__(self, page: PageApi) -> None:
        self.page = page
        self._responses = require("starlette.responses", extra="app")
        self._batches: dict[tuple[str, str], _Batch] = {}

    def routes(self) -> list[Any]:
        """What the server answers, as Starlette's routes."""
        batch = "/page/{visitor}/batches/{batch}"
        return [
            self.page.route("POST", "/page/{visitor}/batches", self.new),
            self.page.route("GET", batch, self.state),
            self.page.route("POST", f"{batch}/photos", self.take),
            self.page.route("POST", f"{batch}/masks", self.take),
            self.page.route("POST", f"{batch}/fills", self.fill),
            self.page.route("GET", f"{batch}/filled.zip", self.give),
        ]

    async def new(self, request: Any) -> Any:
        """An empty batch."""
        visitor = self.page.visitor(request)
        mine = [key for key in self._batches if key[0] == visitor.name]
        for key in mine[: max(0, len(mine) - _MOST_BATCHES + 1)]:
            shutil.rmtree(self._batches.pop(key).folder, ignore_errors=True)
        folder = visitor.new_folder()
        self._batches[visitor.name, folder.name] = _Batch(folder)
        self._forget_those_who_left()
        return self._responses.JSONResponse({"batch": folder.name})

    def _forget_those_who_left(self) -> None:
        for key in [key for key, batch in self._batches.items() if not batch.folder.exists()]:
            del self._batches[key]

    def _find(self, request: Any) -> tuple[Visitor, _Batch]:
        visitor = self.page.visitor(request)
        batch = self._batches.get((visitor.name, request.path_params["batch"]))
        if batch is None:
            raise Gone("these photos are not kept any more; drop them again")
        return visitor, batch

    async def state(self, request: Any) -> Any:
        """What a batch has, for a page that was loaded anew."""
        _, batch = self._find(request)
        return self._responses.JSONResponse(batch.told() | {"busy": batch.busy})

    async def take(self, request: Any) -> Any:
        """A photo or a mask, or a zip of them, as the body of the request."""
        _, batch = self._find(request)
        kept = batch.masks if request.url.path.endswith("/masks") else batch.photos
        path = await self.page.save(request, random_folder(batch.folder))
        sent: list[_Sent] = []
        try:
            if path.suffix.lower() == ".zip":
                await self.page.in_thread(self._unpack, path, batch, kept, sent)
            else:
                called = _called(request.query_params.get("name", ""))
                sent.append(_Sent(path, called, path.stat().st_size))
            self._check(sent, batch, kept)
        except BaseException:  # all that was sent together, or nothing
            for one in sent:
                shutil.rmtree(one.path.parent, ignore_errors=True)
            raise
        for one in sent:
            batch.keep(one, kept)
        batch.tidy()
        return self._responses.JSONResponse(
            {"photos": len(batch.photos), "masks": len(batch.masks)}
        )

    def _check(self, sent: list[_Sent], batch: _Batch, kept: dict[str, _Sent]) -> None:
        """Refuse what was sent together if any of it is too much or no image."""
        for one in sent:
            if one.path.suffix.lower() not in IMAGE_SUFFIXES:
                raise ValueError(
                    f"{one.path.name} is no image by its name; drop photos, or a zip of them"
                )
        replaced = {str(one.called) for one in sent} if kept is batch.masks else set()
        leave = [kept[name] for name in replaced if name in kept]
        count = len(kept) - len(leave) + len(sent)
        size = batch.size + sum(one.size for one in sent)
        if not batch.busy:
            size -= sum(one.size for one in leave)
        if count > _MOST_FILES or size > _MOST_BYTES:
            raise ValueError(
                f"up to {_MOST_FILES} photos and {_MOST_BYTES // 2**30} GB are taken at once, "
                "and these would be more; drop fewer, and the others when those are done"
            )

    def _unpack(
        self, source: Path, batch: _Batch, kept: dict[str, _Sent], sent: list[_Sent]
    ) -> None:
        """Add the images of a zip to what was sent, and remove the zip."""
        try:
            with zipfile.ZipFile(source) as archive:
                for item in archive.infolist():
                    called = _called(item.filename)
                    hidden = any(part.startswith((".", "__MACOSX")) for part in called.parts)
                    if item.is_dir() or hidden or called.suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    path = random_folder(batch.folder) / called.name
                    sent.append(_Sent(path, called, 0))
                    sent[-1] = _Sent(path, called, self._extract(archive, item, path))
                    self._check(sent, batch, kept)  # before the disk is full
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's, not the zip's
                raise
            raise ValueError(f"{source.name} cannot be unpacked: {error}") from error
        finally:
            shutil.rmtree(source.parent, ignore_errors=True)

    def _extract(self, archive: zipfile.ZipFile, item: zipfile.ZipInfo, path: Path) -> int:
        """Write one file, of no more bytes than an upload may have, whatever the zip says."""
        size = 0
        with archive.open(item) as packed, path.open("wb") as file:
            while piece := packed.read(_PIECE):
                size += len(piece)
                if size > self.page.max_file:
                    raise ValueError(f"{path.name} is too large; make it smaller")
                file.write(piece)
        return size

    # --- filling ---------------------------------------------------------------------------------

    async def fill(self, request: Any) -> Any:
        """Fill all that is not filled yet, one photo after the other, while the page listens."""
        visitor, batch = self._find(request)
        rule = request.query_params.get("rule", "")
        if rule:
            check_rule(rule)
        if not batch.photos:
            raise ValueError("there are no photos yet; drop some, a folder or a zip")
        if not rule and not batch.masks:
            raise ValueError("there is no mask yet; drop one for all photos, or one for each")
        if batch.busy:
            raise ValueError("these photos are being filled already")
        return self.page.stream(self._work(visitor, batch, rule))

    async def _work(
        self, visitor: Visitor, batch: _Batch, rule: str
    ) -> AsyncIterator[dict[str, Any]]:
        batch.busy = True
        batch.failed.clear()
        # What comes meanwhile is for the next time.
        photos, masks = dict(batch.photos), _Masks(batch, rule)
        job: Job | None = None
        try:
            for number, (name, photo) in enumerate(photos.items()):
                told = {"photo": name, "number": number, "of": len(photos)}
                try:
                    mask = masks.find(photo)
                except ValueError as error:
                    batch.forget(name)
                    batch.failed[name] = self.page.explain(error)[1]
                    continue
                if name in batch.done and batch.done[name].made_by == mask:
                    continue
                batch.forget(name)
                yield {"state": "running", **told}
                job = Job(partial(self._one, batch, name, photo, mask), _WORK, visitor.name)
                self.page.line.join(job)
                async for place in self.page.places(job):
                    yield place | told
                if job.error is not None:
                    batch.failed[name] = self.page.explain(job.error)[1]
            yield {"state": "running", "packing": True}
            await asyncio.to_thread(_pack, batch)
            yield {"state": "done", **batch.told()}
        except Exception as error:
            yield {"state": "failed", "error": self.page.explain(error)[1]}
        finally:
            batch.busy = False
            batch.tidy()
            if job is not None and not job.ended.is_set():
                self.page.line.cancel(job)

    def _one(self, batch: _Batch, name: str, photo: _Sent, mask: Path | str) -> None:
        for path in (photo.path, *([mask] if isinstance(mask, Path) else [])):
            check_pixels(path, self.page.handlers.max_megapixels)
        folder = random_folder(batch.folder)
        # Each photo has a folder of its own; in a folder, what a rule finds nothing in is copied.
        report = fill_into(folder, self.page.handlers.inpainter, photo.path.parent, mask)
        batch.packed = False
        batch.done[name] = _Result(next(folder.iterdir()), mask, bool(report.unchanged))

    async def give(self, request: Any) -> Any:
        """The zip of all that was filled."""
        _, batch = self._find(request)
        packed = batch.folder / "filled.zip"
        if not (batch.packed or batch.busy) and batch.done:  # the work was broken off
            await self.page.in_thread(_pack, batch)
        if not packed.is_file():
            raise Gone("nothing is filled yet")
        return self._responses.FileResponse(packed, filename="filled.zip")


_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class _Masks:
    """Which mask is whose: a rule, the only one for all, or the one of the photo's name.

    Photos and masks may come in folders. The names that are compared begin below the folder that
    all photos, or all masks, have in common; where these do not meet, the file's own does, if no
    other photo has it.
    """

    _ALIKE: tuple[Callable[[PurePosixPath], object], ...] = (
        lambda path: path,
        lambda path: path.with_suffix(""),
        lambda path: path.stem,
    )

    def __init__(self, batch: _Batch, rule: str) -> None:
        self._rule = rule
        photos, masks = list(batch.photos.values()), list(batch.masks.values())
        self._only = masks[0].path if len(masks) == 1 else None
        self._top = _common(sent.called for sent in photos)
        self._photos = [sent.called.relative_to(self._top) for sent in photos]
        top = _common(sent.called for sent in masks)
        self._masks = [(sent.called.relative_to(top), sent.path) for sent in masks]

    def find(self, photo: _Sent) -> str | Path:
        if self._rule:
            return self._rule
        if self._only:
            return self._only
        name = photo.called.relative_to(self._top)
        fits: list[Path] = []
        for alike in self._ALIKE:
            found = [path for other, path in self._masks if alike(other) == alike(name)]
            if len(found) == 1 == sum(alike(other) == alike(name) for other in self._photos):
                return found[0]
            fits += found
        if fits:
            raise ValueError(
                f"which mask is meant cannot be told: several photos or masks are called "
                f"{name.stem}; give them names of their own"
            )
        raise ValueError(f"there is no mask called {name.stem}; drop one of that name")


def _common(names: Iterable[PurePosixPath]) -> PurePosixPath:
    """The innermost folder that all lie in."""
    parents = [name.parent for name in names]
    top = min(parents, key=lambda parent: len(parent.parts), default=PurePosixPath())
    while not all(parent.is_relative_to(top) for parent in parents):
        top = top.parent
    return top


def _called(given: str) -> PurePosixPath:
    """A name with its folders, from what a browser or a zip calls it."""
    *folders, last = PurePosixPath(given.replace("\\", "/")).parts or ("",)
    inside = [part for part in folders if part.strip("/. ")]
    # Named as files are, without the ending that every file gets.
    parts = [file_name(f"{part}.x").removesuffix(".x") for part in inside[-_MOST_FOLDERS:]]
    return PurePosixPath(*parts, file_name(last))


def _free_name(name: str, taken: Iterable[str]) -> str:
    path, number = PurePosixPath(name), 2
    while name in taken:
        name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
    return name


def _pack(batch: _Batch) -> None:
    """Write the zip; images are packed already."""
    top = _common(PurePosixPath(name) for name in batch.photos)
    names: dict[str, Path] = {}
    for name, result in list(batch.done.items()):
        inside, ending = PurePosixPath(name).relative_to(top), "" if result.unchanged else "-filled"
        wanted = str(inside.with_name(f"{inside.stem}{ending}{result.path.suffix}"))
        names[_free_name(wanted, names)] = result.path
    with (
        atomic_path(batch.folder / "filled.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, path in names.items():
            with suppress(FileNotFoundError):
                archive.write(path, name)
    batch.packed = True
