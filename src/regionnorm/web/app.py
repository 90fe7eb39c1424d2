"""The page: its parts from top to bottom, and which handler each of them calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from regionnorm._extras import require
from regionnorm.web.guard import take_local_files_only, take_short_requests
from regionnorm.web.handlers import Handlers, polite
from regionnorm.web.session import Session

__all__ = ["build_app", "make_theme", "style"]

_TITLE = (
    "# Fill holes in photos\n"
    "Remove what is in the way, repair what is damaged. "
    "Pixels that you do not paint over stay exactly as they are."
)
_CHOOSE = "**1 · Choose a photo**, drop one below, paste it, or try an example"
_PAINT = "**2 · Paint over what should go**, a little beyond its edge, its shadow too"
_START = "**3 · Fill** what you painted"
_SHORTCUTS = """
<kbd>B</kbd> brush · <kbd>E</kbd> eraser · <kbd>[</kbd> <kbd>]</kbd> smaller, larger brush ·
<kbd>Ctrl</kbd>+<kbd>Z</kbd> undo · <kbd>Ctrl</kbd>+<kbd>Y</kbd> redo · <kbd>Delete</kbd> clear ·
<kbd>+</kbd> <kbd>-</kbd> zoom · <kbd>Ctrl</kbd>+<kbd>V</kbd> paste a photo ·
<kbd>Ctrl</kbd>+<kbd>Enter</kbd> fill
"""
_REGIONS = (
    "A learnable region normalisation layer (RN-L) sorts the pixels into two regions by itself and "
    "normalises each apart. Orange: the region that it found, and its share of the area."
)
# Longer than a visit; results are also removed some time after their visitor has left.
_CLEAN_EVERY, _CLEAN_AGE = 600, 6 * 3600


def style() -> str:
    """The page's style sheet."""
    return _read("editor.css")


def make_theme(gradio: Any) -> Any:
    """Colours, and fonts of the visitor's own system: nothing is fetched from elsewhere."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
    return gradio.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"],
    )


def build_app(handlers: Handlers) -> Any:
    """Lay out the page and connect it.

    Args:
        handlers: What its parts do.

    Returns:
        The ``gradio.Blocks``, which :func:`regionnorm.web.serve` launches.

    Raises:
        ImportError: gradio is not installed; the message is the command that installs it.
    """
    gr = require("gradio", extra="app")
    with gr.Blocks(
        title="regionnorm", analytics_enabled=False, delete_cache=(_CLEAN_EVERY, _CLEAN_AGE)
    ) as blocks:
        page = _layout(gr, handlers.examples)
        _connect_photo(gr, page, handlers)
        _connect_fill(gr, page, handlers)
        _connect_programs(gr, handlers)
    take_short_requests(blocks)
    for block in blocks.blocks.values():
        take_local_files_only(gr, block)
    return blocks


def _read(name: str) -> str:
    return files("regionnorm.web").joinpath(name).read_text(encoding="utf-8")


# --- layout --------------------------------------------------------------------------------------


def _layout(gr: Any, examples: list[Path]) -> SimpleNamespace:
    """Everything that is seen, from top to bottom."""
    page = SimpleNamespace()
    page.session = gr.State(None, delete_callback=_forget)
    page.photo, page.mask = gr.JSON(visible=False), gr.Textbox(visible=False)
    gr.Markdown(_TITLE, elem_id="rn-title")
    _lay_out_start(gr, page, examples)
    with gr.Tabs(selected="paint") as page.tabs:
        with gr.Tab("Paint", id="paint"):
            gr.Markdown(_PAINT, elem_classes="rn-step")
            gr.HTML(_read("editor.html"), js_on_load=_read("editor.js"), elem_id="rn-editor")
        with gr.Tab("Result", id="result"):
            _lay_out_result(gr, page)
        with gr.Tab("Regions", id="regions") as page.regions_tab:
            gr.Markdown(_REGIONS)
            page.regions_note = gr.Markdown()
            page.regions = _gallery(gr, columns=3, height="auto", elem_id="rn-regions")
    with gr.Row(elem_id="rn-finish"):
        page.status = gr.Markdown(_START, elem_id="rn-status", elem_classes="rn-step")
        page.fill = gr.Button("Fill", variant="primary", elem_id="rn-fill", min_width=120)
        page.download = gr.DownloadButton(
            "Download", interactive=False, elem_id="rn-download", min_width=120
        )
    with gr.Accordion("Masks and keyboard shortcuts", open=False, elem_id="rn-more"):
        with gr.Row():
            page.load_mask = gr.UploadButton("Load a mask", file_types=["image"], size="sm")
            page.find = gr.Button("Find scratches", size="sm", elem_id="rn-find")
            page.save_mask = gr.Button("Save the mask", size="sm", elem_id="rn-save-mask")
        gr.Markdown("A mask is an image of the photo's size, white where the hole is.")
        gr.Markdown(_SHORTCUTS)
    return page


def _lay_out_start(gr: Any, page: SimpleNamespace, examples: list[Path]) -> None:
    with gr.Row(elem_id="rn-start"):
        with gr.Column(scale=3, min_width=260):
            gr.Markdown(_CHOOSE, elem_classes="rn-step")
            page.upload = gr.UploadButton("Choose a photo", file_types=["image"])
        with gr.Column(scale=4, min_width=260):
            page.examples = _gallery(
                gr,
                [str(path) for path in examples],
                columns=len(examples),
                height=96,
                elem_id="rn-examples",
            )


def _lay_out_result(gr: Any, page: SimpleNamespace) -> None:
    page.slider = gr.ImageSlider(
        label="Before | after",
        type="filepath",
        format="png",
        interactive=False,
        max_height=500,
        buttons=["fullscreen"],
        elem_id="rn-slider",
    )
    with gr.Row():
        page.another = gr.Button("Another", size="sm", interactive=False, elem_id="rn-another")
        page.again = gr.Button("Go on painting on this result", size="sm", interactive=False)
    gr.Markdown("Your last fills; click one to go back to it.")
    page.history = _gallery(gr, columns=8, height=120, elem_id="rn-history")


def _gallery(gr: Any, value: list[str] | None = None, **options: Any) -> Any:
    defaults = {"rows": 1, "object_fit": "cover", "allow_preview": False, "show_label": False}
    return gr.Gallery(value, interactive=False, buttons=[], **(defaults | options))


def _forget(session: Session | None) -> None:
    if session is not None:
        session.delete()


# --- events --------------------------------------------------------------------------------------

# Handlers of the page itself are no endpoints; programs have one of their own.
_PAGE: dict[str, Any] = {"api_visibility": "private"}
# One at a time: a fill takes all cores, and the memory of one photo is the bound.
_NETWORK: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
_OPEN = "async (photo) => { await window.regionnorm.open(photo); }"
_ADD_MASK = "async (url) => { await window.regionnorm.addMask(url); }"
_TAKE_MASK = "async (_, session) => [await window.regionnorm.mask(), session]"


def _connect_photo(gr: Any, page: SimpleNamespace, handlers: Handlers) -> None:
    wrap = partial(polite, gr, handlers.store)
    opened = [page.session, page.photo, page.tabs, page.status]

    def open_with(handler: Callable[..., tuple[Session, dict[str, Any]]]) -> Callable[..., Any]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            return (
                *wrap(handler)(*arguments),
                gr.Tabs(selected="paint"),
                _START,
            )

        return call

    sources = [
        page.upload.upload(
            open_with(handlers.open_photo), [page.upload, page.session], opened, **_PAGE
        ),
        page.again.click(open_with(handlers.open_result), [page.session], opened, **_PAGE),
        page.examples.select(
            _with_index(gr, open_with(handlers.open_example)), [page.session], opened, **_PAGE
        ),
    ]
    for source in sources:
        source.success(None, [page.photo], None, js=_OPEN, **_PAGE)

    def load_mask(path: str | None, session: Session | None) -> str:
        url, warnings = handlers.load_mask(path, session)
        for line in warnings:
            gr.Warning(line)
        return url

    for painted in (
        page.load_mask.upload(
            wrap(load_mask), [page.load_mask, page.session], [page.mask], **_PAGE
        ),
        page.find.click(wrap(handlers.find_scratches), [page.session], [page.mask], **_PAGE),
    ):
        painted.success(None, [page.mask], None, js=_ADD_MASK, **_PAGE)
    page.save_mask.click(None, None, None, js="() => window.regionnorm.saveMask()", **_PAGE)


def _with_index(gr: Any, handler: Callable[..., Any]) -> Callable[..., Any]:
    def select(session: Any, event: Any) -> Any:
        return handler(event.index, session)

    # gradio passes the click's details to the parameter that is annotated so.
    select.__annotations__ = {"event": gr.SelectData}
    return select


def _connect_fill(gr: Any, page: SimpleNamespace, handlers: Handlers) -> None:
    wrap = partial(polite, gr, handlers.store)
    shown = [page.session, page.slider, page.download, page.history, page.another, page.again]
    shown += [page.tabs, page.status]

    def show(session: Session) -> tuple[Any, ...]:
        result = handlers.shown(session).result
        return (
            session,
            handlers.comparison(session),
            gr.DownloadButton(
                f"Download {result.suffix[1:].upper()}", str(result), interactive=True
            ),
            handlers.history(session),
            gr.Button(interactive=True),
            gr.Button(interactive=True),
            gr.Tabs(selected="result"),
            _shown_note(session),
        )

    def fill(mask: str, session: Session | None) -> tuple[Any, ...]:
        return show(handlers.fill(mask, session))

    def another(session: Session | None) -> tuple[Any, ...]:
        return show(handlers.another(session))

    def go_back(index: int, session: Session | None) -> tuple[Any, ...]:
        return show(handlers.go_back(index, session))

    slow = {"show_progress_on": [page.status], **_PAGE, **_NETWORK}
    page.fill.click(wrap(fill), [page.mask, page.session], shown, js=_TAKE_MASK, **slow)
    page.another.click(wrap(another), [page.session], shown, **slow)
    page.history.select(_with_index(gr, wrap(go_back)), [page.session], shown, **_PAGE)
    page.regions_tab.select(
        wrap(handlers.regions),
        [page.session],
        [page.regions, page.regions_note],
        **_PAGE,
        **_NETWORK,
    )


def _shown_note(session: Session) -> str:
    """What the page says of the fill that it shows."""
    if session.shown is session.fills[0]:
        return "**Done.** Drag the line to compare; paint more and fill again, or download."
    return (
        "**An earlier fill.** Drag the line to compare, download it, or press "
        "*Go on painting on this result*."
    )


def _connect_programs(gr: Any, handlers: Handlers) -> None:
    wrap = partial(polite, gr, handlers.store)
    image, mask = gr.File(visible=False, label="image"), gr.File(visible=False, label="mask")
    variant = gr.Number(0, visible=False, label="variant")
    # Whatever a program sends reaches the handler, which refuses it in one line.
    variant.preprocess = lambda payload: payload
    result, button = gr.File(visible=False, label="result"), gr.Button(visible=False)
    button.click(
        wrap(handlers.fill_for_program),
        [image, mask, variant],
        result,
        api_name="inpaint",
        **_NETWORK,
    )
