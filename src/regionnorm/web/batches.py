"""Many photos at once: dropped as files, as a folder or as a zip, and given back as a zip."""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import AsyncIterator
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
_WORK = 0.5  # of a photo, whose hole is not known before
_PIECE = 2**20


@dataclass(eq=False)
class _Batch:
    """Photos and masks that were sent, and what became of them."""

    folder: Path
    photos: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    size: int = 0
    done: dict[str, Path] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)  # of those: a rule found nothing in them
    failed: dict[str, str] = field(default_factory=dict)
    busy: bool = False


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

    async def take(self, request: Any) -> Any:
        """A photo or a mask, or a zip of them, as the body of the request."""
        _, batch = self._find(request)
        kept = batch.masks if request.url.path.endswith("/masks") else batch.photos
        folder = random_folder(batch.folder)
        path = await self.page.save(request, folder)
        if path.suffix.lower() == ".zip":
            await self.page.in_thread(self._unpack, path, batch, kept)
            path.unlink()
        else:
            self._keep(path.name, path, batch, kept)
        return self._responses.JSONResponse(
            {"photos": len(batch.photos), "masks": len(batch.masks)}
        )

    def _keep(self, name: str, path: Path, batch: _Batch, kept: dict[str, Path]) -> None:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            path.unlink()
            raise ValueError(f"{name} is no image by its name; drop photos, or a zip of them")
        batch.size += path.stat().st_size
        if len(kept) >= _MOST_FILES or batch.size > _MOST_BYTES:
            path.unlink()
            raise ValueError(
                f"up to {_MOST_FILES} photos and {_MOST_BYTES // 2**30} GB are taken at once; "
                "drop the others afterwards"
            )
        # A mask takes the place of the one of its name, which may be the one that did not fit.
        kept[name if kept is batch.masks else _free_name(name, kept)] = path

    def _unpack(self, source: Path, batch: _Batch, kept: dict[str, Path]) -> None:
        try:
            with zipfile.ZipFile(source) as archive:
                for item in archive.infolist():
                    name = PurePosixPath(item.filename.replace("\\", "/"))
                    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
                    if item.is_dir() or hidden or name.suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    path = random_folder(batch.folder) / file_name(name.name)
                    self._extract(archive, item, path)
                    self._keep(path.name, path, batch, kept)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"{source.name} cannot be unpacked: {error}") from error

    def _extract(self, archive: zipfile.ZipFile, item: zipfile.ZipInfo, path: Path) -> None:
        """Write one file, of no more bytes than an upload may have, whatever the zip says."""
        size = 0
        with archive.open(item) as packed, path.open("wb") as file:
            while piece := packed.read(_PIECE):
                size += len(piece)
                if size > self.page.max_file:
                    raise ValueError(f"{path.name} is too large; make it smaller")
                file.write(piece)

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
        masks = _Masks(batch, rule)
        job: Job | None = None
        try:
            photos = list(batch.photos.items())  # others may come meanwhile, for the next time
            for number, (name, photo) in enumerate(photos):
                told = {"photo": name, "number": number, "of": len(photos)}
                if name in batch.done:
                    continue
                yield {"state": "running", **told}
                job = Job(partial(self._one, batch, masks, name, photo), _WORK, visitor.name)
                self.page.line.join(job)
                async for place in self.page.places(job):
                    yield place | told
                if job.error is not None:
                    batch.failed[name] = self.page.explain(job.error)[1]
            yield {"state": "running", "packing": True}
            await asyncio.to_thread(_pack, batch)
            failed = [{"photo": name, "error": words} for name, words in batch.failed.items()]
            unchanged = len(batch.unchanged)
            filled = len(batch.done) - unchanged
            yield {"state": "done", "filled": filled, "unchanged": unchanged, "failed": failed}
        except Exception as error:
            yield {"state": "failed", "error": self.page.explain(error)[1]}
        finally:
            batch.busy = False
            if job is not None and not job.ended.is_set():
                self.page.line.cancel(job)

    def _one(self, batch: _Batch, masks: _Masks, name: str, photo: Path) -> None:
        check_pixels(photo, self.page.handlers.max_megapixels)
        mask = masks.find(name)
        folder = random_folder(batch.folder)
        # Each photo has a folder of its own; in a folder, what a rule finds nothing in is copied.
        report = fill_into(folder, self.page.handlers.inpainter, photo.parent, mask)
        if report.unchanged:
            batch.unchanged.add(name)
        batch.done[name] = next(folder.iterdir())

    async def give(self, request: Any) -> Any:
        """The zip of all that was filled."""
        _, batch = self._find(request)
        packed = batch.folder / "filled.zip"
        if not packed.is_file():
            raise Gone("nothing is filled yet")
        return self._responses.FileResponse(packed, filename="filled.zip")


class _Masks:
    """Which mask is whose: a rule, the only one for all, or the one of the photo's name."""

    def __init__(self, batch: _Batch, rule: str) -> None:
        self._rule = rule
        self._only = next(iter(batch.masks.values())) if len(batch.masks) == 1 else None
        self._files = {Path(name).stem: path for name, path in batch.masks.items()}

    def find(self, name: str) -> str | Path:
        if self._rule:
            return self._rule
        mask = self._only or self._files.get(Path(name).stem)
        if mask is None:
            raise ValueError(f"there is no mask called {Path(name).stem}; drop one of that name")
        return mask


def _free_name(name: str, taken: dict[str, Path]) -> str:
    path, number = Path(name), 2
    while name in taken:
        name = f"{path.stem}-{number}{path.suffix}"
        number += 1
    return name


def _pack(batch: _Batch) -> None:
    """Write the zip; images are packed already."""
    names: dict[str, Path] = {}
    for name, path in batch.done.items():
        ending = "" if name in batch.unchanged else "-filled"
        names[_free_name(f"{Path(name).stem}{ending}{path.suffix}", names)] = path
    with (
        atomic_path(batch.folder / "filled.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, path in names.items():
            with suppress(FileNotFoundError):
                archive.write(path, name)
