"""The app as gradio serves it: the page in one piece, and an endpoint for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regionnorm._extras import require
from regionnorm.web.guard import clean_input_errors, take_local_files_only, take_short_requests
from regionnorm.web.handlers import Handlers
from regionnorm.web.line import Job, Line
from regionnorm.web.page import read_static, static_version

__all__ = ["build_app", "make_theme", "stop_for_those_who_left", "style"]

# Programs' files; what visitors of the page leave is removed by other means.
_CLEAN_EVERY, _CLEAN_AGE = 600, 6 * 3600
_PROGRAM_WORK = 0.5  # how long a program's photo takes, in the line's units, before it is read
_PROGRAMS = 16  # that wait in the line at once; what more there are wait for a place in it

# The page's own scripts lie beside wherever the page itself is, behind a proxy too.
_START = """
const base = new URL(location.pathname.replace(/\\/?$/, '/'), location.origin);
import(new URL('page/static/VERSION/main.js', base))
  .then((page) => page.start(element, new URL('page/', base)));
"""


def style() -> str:
    """The page's style sheet."""
    return _read("page.css")


def make_theme(gradio: Any) -> Any:
    """Colours, and fonts of the visitor's own system: nothing is fetched from elsewhere."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
    return gradio.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"],
    )


def build_app(handlers: Handlers, line: Line) -> Any:
    """Lay out the page and connect the endpoint.

    Args:
        handlers: Do the work.
        line: Where programs' fills wait, together with the page's.

    Returns:
        The ``gradio.Blocks``, which :func:`regionnorm.web.serve` launches.

    Raises:
        ImportError: gradio is not installed; the message is the command that installs it.
    """
    gr = require("gradio", extra="app")
    with gr.Blocks(
        title="Fill holes in photos",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_CLEAN_EVERY, _CLEAN_AGE),
    ) as blocks:
        gr.HTML(
            _page(handlers.examples),
            js_on_load=_START.replace("VERSION", static_version()),
            apply_default_css=False,
            elem_id="rn-page",
        )
        _connect_programs(gr, handlers, line)
    take_short_requests(blocks)
    clean_input_errors(gr, blocks)
    for block in blocks.blocks.values():
        take_local_files_only(gr, block)
    return blocks


def _read(name: str) -> str:
    return read_static(name)[0].decode("utf-8")


def _page(examples: list[Path]) -> str:
    names = json.dumps([path.stem for path in examples])
    return _read("page.html").replace("EXAMPLES", names.replace('"', "&quot;"))


def _connect_programs(gr: Any, handlers: Handlers, line: Line) -> None:
    image, mask = gr.File(visible=False, label="image"), gr.File(visible=False, label="mask")
    variant = gr.Number(0, visible=False, label="variant")
    # Whatever a program sends reaches the handler, which refuses it in one line.
    variant.preprocess = lambda payload: payload
    result, button = gr.File(visible=False, label="result"), gr.Button(visible=False)
    button.click(
        _in_line(gr, handlers, line),
        [image, mask, variant],
        result,
        api_name="inpaint",
        concurrency_id="network",
        concurrency_limit=_PROGRAMS,
    )


def _in_line(gr: Any, handlers: Handlers, line: Line) -> Callable[..., str]:
    """A program's fill waits in the same line as the page's, and goes when the program does."""

    def fill(image: str, mask: str, variant: float | None, request: Any) -> str:
        job = Job(
            lambda: handlers.fill_for_program(image, mask, variant),
            _PROGRAM_WORK,
            owner=str(request.session_hash),
        )
        try:
            line.join(job)
            with line.watched(job):
                job.ended.wait()
            if job.error is not None:
                raise job.error
            if job.state == "cancelled":
                raise ValueError("the fill was stopped, because nobody waited for it")
        except Exception as error:
            message = handlers.explain(error)
            if message is None:
                raise
            raise gr.Error(message, print_exception=False) from None
        return str(job.result)

    # gradio passes the request to the parameter that is annotated so.
    fill.__annotations__ = {"request": gr.Request}
    fill.__doc__ = handlers.fill_for_program.__doc__
    return fill


def stop_for_those_who_left(blocks: Any, line: Line) -> None:
    """Stop the fills of programs that have closed their connection; gradio notices that."""
    queue = blocks._queue
    clean = queue.clean_events

    async def clean_events(*, session_hash: str | None = None, event_id: str | None = None) -> None:
        if session_hash is not None:
            line.cancel_all(session_hash)
        await clean(session_hash=session_hash, event_id=event_id)

    queue.clean_events = clean_events
