"""What the page asks the server for: who is there, photos and masks in, pictures out.

Every answer is JSON, an image, or for what takes long a stream with a line of JSON whenever there
is something new. All addresses begin with the visitor's random name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from regionnorm._extras import require
from regionnorm.stopping import Stopped, waited_for
from regionnorm.web.finders import Finders, Replaced
from regionnorm.web.handlers import VIEW_SIDE, Handlers
from regionnorm.web.line import Job, Line, LineFull
from regionnorm.web.page import read_static
from regionnorm.web.pictures import (
    canvas_of,
    encoded,
    patch,
    thumbnail,
)
from regionnorm.web.visitors import Gone, Picture, Visitor, Visitors

__all__ = ["MAX_BODY", "PageApi", "TooLarge", "check_rule", "file_name"]

MAX_BODY = 32 * 2**20
"""Bytes of a request that brings no file; the largest carries a painted mask."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Answer = Callable[[Any], Awaitable[Any]]

_IN_MEMORY = 2**19  # bytes of a body
_AT_ONCE = 2  # photos that are decoded at a time, beside those filled or searched
_RULES = ("auto:scratches", "auto:scratches-classical", "auto:text")
_THUMBNAIL_SIDE = 192
_LOOK = 0.1  # seconds between looks at a job
_SAY = 5  # looks after which it is told again
_MOST_NAME = 120
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


class TooLarge(ValueError):
    """A request brings more than is taken."""


class PageApi:
    """Answers the page.

    Args:
        handlers: Do the work.
        visitors: Who is there.
        line: Where fills wait.
        max_file: Bytes that an uploaded file may have.
    """

    def __init__(self, handlers: Handlers, visitors: Visitors, line: Line, max_file: int) -> None:
        self.handlers, self.visitors, self.line = handlers, visitors, line
        self.max_file = max_file
        self.finders = Finders()
        self._threads = asyncio.Semaphore(_AT_ONCE)
        self._responses = require("starlette.responses", extra="app")
        self._gone = require("starlette.requests", extra="app").ClientDisconnect

    def routes(self) -> list[Any]:
        """What the server answers, as Starlette's routes."""
        visitor, picture = "/page/{visitor}", "/page/{visitor}/pictures/{picture}"
        return [
            self.route("GET", "/page/static/{version}/{name}", self.static),
            self.route("GET", "/page/examples/{index:int}", self.example_picture),
            self.route("POST", "/page/visitors", self.come),
            self.route("GET", visitor, self.state),
            self.route("POST", f"{visitor}/photos", self.open_photo),
            self.route("POST", f"{visitor}/examples/{{index:int}}", self.open_example),
            self.route("GET", f"{picture}/{{what}}", self.look),
            self.route("POST", f"{picture}/masks", self.load_mask),
            self.route("POST", f"{picture}/stay", self.stay),
            self.route("GET", f"{visitor}/masks/{{mask}}", self.mask),
        ]

    def route(self, method: str, path: str, answer: _Answer) -> Any:
        """A route whose errors are one line of JSON."""
        routing = require("starlette.routing", extra="app")

        async def politely(request: Any) -> Any:
            try:
                return await answer(request)
            except self._gone:
                return self._responses.Response(status_code=400)  # nobody reads it
            except Exception as error:
                status, words = self.explain(error)
                return self._responses.JSONResponse({"error": words}, status)

        return routing.Route(path, politely, methods=[method])

    def explain(self, error: BaseException) -> tuple[int, str]:
        """A status and one line for what went wrong."""
        words = self.handlers.explain(error)
        if words is None:
            _log.error("the app failed: %s: %s", type(error).__name__, error)
            return 500, "this failed on the server, which has noted why; try again"
        for kind, status in (
            (TooLarge, 413),
            (LineFull, 503),
            (Replaced, 429),
            (Gone, 404),
        ):
            if isinstance(error, kind):
                return status, words
        return 400, words

    async def in_thread(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """Do what takes its time without holding up others, a few at a time."""
        async with self._threads:
            return await asyncio.to_thread(work, *arguments, **named)

    async def find(
        self, request: Any, work: Callable[..., _T], *arguments: Any, **named: Any
    ) -> _T:
        """Find something for the visitor of a request, whose body was read, when its turn comes.

        What is at work stops at its next step when the visitor goes.

        Raises:
            Replaced: The visitor has asked for something else meanwhile.
        """
        async with self.finders.turn(self.visitor(request).name):
            if await request.is_disconnected():
                raise self._gone
            try:
                async with waited_for(request):
                    return await asyncio.to_thread(work, *arguments, **named)
            except Stopped:
                raise self._gone from None

    def visitor(self, request: Any) -> Visitor:
        """Whose address was asked for."""
        return self.visitors.get(request.path_params["visitor"])

    def picture(self, request: Any) -> tuple[Visitor, Picture]:
        """Which picture of whom was asked for."""
        visitor = self.visitor(request)
        return visitor, visitor.picture(request.path_params["picture"])

    # --- who, and what is there ------------------------------------------------------------------

    async def static(self, request: Any) -> Any:
        """The page's own scripts."""
        data, kind = read_static(request.path_params["name"])
        return self._responses.Response(data, media_type=kind, headers=_FOREVER)

    async def example_picture(self, request: Any) -> Any:
        """A small picture of an example photo."""
        path = self._example(request)
        small = await self.in_thread(thumbnail, Picture(path, path.name, (0, 0)), _THUMBNAIL_SIDE)
        return self._responses.FileResponse(small, headers=_FOREVER)

    def _example(self, request: Any) -> Path:
        index: int = request.path_params["index"]
        if index >= len(self.handlers.examples):
            raise Gone(f"there are {len(self.handlers.examples)} examples, counted from 0")
        return self.handlers.examples[index]

    async def come(self, request: Any) -> Any:
        """Somebody new."""
        return self._responses.JSONResponse({"visitor": self.visitors.new().name})

    async def state(self, request: Any) -> Any:
        """What is kept of a visitor, for a page that was loaded anew."""
        visitor = self.visitor(request)
        told = {
            "pictures": [describe(picture) for picture in visitor.pictures],
            "jobs": [job.number for job in self.line.owned(visitor.name)],
        }
        return self._responses.JSONResponse(told)

    async def stay(self, request: Any) -> Any:
        """The page is on this picture now."""
        visitor, picture = self.picture(request)
        visitor.stay(picture)
        return self._responses.JSONResponse({"stays": picture.number})

    # --- photos and masks ------------------------------------------------------------------------

    async def open_photo(self, request: Any) -> Any:
        """A photo, as the body of the request."""
        visitor = self.visitor(request)
        path = await self.save(request, visitor.new_folder())
        photo = await self.in_thread(self.handlers.open_photo, path, visitor)
        return self._responses.JSONResponse(describe(photo))

    async def open_example(self, request: Any) -> Any:
        """One of the examples as the photo."""
        visitor, index = self.visitor(request), request.path_params["index"]
        self._example(request)
        photo = await self.in_thread(self.handlers.open_example, index, visitor)
        return self._responses.JSONResponse(describe(photo))

    async def save(self, request: Any, folder: Path) -> Path:
        """Write the body of a request to a file as it comes; its name is that of the query.

        The folder, which holds nothing else, is removed if that fails.

        Raises:
            TooLarge: There is more of it than one file may have.
        """
        path = folder / file_name(request.query_params.get("name", ""))
        size = 0
        try:
            with path.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.max_file:
                        raise TooLarge(
                            f"{path.name} has more than {self.max_file // 10**6} MB; "
                            "make it smaller"
                        )
                    file.write(chunk)
            if not size:
                raise ValueError(f"{path.name} is empty; choose another file")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return path

    @asynccontextmanager
    async def body(self, request: Any) -> AsyncIterator[IO[bytes]]:
        """A request's body, up to :data:`MAX_BODY`; on disk what is large, since many may come."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY:
                    raise TooLarge(f"the mask has more than {MAX_BODY} bytes")
                file.write(chunk)
            file.seek(0)
            yield file

    async def look(self, request: Any) -> Any:
        """A picture for the screen, small, whole, only what changed, or as a file to keep."""
        _, picture = self.picture(request)
        what = request.path_params["what"]
        if what == "file":
            return self._responses.FileResponse(
                picture.path, filename=picture.name, headers={"Cache-Control": "private"}
            )
        makers: dict[str, Callable[[], Path]] = {
            "view": partial(encoded, picture.path, VIEW_SIDE),
            "whole": partial(encoded, picture.path, None),
            "small": partial(thumbnail, picture, _THUMBNAIL_SIDE),
        }
        if picture.box:
            makers["patch"] = partial(patch, picture)
        if what not in makers:
            raise Gone(f"of a picture there are {', '.join([*makers, 'file'])}, not {what:.20}")
        made = await self.in_thread(makers[what])
        return self._responses.FileResponse(made, headers=_FOREVER)

    async def load_mask(self, request: Any) -> Any:
        """A mask, as the body of the request, or made by the rule of the query."""
        visitor, picture = self.picture(request)
        rule = request.query_params.get("rule", "")
        if rule:
            check_rule(rule)
            async with self.body(request):  # of no use
                pass
            found = await self.find(request, self.handlers.find_mask, rule, picture, visitor)
        else:
            path = await self.save(request, visitor.new_folder())
            invert = request.query_params.get("invert") == "1"
            found = await self.in_thread(
                self.handlers.load_mask, path, picture, visitor, invert=invert
            )
        told = {"mask": found.number, "warnings": found.warnings, "soft": found.soft}
        return self._responses.JSONResponse(told)

    async def mask(self, request: Any) -> Any:
        """A loaded mask, opaque where the hole is."""
        path = self.visitor(request).mask(request.path_params["mask"])
        return self._responses.FileResponse(path, headers=_FOREVER)

    # --- what takes long ------------------------------------------------------------------------

    def stream(self, lines: AsyncIterator[dict[str, Any]]) -> Any:
        """Lines of JSON as they come."""

        async def encoded_lines() -> AsyncIterator[bytes]:
            async for line in lines:
                yield json.dumps(line).encode() + b"\n"

        return self._responses.StreamingResponse(
            encoded_lines(),
            media_type="application/x-ndjson",
            # Proxies should pass on each line at once.
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def places(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """Where a job is, until it has ended; somebody waits for it meanwhile."""
        with self.line.watched(job):
            told, looks = "", 0
            while not job.ended.is_set():
                place = self.line.place(job)
                if place.state not in ("waiting", "running"):
                    break  # it has ended just now; what came of it is told by who asked
                if (state := f"{place.state} {place.ahead}") != told or looks % _SAY == 0:
                    told = state
                    yield {
                        "state": place.state,
                        "ahead": place.ahead,
                        "done": round(place.done, 3),
                        "left": round(place.left, 1),
                    }
                looks += 1
                await asyncio.sleep(_LOOK)


def describe(picture: Picture) -> dict[str, Any]:
    """A picture as the page knows it."""
    width, height = picture.size
    return {
        "number": picture.number,
        "name": picture.name,
        "width": width,
        "height": height,
        "canvas": canvas_of(picture.size),
        "origin": picture.origin.number,
        "parent": picture.parent.number if picture.parent else None,
        "box": picture.box,
        "grown": picture.grown,
        "frame": picture.frame,
    }


def check_rule(rule: str) -> None:
    """Refuse a rule that makes no mask here by itself.

    Raises:
        ValueError: It is none of those that are offered.
    """
    if rule not in _RULES:
        raise ValueError(
            f"the rule {rule!r:.40} is not known here; what is found are scratches "
            "(auto:scratches) and text (auto:text)"
        )


def file_name(given: str) -> str:
    """A file's name from what a browser calls it: no folders, nothing that cannot be written."""
    name = PurePosixPath(given.replace("\\", "/")).name
    name = re.sub(r"[\x00-\x1f\x7f<>:\"|?*]", "_", name).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name or "photo", "png"
    # File systems count bytes, and a number may be added.
    stem = stem.encode()[:_MOST_NAME].decode(errors="ignore")
    return f"{stem or 'photo'}.{suffix[:10]}"
