"""The fills that the page asks for, and how far they are."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm._extras import require
from regionnorm.web.api import PageApi, describe
from regionnorm.web.line import Job, LineFull
from regionnorm.web.pictures import decode_mask, to_data_url, work_of
from regionnorm.web.visitors import Box, Gone, Picture, Visitor

__all__ = ["FillApi"]

_MOST_JOBS = 6  # of one visitor
_REMEMBERED = 500  # jobs, of all together, that can be asked for
_REGIONS_WORK = 0.3


class FillApi:
    """Answers the page's requests to fill.

    Args:
        page: Answers the rest.
    """

    def __init__(self, page: PageApi) -> None:
        self.page = page
        self._responses = require("starlette.responses", extra="app")
        self._jobs: dict[str, Job] = {}

    def routes(self) -> list[Any]:
        """What the server answers, as Starlette's routes."""
        visitor, picture = "/page/{visitor}", "/page/{visitor}/pictures/{picture}"
        return [
            self.page.route("POST", f"{picture}/fills", self.fill),
            self.page.route("POST", f"{picture}/variants", self.another),
            self.page.route("POST", f"{picture}/regions", self.regions),
            self.page.route("POST", f"{picture}/selections", self.select),
            self.page.route("GET", f"{visitor}/jobs/{{job}}", self.follow),
            self.page.route("DELETE", f"{visitor}/jobs/{{job}}", self.cancel),
        ]

    async def fill(self, request: Any) -> Any:
        """Fill what the body, a PNG, shows white, and tell how far it is.

        ``grow=left,top,right,bottom`` adds so many pixels on each side and fills them, too; then
        the body may be empty.
        """
        visitor, picture = self.page.picture(request)
        corner = _whole(request, "left"), _whole(request, "top")
        grown = _grown(request)
        if any(grown):
            self.page.handlers.check_growth(picture, grown)
        async with self.page.body(request) as data:
            levels = await self.page.in_thread(
                lambda: decode_mask(data.read(), corner, picture.size, empty=any(grown))
            )
        packed, shape = await self.page.in_thread(_packed, levels), levels.shape

        def work() -> Picture:
            whole = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
            return self.page.handlers.fill(whole, picture, visitor, grown)

        width, height = picture.size
        wider = (width + grown[0] + grown[2]) * (height + grown[1] + grown[3]) - width * height
        return self._start(visitor, picture, work, work_of(levels > 0, wider))

    async def select(self, request: Any) -> Any:
        """The mask of the object that the body, a PNG, goes over, or that a box holds."""
        visitor, picture = self.page.picture(request)
        corner = _whole(request, "left"), _whole(request, "top")
        grow, box = _whole(request, "grow", "-?[0-9]{1,4}"), _box(request)
        async with self.page.body(request) as data:

            def work() -> str:
                stroke = decode_mask(data.read(), corner, picture.size) > 127
                return self.page.handlers.select(stroke, box, grow, picture, visitor)

            return self._responses.JSONResponse({"mask": await self.page.find(request, work)})

    async def another(self, request: Any) -> Any:
        """Fill the same again in another way."""
        visitor, picture = self.page.picture(request)
        work = partial(self.page.handlers.another, picture, visitor)
        size = picture.size[0] * picture.size[1] / 40e6
        if picture.box:
            left, top, right, bottom = picture.box
            size += (right - left) * (bottom - top) / 1e6
        return self._start(visitor, picture, work, 0.05 + size)

    async def regions(self, request: Any) -> Any:
        """What the network's layers see."""
        visitor, picture = self.page.picture(request)

        def work() -> dict[str, Any]:
            found, summary = self.page.handlers.regions(picture)
            shown = [{"src": to_data_url(image), "caption": words} for image, words in found]
            return {"summary": summary, "regions": shown}

        return self._start(visitor, picture, work, _REGIONS_WORK)

    def _start(
        self, visitor: Visitor, picture: Picture, work: Callable[[], Any], size: float
    ) -> Any:
        if len(self.page.line.owned(visitor.name)) >= _MOST_JOBS:
            raise LineFull("several of your fills are waiting; let them finish first")
        visitor.hold(picture)
        job = Job(work, size, visitor.name, finish=lambda: visitor.release(picture))
        try:
            self.page.line.join(job)
        except LineFull:
            visitor.release(picture)
            raise
        # What has ended is told to who comes back, for a while.
        known = self.page.visitors.knows
        self._jobs = {n: other for n, other in self._jobs.items() if known(other.owner)}
        self._jobs[job.number] = job
        while len(self._jobs) > _REMEMBERED:
            self._jobs.pop(next(iter(self._jobs)))
        return self.page.stream(self._lines(job))

    def _job(self, request: Any) -> Job:
        visitor = self.page.visitor(request)
        job = self._jobs.get(request.path_params["job"])
        if job is None or job.owner != visitor.name:
            raise Gone("this fill is not known any more; start it again")
        return job

    async def follow(self, request: Any) -> Any:
        """Tell how far a fill is to a page that was loaded anew."""
        return self.page.stream(self._lines(self._job(request)))

    async def cancel(self, request: Any) -> Any:
        """Stop a fill."""
        self.page.line.cancel(self._job(request))
        return self._responses.JSONResponse({"cancelled": True})

    async def _lines(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """How far a job is, again and again, and what came of it at last."""
        async for place in self.page.places(job):
            yield {"job": job.number, **place}
        yield {"job": job.number, **self.outcome(job)}

    def outcome(self, job: Job) -> dict[str, Any]:
        """What came of a job."""
        if job.error is not None:
            return {"state": "failed", "error": self.page.explain(job.error)[1]}
        told: dict[str, Any] = {"state": job.state}
        if isinstance(job.result, Picture):
            told["picture"] = describe(job.result)
        elif isinstance(job.result, dict):
            told |= job.result
        return told


def _packed(levels: npt.NDArray[np.uint8]) -> bytes:
    # Many may wait: of a mask that somebody painted, hardly anything is left.
    return zlib.compress(levels.tobytes(), 1)


def _grown(request: Any) -> Box:
    advice = "give pixels for left, top, right and bottom, as 200,0,200,0"
    return _sides(request, "grow", advice) or (0, 0, 0, 0)


def _box(request: Any) -> Box | None:
    return _sides(request, "box", "give left,top,right,bottom in pixels")


def _sides(request: Any, name: str, advice: str) -> Box | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    if not re.fullmatch("[0-9]{1,6}(,[0-9]{1,6}){3}", given):
        raise ValueError(f"{name} is {given!r:.40}; {advice}")
    left, top, right, bottom = map(int, given.split(","))
    return left, top, right, bottom


def _whole(request: Any, name: str, pattern: str = "[0-9]{1,6}") -> int:
    given = request.query_params.get(name, "0")
    if not re.fullmatch(pattern, given):
        raise ValueError(f"{name} is {given!r:.20}; give a whole number of pixels")
    return int(given)
