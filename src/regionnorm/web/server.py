"""Start the app: folders, limits, and the address it listens on."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionnorm._extras import require
from regionnorm.filling.inpainter import Inpainter
from regionnorm.servers import ending_signals
from regionnorm.stopping import stop_between_layers
from regionnorm.web.api import MAX_BODY, PageApi
from regionnorm.web.app import build_app, make_theme, stop_for_those_who_left, style
from regionnorm.web.batches import BatchApi
from regionnorm.web.examples import write_examples
from regionnorm.web.fills import FillApi
from regionnorm.web.guard import Guard
from regionnorm.web.handlers import Handlers
from regionnorm.web.line import Line
from regionnorm.web.visitors import Store, Visitors

__all__ = ["AppOptions", "running", "serve"]


@dataclass(frozen=True)
class AppOptions:
    """How the app is run.

    Attributes:
        host: Address to listen on; ``127.0.0.1`` is reachable from this computer only,
            ``0.0.0.0`` from the network.
        port: Port; 0 takes a free one.
        password: Asked of every visitor and program, with any user name; None asks nothing.
        max_megapixels: Larger photos are refused.
        max_queue: Waiting requests; further ones are told to come back later.
        root_path: Where a proxy shows the app: a path like ``/fill``, or a whole address; empty
            where it is shown at the top.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    max_megapixels: float = 40
    max_queue: int = 64
    root_path: str = ""


def serve(
    inpainter: Inpainter,
    options: AppOptions | None = None,
    *,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Run the app until it is interrupted (Ctrl-C, SIGTERM, SIGHUP); call it in the main thread.

    Args:
        inpainter: What fills the holes.
        options: Address, limits and password.
        on_start: Called with the address once the app answers.

    Raises:
        ImportError: gradio is not installed; the message is the command that installs it.
        OSError: The port is taken, or the address is not one of this computer's.
        ValueError: An option is out of its range.
    """
    # Stopped by a service manager or with its terminal, too, the app should remove what visitors
    # left.
    if threading.current_thread() is threading.main_thread():  # others cannot
        for stop in ending_signals():
            signal.signal(stop, signal.default_int_handler)
    with suppress(KeyboardInterrupt), running(inpainter, options or AppOptions()) as (_, url):
        if on_start is not None:
            on_start(url)
        inpainter.warm_up()  # the first visitor should not wait for a compiler
        threading.Event().wait()


@contextmanager
def running(inpainter: Inpainter, options: AppOptions) -> Iterator[tuple[Any, str]]:
    """Run the app in the background: yields the ``gradio.Blocks`` and the address.

    Every file that visitors bring or get lies in a temporary folder that only this user can read,
    and that is removed at the end.
    """
    _check(options)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"gradio\.queueing")
    with tempfile.TemporaryDirectory(prefix="regionnorm-app-") as root, _environment(Path(root)):
        gradio = require("gradio", extra="app")
        store = Store(private=Path(root) / "sessions", public=Path(root) / "public")
        examples = write_examples(Path(root) / "examples")
        handlers = Handlers(inpainter, store, examples, options.max_megapixels)
        visitors, line = Visitors(store.private), Line(options.max_queue)
        page = PageApi(handlers, visitors, line, _most_bytes(options))
        blocks = build_app(handlers, line)
        blocks.queue(max_size=options.max_queue, default_concurrency_limit=2)
        stop_for_those_who_left(blocks, line)
        arguments = _launch_arguments(gradio, options, store)
        arguments["app_kwargs"]["routes"] = [
            route for part in (page, FillApi(page), BatchApi(page)) for route in part.routes()
        ]
        visitors.watch()
        try:
            with stop_between_layers(getattr(inpainter, "model", None)):
                _, url, _ = blocks.launch(**arguments)
                yield blocks, url
        finally:
            visitors.close()
            line.close()
            blocks.close(verbose=False)


def _most_bytes(options: AppOptions) -> int:
    # Eight bytes a pixel: 16-bit RGBA without compression.
    return int(8e6 * options.max_megapixels)


def _check(options: AppOptions) -> None:
    if not 0 <= options.port <= 65535:
        raise ValueError(f"the port is {options.port}; give 1 to 65535, or 0 for any free one")
    if options.max_megapixels <= 0:
        raise ValueError(f"max_megapixels is {options.max_megapixels:g}; give more than 0")
    if options.max_queue < 1:
        raise ValueError(f"max_queue is {options.max_queue}; give 1 or more")
    if options.root_path and not re.match(r"/\w|https?://\w", options.root_path):
        raise ValueError(
            f"root_path is {options.root_path!r}; give a path like /fill, or a whole address"
        )
    if options.password == "":
        raise ValueError("the password is empty; give one, or leave the option out")


@contextmanager
def _environment(root: Path) -> Iterator[None]:
    # gradio takes these from the environment only: where uploads go, and no calls home.
    wanted = {
        "GRADIO_TEMP_DIR": str(root / "public"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _launch_arguments(gradio: Any, options: AppOptions, store: Store) -> dict[str, Any]:
    password = options.password
    middleware = require("starlette.middleware", extra="app")

    def allow(_user: str, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (password or "").encode())

    return {
        "server_name": options.host,
        "server_port": _check_port(options.host, options.port),
        "auth": None if password is None else allow,
        "auth_message": "Any user name, and the password of this app.",
        "max_file_size": _most_bytes(options),
        "app_kwargs": {
            "middleware": [middleware.Middleware(Guard, max_body=MAX_BODY, hide=store.hide_folders)]
        },
        "root_path": options.root_path.rstrip("/") or None,
        "share": False,
        "show_error": True,
        "quiet": True,
        "prevent_thread_lock": True,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "mcp_server": False,
        "footer_links": ["api"],
        "theme": make_theme(gradio),
        "css": style(),
    }


def _check_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0, or say in one line why it cannot be used."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            free: int = probe.getsockname()[1]
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port or host"
        ) from error
    return free
