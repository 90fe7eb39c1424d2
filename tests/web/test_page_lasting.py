"""What the page keeps, whatever else happens meanwhile, and for whom it works.

Fills are quick here, and all gray.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from regionnorm.filling.expand import Margins
from regionnorm.filling.inpainter import Inpainter
from regionnorm.web.server import AppOptions, running

Held: Any = run_path(str(Path(__file__).with_name("held.py")))["Held"]
browsers = run_path(str(Path(__file__).with_name("browser.py")))
CHROMIUM = browsers["find_browser"]()
if CHROMIUM is None:
    pytest.skip(browsers["ADVICE"], allow_module_level=True)

PATIENCE = 120_000  # milliseconds; nothing takes that long on a computer that is not busy
GRAY = (90, 90, 90)
HISTORY = "regionnorm.web.visitors.HISTORY"


class Fill(Held):  # type: ignore[misc]
    """Fills with gray at once, unless a test holds it back."""

    def __call__(
        self,
        inpainter: Inpainter,
        photo: Path,
        mask: Path,
        folder: Path,
        variant: int = 0,
        margins: Margins | None = None,
    ) -> Path:
        self.wait()
        with Image.open(photo) as image:
            left, top, right, bottom = margins.pixels(image.size) if margins else (0, 0, 0, 0)
            size = (image.width + left + right, image.height + top + bottom)
            wide = Image.new("RGB", size, GRAY)
            wide.paste(image, (left, top))
        with Image.open(mask) as hole:
            wide.paste(GRAY, mask=hole.convert("L"))
        path = folder / f"{photo.stem}-filled.png"
        wide.save(path)
        return path


@pytest.fixture(scope="module")
def fill() -> Iterator[Fill]:
    with pytest.MonkeyPatch.context() as patch:
        made = Fill()
        patch.setattr("regionnorm.web.handlers.fill_file", made)
        yield made


@pytest.fixture(scope="module")
def address(fill: Fill) -> Iterator[str]:
    with running(Inpainter(method="exemplar"), AppOptions(port=0)) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Page]:
    """A window in which nothing is open yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    made = context.new_page()
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    yield made
    context.close()
    assert wrong == []


@pytest.fixture
def page(window: Page, address: str) -> Page:
    """The page, which fills only when told to."""
    window.goto(address)
    window.locator(".rn-app[data-ready]").wait_for()
    window.locator(".rn-auto input").uncheck()
    return window


def png(pixels: Image.Image, name: str) -> Any:
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def shown(page: Page, name: str) -> None:
    """Wait until the page is on a picture, and shows it."""
    page.wait_for_function(
        "name => regionnorm.timeline.picture?.name === name"
        " && regionnorm.view.layers?.number === regionnorm.timeline.picture.number"
        " && regionnorm.shown === regionnorm.timeline.picture",
        arg=name,
    )


def open_photos(page: Page, *names: str) -> None:
    for index, name in enumerate(names):
        photo = Image.new("RGB", (300, 200), (20 * index, 200, 40))
        page.locator(".rn-file").set_input_files(png(photo, name))
        shown(page, name)


def go_back(page: Page, name: str) -> None:
    page.locator(".rn-history button", has_text=name).last.click()
    shown(page, name)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the photo is in the window."""
    across, down = page.evaluate(
        """at => {
            const { view, stage } = regionnorm, box = stage.getBoundingClientRect();
            const [x, y] = view.toStage(at);
            return [x + box.left, y + box.top];
        }""",
        [x, y],
    )
    return across, down


def press(page: Page, *points: tuple[float, float]) -> None:
    """Begin a stroke along points of the photo, and do not let go."""
    for index, point in enumerate(points):
        page.mouse.move(*place(page, *point))
        if index == 0:
            page.mouse.down()


def paint(page: Page, *points: tuple[float, float]) -> None:
    press(page, *points)
    page.mouse.up()


def begin_fill(page: Page) -> None:
    page.keyboard.press("Control+Enter")
    page.wait_for_function("regionnorm.fills.running?.job")


def expand(page: Page, **sides: int) -> None:
    page.locator("[data-tool=expand]").click()
    for side, pixels in sides.items():
        page.locator(f".rn-margins input[name={side}]").fill(str(pixels))
        page.locator(f".rn-margins input[name={side}]").press("Enter")


def done(page: Page) -> list[str]:
    """What is in effect, as undo and redo see it."""
    kinds: list[str] = page.evaluate(
        """regionnorm.timeline.steps.slice(0, regionnorm.timeline.at)
            .map(({ kind, picture }) => picture?.name ?? kind)"""
    )
    return kinds


def decoded(data: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("L"))


# What `wholeMask` makes of the arguments, as text.
WHOLE_MASK = """async (...given) => {
    const { wholeMask } = await import(regionnorm.modules + 'mask.js');
    const bytes = new Uint8Array(await (await wholeMask(...given)).arrayBuffer());
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
}"""


def mask_of(page: Page) -> npt.NDArray[np.uint8]:
    timeline = "regionnorm.timeline.items, regionnorm.timeline.picture"
    data: str = page.evaluate(f"({WHOLE_MASK})({timeline}, regionnorm.view.masks)")
    return decoded(data)


# --- what the page keeps --------------------------------------------------------------------------


@pytest.fixture
def full(page: Page, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page with as many photos as the server keeps; the last one is painted on."""
    monkeypatch.setattr(HISTORY, 3)
    open_photos(page, "0.png", "1.png", "2.png")
    paint(page, (50, 50), (80, 50))
    return page


def test_what_is_painted_on_the_oldest_photo_stays_and_its_fills_are_undone(
    full: Page, fill: Fill
) -> None:
    page = full
    with fill.held():
        begin_fill(page)
        with page.expect_response("**/stay"):
            go_back(page, "0.png")
        paint(page, (50, 50), (80, 50))
        paint(page, (50, 150), (80, 150))
    expect(page.locator(".rn-history")).to_contain_text("2-filled.png")
    assert done(page)[-3:] == ["0.png", "stroke", "stroke"]
    names = page.locator(".rn-history span")
    assert names.all_text_contents() == ["2-filled.png", "2.png", "0.png"]
    for name in ("0-filled.png", "0-filled-2.png"):
        page.keyboard.press("Control+Enter")
        shown(page, name)
        paint(page, (150, 50), (180, 50))
    expect(names.first).to_have_text("0-filled-2.png")
    for _ in range(4):
        page.keyboard.press("Control+z")
    # It is no thumbnail any more, but what was filled.
    assert "0.png" not in names.all_text_contents()
    shown(page, "0.png")
    page.keyboard.press("Control+Enter")
    shown(page, "0-filled-3.png")


def test_photo_that_only_redo_leads_to_takes_no_other_with_it(full: Page, fill: Fill) -> None:
    page = full
    with fill.held():
        begin_fill(page)
        go_back(page, "0.png")
        with page.expect_response("**/stay"):
            page.keyboard.press("Control+z")
    expect(page.locator(".rn-history")).to_contain_text("2-filled.png")
    assert done(page) == ["1.png", "2.png", "stroke"]
    expect(page.locator("[data-do=redo]")).to_be_disabled()
    expect(page.locator(".rn-welcome")).to_be_hidden()


def test_stroke_under_the_hand_moves_with_a_border_that_is_filled(page: Page, fill: Fill) -> None:
    open_photos(page, "photo.png")
    expand(page, left=100)
    with fill.held():
        begin_fill(page)
        page.locator("[data-tool=brush]").click()
        press(page, (30, 100), (60, 100))
    shown(page, "photo-filled.png")
    x, y = place(page, 250, 100)
    page.mouse.move(x, y)
    page.mouse.up()
    assert done(page) == ["photo.png", "expand", "photo-filled.png", "stroke"]
    across = [x for x, _ in page.evaluate("regionnorm.timeline.items[0].points")]
    assert (min(across), max(across)) == pytest.approx((130, 160), abs=1)


@pytest.mark.parametrize("hand", ["mouse", "keyboard", "border"])
def test_what_is_under_the_hand_is_left_where_another_photo_comes(page: Page, hand: str) -> None:
    open_photos(page, "one.png", "two.png")
    if hand == "mouse":
        press(page, (30, 100), (60, 100))
    elif hand == "keyboard":
        page.locator(".rn-stage").focus()
        for key in ("Enter", "ArrowRight"):
            page.keyboard.press(key)
    else:
        page.keyboard.press("x")
        box = page.locator(".rn-handle[data-side=right]").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 50, box["y"])
        assert page.evaluate("regionnorm.frame.margins[2]") > 0
    page.evaluate("regionnorm.goTo(regionnorm.pictures.at(-1).number)")
    shown(page, "one.png")
    if hand == "keyboard":
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    else:
        page.mouse.up()
    assert done(page) == ["one.png", "two.png", "one.png"]


def test_mask_and_border_of_an_expansion_that_runs_move_with_the_photo(
    page: Page, fill: Fill
) -> None:
    open_photos(page, "photo.png")
    mask = Image.new("L", (300, 200))
    mask.paste(255, (20, 30, 70, 90))
    expand(page, left=50, top=10)
    with fill.held():
        begin_fill(page)
        page.locator(".rn-mask-file").set_input_files(png(mask, "mask.png"))
        page.wait_for_function("regionnorm.timeline.items.at(-1).kind === 'mask'")
        expand(page, left=60, right=20)
    shown(page, "photo-filled.png")
    before = ["photo.png", "expand", "expand"]
    assert done(page) == [*before, "photo-filled.png", "mask", "expand", "expand"]
    assert page.evaluate("regionnorm.timeline.margins") == [10, 0, 20, 0]
    for _ in range(2):
        moved = mask_of(page)
        assert moved.shape == (210, 350)
        assert (moved[10:, 50:] == np.asarray(mask)).all() and moved.sum() == np.asarray(mask).sum()
        page.reload()
        page.locator(".rn-app.rn-open").wait_for()
        page.wait_for_function("regionnorm.view.masks.size === 1")


def test_file_that_somebody_waits_for_comes_wherever_they_are(page: Page, fill: Fill) -> None:
    open_photos(page, "one.png")
    paint(page, (50, 50), (80, 50))
    with page.expect_download() as saved, fill.held():
        begin_fill(page)
        page.locator(".rn-download").click()
        expect(page.locator(".rn-download")).to_have_text("Saving…")
        open_photos(page, "two.png")
    assert saved.value.suggested_filename == "one-filled.png"
    paint(page, (50, 50), (80, 50))
    with page.expect_download() as saved, fill.held():
        begin_fill(page)
        page.locator(".rn-download").click()
        page.reload()
        expect(page.locator(".rn-download")).to_have_text("Saving…")
    assert saved.value.suggested_filename == "two-filled.png"


def test_undo_leaves_only_the_last_of_what_is_to_be_found(page: Page) -> None:
    open_photos(page, "photo.png")
    page.evaluate(
        """() => {
            const until = (signal) => new Promise((end) => signal.addEventListener('abort', end));
            for (const name of ['one', 'two', 'three']) regionnorm.finding.add(name, until);
        }"""
    )
    left = "regionnorm.finding.line.map((one) => one.words)"
    for names in (["one", "two"], ["one"]):
        page.keyboard.press("Control+z")
        assert page.evaluate(left) == names
    page.evaluate("void regionnorm.finding.add('four', () => new Promise(() => {}))")
    page.keyboard.press("Escape")
    assert page.evaluate(left) == []


# --- who does not see it, or has no mouse ---------------------------------------------------------


def test_time_that_is_left_is_seen_every_second_and_said_once_in_a_while(page: Page) -> None:
    told = page.evaluate(
        """() => {
            const { fills } = regionnorm;
            const tell = (state, left, later = 0) => {
                fills.said.at -= later;
                fills.tell({ state, left });
                const time = (one) => one.textContent.match(/about (.*?) s/)[1];
                return [time(fills.doing), time(fills.aloud)];
            };
            return [tell('waiting', 30), tell('running', 15), tell('running', 14),
                tell('running', 13), tell('running', 9, 5000)];
        }"""
    )
    assert told == [["30", "30"], ["15", "15"], ["14", "15"], ["13", "15"], ["9", "9"]]
    live = "one => [...one.querySelectorAll('[aria-live], [role=status]')].length"
    assert page.locator(".rn-progress").evaluate(live) == 1


def test_thumbnail_keeps_the_keyboard_when_a_fill_comes(
    page: Page, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HISTORY, 3)
    open_photos(page, "one.png", "two.png")
    paint(page, (50, 50), (80, 50))
    thumbnails = page.locator(".rn-history button")
    with fill.held():
        begin_fill(page)
        thumbnails.last.focus()
    expect(thumbnails).to_have_count(3)
    expect(thumbnails.last).to_be_focused()
    assert thumbnails.locator("span").all_text_contents() == [
        "two-filled.png",
        "two.png",
        "one.png",
    ]
    # Where it goes, its neighbour has it.
    open_photos(page, "three.png")
    expect(thumbnails.first).to_have_text("three.png")
    expect(thumbnails.last).to_be_focused()
    assert thumbnails.last.inner_text() == "two.png"


def test_keys_of_one_letter_can_be_turned_off_for_good(page: Page) -> None:
    open_photos(page, "photo.png")
    pressed = page.locator("[data-tool][aria-pressed=true]")
    page.keyboard.press("?")
    page.locator(".rn-keys input").uncheck()
    page.keyboard.press("Escape")
    for _ in range(2):
        for key in ("e", "?", "["):
            page.keyboard.press(key)
        expect(pressed).to_have_text("Brush")
        expect(page.locator(".rn-help")).to_be_hidden()
        page.reload()
        page.locator(".rn-app[data-ready]").wait_for()
    shown(page, "photo.png")
    paint(page, (50, 50), (80, 50))
    page.keyboard.press("Control+z")
    assert done(page) == ["photo.png"]
    page.locator(".rn-menu summary").click()
    page.locator("[data-do=help]").click()
    page.locator(".rn-keys input").check()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    expect(pressed).to_have_text("Eraser")


def test_caps_lock_changes_no_key_and_brackets_may_need_a_key_more(page: Page) -> None:
    def key(name: str, **modifiers: bool) -> None:
        page.evaluate(
            """options => document.body.dispatchEvent(
                new KeyboardEvent('keydown', { ...options, bubbles: true }))""",
            {"key": name, **modifiers},
        )

    open_photos(page, "photo.png")
    paint(page, (50, 50), (80, 50))
    # With Caps Lock a browser says Z, and z with Shift.
    key("Z", ctrlKey=True)
    assert done(page) == ["photo.png"]
    key("z", ctrlKey=True, shiftKey=True)
    assert done(page) == ["photo.png", "stroke"]
    key("Z", ctrlKey=True)
    key("Z", ctrlKey=True, shiftKey=True)
    assert done(page) == ["photo.png", "stroke"]
    key("E")
    expect(page.locator("[data-tool][aria-pressed=true]")).to_have_text("Eraser")
    key("b", altKey=True)  # the browser's own
    expect(page.locator("[data-tool][aria-pressed=true]")).to_have_text("Eraser")
    size = "Number(regionnorm.brush.value)"
    sizes = [page.evaluate(size)]
    for modifiers in (
        {"ctrlKey": True, "altKey": True, "modifierAltGraph": True},  # AltGr under Windows
        {"modifierAltGraph": True},  # and elsewhere
        {"altKey": True},  # Option
    ):
        key("[", **modifiers)
        sizes.append(page.evaluate(size))
    assert sizes == sorted(set(sizes), reverse=True)


# --- a server that is away, and photos that are large ---------------------------------------------


def test_page_that_was_opened_while_the_server_was_away_comes_later(
    window: Page, address: str
) -> None:
    said = window.locator(".rn-said[data-place=photo]")
    for expected in (["new.png"], ["new.png", "next.png"]):
        window.route(re.compile(r"/page/(visitors|[\w-]{32})$"), lambda route: route.abort())
        window.goto(address)
        window.locator(".rn-app[data-ready]").wait_for()
        expect(said).to_contain_text("cannot be reached")
        window.unroute_all()
        open_photos(window, expected[-1])
        expect(said).to_be_hidden()
        assert done(window) == expected
        assert window.locator(".rn-history button").count() == len(expected)
    window.reload()
    window.locator(".rn-app.rn-open").wait_for()
    assert done(window) == ["new.png", "next.png"]


def test_mask_of_a_large_photo_is_saved_without_a_canvas_that_phones_refuse(page: Page) -> None:
    sizes = page.evaluate(
        """async () => {
            const make = document.createElement.bind(document);
            const canvases = [];
            document.createElement = (name) => {
                const one = make(name);
                if (name === 'canvas') canvases.push(one);
                return one;
            };
            const photo = { width: 6000, height: 4000, canvas: [5016, 3344] };
            const points = [[1254, 836], [2508, 836]];
            const stroke = { kind: 'stroke', width: 200, soft: 0, points };
            const whole = WHOLE_MASK;
            regionnorm.saved = await whole([stroke], photo, new Map());
            regionnorm.fades = await whole([{ ...stroke, soft: 1 }], photo, new Map());
            document.createElement = make;
            return canvases.map((one) => one.width * one.height);
        }""".replace("WHOLE_MASK", WHOLE_MASK)
    )
    assert max(sizes) <= 4096 * 4096
    mask = decoded(page.evaluate("regionnorm.saved"))
    assert mask.shape == (4000, 6000)
    assert set(np.unique(mask)) == {0, 255}
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[0], rows[-1]) == pytest.approx((1000 - 120, 1000 + 120), abs=2)
    assert (columns[0], columns[-1]) == pytest.approx((1500 - 120, 3000 + 120), abs=2)
    assert mask[1000, 1500:3000].all()
    assert len(np.unique(decoded(page.evaluate("regionnorm.fades")))) > 20


def test_mask_that_cannot_be_saved_is_said(page: Page) -> None:
    open_photos(page, "photo.png")
    page.evaluate("HTMLCanvasElement.prototype.getContext = () => null")
    page.locator(".rn-menu summary").click()
    page.locator("[data-do=save]").click()
    expect(page.locator(".rn-said[data-place=photo]")).to_contain_text("The mask cannot be saved")
