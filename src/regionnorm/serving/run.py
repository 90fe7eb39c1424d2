"""Run the service on this machine until it is told to stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from regionnorm._extras import require
from regionnorm.filling.inpainter import Inpainter
from regionnorm.servers import ending_signals
from regionnorm.serving.service import ServiceOptions, build_service
from regionnorm.stopping import stop_between_layers

__all__ = ["serve"]

_KEEP_ALIVE = 15  # seconds that a connection without a request stays open
_WAITING = 256  # connections that the system holds back while this process is busy


def serve(
    inpainter: Inpainter,
    options: ServiceOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grace: int = 300,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; what has been taken on is then finished first.

    Args:
        inpainter: What fills the holes.
        options: Limits.
        host: Address to listen on; ``0.0.0.0`` to be reached from the network.
        port: 0 takes a free one.
        grace: Seconds that open requests may take after the signal.
        on_start: Called with the address before the first request is taken.

    Raises:
        ImportError: FastAPI or uvicorn is not installed; the message is the command to install it.
        OSError: The port is taken, or the address is not one of this computer's.
    """
    uvicorn = require("uvicorn", extra="serve")
    app = build_service(inpainter, options)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
    )
    server = uvicorn.Server(config)
    stop, running = server.handle_exit, False

    def handle_exit(number: int, frame: FrameType | None) -> None:
        app.state.desk.draining = True
        stop(number, frame)
        if not running:  # a compiler may be at work, which need not end
            raise KeyboardInterrupt

    server.handle_exit = handle_exit
    with (
        _listen(host, port) as listening,
        _handled(handle_exit),
        stop_between_layers(inpainter.model),
        suppress(KeyboardInterrupt),
    ):
        if on_start is not None:
            shown = f"[{host}]" if ":" in host else host
            on_start(f"http://{shown}:{listening.getsockname()[1]}")
        inpainter.warm_up()  # the first client should not wait for a compiler
        running = True
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port or host"
        ) from error
    return listening


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Stop at signals, also before the server looks after them itself.

    It raises the one that stopped it once more at its end, when that changes nothing. With its
    terminal gone the service ends as well, and removes what clients sent.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others cannot
        for stop in ending_signals("SIGINT"):
            before[stop] = signal.signal(stop, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
