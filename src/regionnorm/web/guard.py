"""What holds for every request, whatever it is for: limits, passwords, and plain errors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regionnorm._extras import require
from regionnorm.servers import path_below

__all__ = ["Guard", "clean_input_errors", "take_local_files_only", "take_short_requests"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger(__name__)

_FETCHES = re.compile(r"/(?:file=|file/|proxy=)\s*\w+:", re.IGNORECASE)
# Written to disk as they come, with a limit of their own.
_UPLOADS = re.compile(r"/upload/?$|^/page/[^/]+/(?:photos|(?:pictures|batches)/[^/]+/[a-z]+)$")
# What gradio itself asks no password for, though it says something of what goes on here.
_PRIVATE = re.compile(r"^/(?:page/|openapi\.json|docs\b|redoc\b|gradio_api/(?:cancel|reset)\b)")
_LOGIN = re.compile(r"^/login/?$")
_CALLS = re.compile(r"^/gradio_api/(?:call/v2|call|run|api)/([^/]*)/?$")
_ENDPOINT = "inpaint"

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0  # seconds after a wrong password
_FORGIVEN = 900.0  # seconds after which wrong passwords are forgotten
_MOST_GUESSES = 5  # that wait at a time
_MOST_ADDRESSES = 10_000


class Guard:
    """ASGI middleware: the server fetches nothing for visitors, and takes no endless requests.

    It asks for the password where gradio does not, slows down who guesses it, and makes every
    error one line of JSON that names no folder.

    Args:
        app: What answers the requests that pass.
        max_body: Bytes that a request may carry. Uploads are written to disk as they come and have
            a limit of their own.
        hide: Removes from a message where files lie.
    """

    def __init__(self, app: Any, max_body: int, hide: Callable[[str], str]) -> None:
        self.app = app
        self.max_body = max_body
        self.hide = hide
        self._guesses: dict[str, _Guesses] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(*refusal, scope, receive, send)
        elif _LOGIN.search(path_below(scope)) and scope["method"] == "POST":
            await self._let_guess(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        plain = _PlainErrors(send, self.hide)
        try:
            await self.app(scope, receive, plain)
        except Exception as error:
            if plain.started:
                raise
            _log.error("the app failed: %s: %s", type(error).__name__, error)
            # gradio's own way to say that inputs do not fit is to fail.
            status = 400 if _CALLS.search(path_below(scope)) else 500
            reason = (
                "this request cannot be answered; see “Use it from a program” in the page's menu"
            )
            await self._refuse(status, reason, scope, receive, send)

    async def _refuse(
        self, status: int, reason: str, scope: Message, receive: Receive, send: Send
    ) -> None:
        responses = require("starlette.responses", extra="app")
        await responses.JSONResponse({"error": reason}, status)(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        path = path_below(scope)
        if _FETCHES.search(path):
            return 403, "this server fetches no files from elsewhere; upload them"
        if _PRIVATE.search(path) and not _is_known(scope):
            return 401, "this app asks for a password; log in first"
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        called = _CALLS.search(path)
        if called is not None and called[1] != _ENDPOINT:
            return 404, f"there is no endpoint {called[1]!r:.40}; there is /{_ENDPOINT}"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "the request does not say how long it is; send Content-Length"
        if int(length) > self.max_body and not _UPLOADS.search(path):
            return 413, f"the request has {int(length)} bytes; up to {self.max_body} are taken"
        return None

    async def _let_guess(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a login; after wrong ones from the same address, later and one by one."""
        guesses = self._guesses_of(scope)
        if guesses.waiting >= _MOST_GUESSES:
            await self._refuse(429, "too many passwords at once; wait", scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        guesses.waiting += 1
        try:
            async with guesses.turn:
                await asyncio.sleep(guesses.wait())
                await self._answer(scope, receive, watch)
                guesses.note(wrong=status >= 400)
        finally:
            guesses.waiting -= 1

    def _guesses_of(self, scope: Message) -> _Guesses:
        address = str((scope.get("client") or ("",))[0])
        if len(self._guesses) > _MOST_ADDRESSES:
            self._guesses.clear()
        return self._guesses.setdefault(address, _Guesses())


@dataclass
class _Guesses:
    """Wrong passwords from one address."""

    wrong: int = 0
    last: float = 0.0
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def wait(self) -> float:
        """Seconds until the next one is looked at: twice as long after each wrong one."""
        if not self.wrong or time.monotonic() - self.last > _FORGIVEN:
            return 0.0
        return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self.wrong, 10))

    def note(self, *, wrong: bool) -> None:
        self.wrong = self.wrong + 1 if wrong else 0
        self.last = time.monotonic()


class _PlainErrors:
    """Passes on an answer, and turns what says why there is none into one line of JSON."""

    def __init__(self, send: Send, hide: Callable[[str], str]) -> None:
        self._send, self._hide = send, hide
        self._start: Message | None = None
        self._body = b""
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            if message["status"] >= 400 and kind.startswith((b"application/json", b"text/plain")):
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._explain(self._start)
            return
        self.started = True
        await self._send(message)

    async def _explain(self, start: Message) -> None:
        body = json.dumps(self._reworded(start["status"])).encode()
        kept = [
            (name, value)
            for name, value in start["headers"]
            if name not in (b"content-length", b"content-type")
        ]
        kept += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self.started = True
        await self._send({**start, "headers": kept})
        await self._send({"type": "http.response.body", "body": body})

    def _reworded(self, status: int) -> dict[str, Any]:
        told: Any
        try:
            told = json.loads(self._body)
        except ValueError:
            told = self._body.decode(errors="replace")
        detail = told.get("detail", told.get("error")) if isinstance(told, dict) else told
        if detail == "Not Found":
            detail = "there is nothing at this address"
        answer: dict[str, Any] = {
            "error": self._hide(_one_line(detail) or f"refused with status {status}")
        }
        if status == 401 and isinstance(told, dict) and "detail" in told:
            answer["detail"] = detail  # gradio's own page looks here for what to ask
        return answer


def _one_line(detail: Any) -> str:
    """The first thing that is wrong, in words."""
    if isinstance(detail, list):
        detail = detail[0] if detail else ""
    if isinstance(detail, dict) and detail.get("type") == "json_invalid":
        return "the request's body is no JSON"
    if isinstance(detail, dict):
        place = ".".join(str(part) for part in detail.get("loc", ())[1:])
        words = detail.get("msg", detail.get("error", ""))
        detail = f"{place}: {words}" if place else words
    return " ".join(str(detail).split())[:300]


def _is_known(scope: Message) -> bool:
    """Whether no password is asked for, or it was given; gradio keeps who gave it."""
    app = scope["app"]
    if app.auth is None:
        return True
    requests = require("starlette.requests", extra="app")
    cookies = requests.Request(scope).cookies
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(app.tokens.get(cookies.get(name)) is not None for name in names)


def take_local_files_only(gradio: Any, block: Any) -> None:
    """Make a part of the page refuse addresses and folders where a file is expected.

    Requests name the files that they are about. gradio lets them name an address too, which the
    server would then fetch, and a folder, at which its own cleaning would later stop.
    """
    take = block.async_move_resource_to_block_cache

    async def take_file(path: str | Path | None) -> str | None:
        if path is not None and not Path(path).is_file():
            raise gradio.Error("There is no such file; upload it first", print_exception=False)
        taken: str | None = await take(path)
        return taken

    block.async_move_resource_to_block_cache = take_file


def take_short_requests(blocks: Any) -> None:
    """Make what a request leaves out at its end arrive as None.

    gradio's own client fills in what was left out; from other programs gradio wants everything.
    """
    preprocess = blocks.preprocess_data

    async def preprocess_data(function: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        missing = max(0, len(function.inputs) - len(inputs))
        return await preprocess(function, [*inputs, *[None] * missing], *rest, **named)

    blocks.preprocess_data = preprocess_data


def clean_input_errors(gradio: Any, blocks: Any) -> None:
    """Make what a request brings and gradio cannot read one line, without gradio's insides."""
    preprocess = blocks.preprocess_data

    async def preprocess_data(*arguments: Any, **named: Any) -> Any:
        try:
            return await preprocess(*arguments, **named)
        except gradio.Error:
            raise
        except Exception:
            raise gradio.Error(
                "this is no list of files as they were uploaded; send each as "
                '{"path": "...", "meta": {"_type": "gradio.FileData"}}',
                print_exception=False,
            ) from None

    blocks.preprocess_data = preprocess_data
