"""What keeps the service's memory bounded and its answers prompt, whoever the clients are."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from regionnorm._extras import require
from regionnorm.servers import path_below
from regionnorm.serving.metrics import Metrics
from regionnorm.stopping import Stopped

__all__ = ["FOLDER", "Desk", "Limits"]

FOLDER = "regionnorm.folder"
"""Where a request's ASGI scope names the folder that is its own until it is answered."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LONGEST_WAIT = 120  # seconds that a client is told to wait, at most
_POLITE = 2**20  # bytes of a refused request that are still read, so that the client hears why


_log = logging.getLogger(__name__)


class Desk:
    """Counts the requests that are open, waiting and worked on, and says when there are too many.

    Args:
        jobs: Photos filled at once.
        max_queue: Requests that may wait beside those.
        max_open: Requests that may be open, those included that are still being sent.
    """

    def __init__(self, jobs: int, max_queue: int, max_open: int) -> None:
        self.jobs, self.max_queue, self.max_open = jobs, max_queue, max_open
        self.open = self.waiting = self.running = 0
        self.draining = False
        self._usual = 1.0  # seconds that a fill takes
        self._turns = asyncio.Semaphore(jobs)

    @property
    def full(self) -> bool:
        """Whether one more photo would wait behind too many."""
        return self.waiting + self.running >= self.jobs + self.max_queue

    @property
    def crowded(self) -> bool:
        """Whether too many requests are open."""
        return self.open >= self.max_open

    @property
    def retry_after(self) -> int:
        """Seconds after which there should be room."""
        ahead = (self.waiting + self.running) / self.jobs
        return max(1, min(_LONGEST_WAIT, math.ceil(ahead * self._usual)))

    async def turn(self, work: Callable[[], Awaitable[Any]], left: asyncio.Future[None]) -> Any:
        """Wait for one's turn and do the work.

        Args:
            work: What to do.
            left: Done once nobody waits for it any more.

        Raises:
            Stopped: That was before its turn came.
        """
        self.waiting += 1
        mine = asyncio.ensure_future(self._turns.acquire())
        try:
            both: set[asyncio.Future[Any]] = {mine, left}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not mine.done():
                raise Stopped
        except BaseException:
            if not mine.cancel():  # it has come, and is for the next one
                self._turns.release()
            raise
        finally:
            self.waiting -= 1
        self.running += 1
        start = time.perf_counter()
        try:
            return await work()
        finally:
            self.running -= 1
            self._usual += (time.perf_counter() - start - self._usual) / 8
            self._turns.release()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Count a request as open."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class Limits:
    """ASGI middleware for the requests that carry photos.

    Args:
        app: What answers the requests that pass.
        path: Of these requests; others pass as they are.
        desk: Says when there are too many.
        metrics: Told of every answer.
        max_body: Bytes that a request may carry.
        patience: Seconds that a client may take to send its request, and to take each piece of
            the answer.
    """

    def __init__(
        self, app: Any, path: str, desk: Desk, metrics: Metrics, max_body: int, patience: float
    ) -> None:
        self.app, self.path, self.desk, self.metrics = app, path, desk, metrics
        self.max_body, self.patience = max_body, patience

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http" or path_below(scope) != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, self._noted(send))
            return
        with (
            self.desk.opened(),
            TemporaryDirectory(prefix="regionnorm-", ignore_cleanup_errors=True) as folder,
        ):
            scope[FOLDER] = folder
            await self._pass_on(scope, receive, self._noted(send))

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        begun = False

        async def give(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, self._bounded(receive), give)
        except asyncio.TimeoutError:
            pass  # who takes no answer gets no more of it
        except Exception:
            _log.exception("a request failed")
            if not begun:
                words = "this failed on the server, which has noted why; try again"
                responses = require("starlette.responses", extra="serve")
                with suppress(asyncio.TimeoutError):
                    await responses.JSONResponse({"error": words}, 500)(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        if self.desk.draining:
            return 503, "this server is being stopped; ask another"
        if self.desk.full or self.desk.crowded:
            return 429, "too many photos are waiting; try again later"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            return 413, self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the request is larger than {self.max_body} bytes; send a smaller photo"

    async def _refuse(
        self, refusal: tuple[int, str], scope: Message, receive: Receive, send: Send
    ) -> None:
        status, reason = refusal
        with_pause = status in (429, 503)
        headers = {"Retry-After": str(self.desk.retry_after)} if with_pause else {}
        read = 0
        # A client that is still sending would see a broken connection in the answer's place.
        try:
            while read < _POLITE:
                message = await asyncio.wait_for(receive(), 1)
                read += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
        except asyncio.TimeoutError:
            pass
        responses = require("starlette.responses", extra="serve")
        await responses.JSONResponse({"error": reason}, status, headers)(scope, receive, send)

    def _bounded(self, receive: Receive) -> Receive:
        """Receive a body of bounded size in bounded time."""
        error = require("starlette.exceptions", extra="serve").HTTPException
        until, size, more = time.monotonic() + self.patience, 0, True

        async def take() -> Message:
            nonlocal size, more
            if not more:  # from now on it only tells that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except asyncio.TimeoutError:
                reason = f"the request was not sent within {self.patience:g} seconds"
                raise error(408, reason) from None
            size += len(message.get("body", b""))
            more = bool(message.get("more_body"))
            if size > self.max_body:
                raise error(413, self._too_large())
            return message

        return take

    def _noted(self, send: Send) -> Send:
        """Send with a limit on how long a client takes, and count the answer."""

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answered(int(message["status"]))
            await asyncio.wait_for(send(message), self.patience)

        return give
