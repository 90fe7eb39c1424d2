"""What holds for every request, whatever it is for: limits, and what may be left out."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from regionnorm._extras import require

__all__ = ["Guard", "take_local_files_only", "take_short_requests"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_FETCHES = re.compile(r"/(?:file=|file/|proxy=)\s*\w+:", re.IGNORECASE)
_UPLOAD = "/upload"


class Guard:
    """ASGI middleware: the server fetches nothing for visitors, and takes no endless requests.

    Args:
        app: What answers the requests that pass.
        max_body: Bytes that a request may carry. Uploads are written to disk as they come and have
            a limit of their own.
    """

    def __init__(self, app: Any, max_body: int) -> None:
        self.app = app
        self.max_body = max_body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, reason = refusal
        responses = require("starlette.responses", extra="app")
        await responses.JSONResponse({"error": reason}, status)(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        path = str(scope["path"])
        if _FETCHES.search(path):
            return 403, "this server fetches no files from elsewhere; upload them"
        if scope["method"] not in ("POST", "PUT", "PATCH") or path.rstrip("/").endswith(_UPLOAD):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "the request does not say how long it is; send Content-Length"
        if int(length) > self.max_body:
            return 413, f"the request has {int(length)} bytes; up to {self.max_body} are taken"
        return None


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
