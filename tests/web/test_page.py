"""The page in a real browser: by mouse, by touch and by keyboard alone."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask
from regionnorm.web.examples import write_examples
from regionnorm.web.server import AppOptions, running

Maker = Callable[..., Image.Image]
Point = tuple[float, float]

stripping_proxy = run_path(str(Path(__file__).with_name("proxy.py")))["stripping_proxy"]
Held: Any = run_path(str(Path(__file__).with_name("held.py")))["Held"]
browsers = run_path(str(Path(__file__).with_name("browser.py")))
CHROMIUM = browsers["find_browser"]()
if CHROMIUM is None:
    pytest.skip(browsers["ADVICE"], allow_module_level=True)

PATIENCE = 120_000  # milliseconds; nothing takes that long on a computer that is not busy
PHONE: dict[str, Any] = {"width": 390, "height": 844}


class Fill(Held):  # type: ignore[misc]
    """The app's inpainter; a test may hold it back."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.own = Inpainter(weights, method="network")
        self.model = self.own.model

    def fill_photo(self, *arguments: Any, **named: Any) -> Any:
        self.wait()
        return self.own.fill_photo(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


@pytest.fixture(scope="module")
def fill(small_weights: Path) -> Fill:
    return Fill(small_weights)


@pytest.fixture(scope="module")
def address(fill: Fill) -> Iterator[str]:
    with running(fill, AppOptions(port=0)) as (_, url):  # type: ignore[arg-type]
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def visit(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.locator(".rn-app[data-ready]").wait_for()
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with visit(browser, address) as made:
        yield made


def open_photo(page: Page, path: Path) -> None:
    before = page.evaluate("regionnorm.pictures.length")
    page.locator(".rn-file").set_input_files(path)
    page.wait_for_function(
        f"regionnorm.pictures.length > {before} && regionnorm.timeline.picture"
        " && regionnorm.view.layers?.number === regionnorm.timeline.picture.number"
    )


def place(page: Page, *points: Point) -> list[Point]:
    """Where points, given as shares of the photo's width and height, are in the window."""
    box = page.locator(".rn-stage").bounding_box()
    assert box
    x, y, scale, width, height = page.evaluate(
        "(({ x, y, scale, size }) => [x, y, scale, ...size])(regionnorm.view)"
    )
    return [
        (box["x"] + x + across * width * scale, box["y"] + y + down * height * scale)
        for across, down in points
    ]


def paint(page: Page, *points: Point) -> None:
    """Drag the mouse along points given as shares of the photo's width and height."""
    for index, (x, y) in enumerate(place(page, *points)):
        page.mouse.move(x, y, steps=4)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def settle(page: Page, fills: int) -> None:
    """Wait until there are so many fills, and none on its way."""
    page.wait_for_function(
        f"regionnorm.pictures.filter((one) => one.box).length === {fills}"
        " && !regionnorm.fills.running"
    )


def until_it_fills(page: Page) -> None:
    """Wait until a fill is on its way, and the server has said which."""
    page.wait_for_function("regionnorm.fills.running?.job")


def by_hand(page: Page) -> None:
    """Fill only when told to."""
    page.locator(".rn-auto input").uncheck()


def download(page: Page, folder: Path, button: str = ".rn-download") -> Path:
    with page.expect_download() as started:
        page.locator(button).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def menu(page: Page, name: str) -> None:
    page.locator(".rn-menu summary").click()
    page.locator(f"[data-do={name}]").click()


def mask_of(page: Page) -> npt.NDArray[np.bool_]:
    """The mask as the page would send it."""
    made = page.evaluate(
        """async () => {
            const { picture, items } = regionnorm.timeline;
            const mask = await import(regionnorm.modules + 'mask.js');
            const blob = await mask.wholeMask(items, picture, regionnorm.view.masks);
            const bytes = new Uint8Array(await blob.arrayBuffer());
            return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
        }"""
    )
    hole: npt.NDArray[np.bool_] = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(made))).convert("L")) > 127
    )
    return hole


def steps(page: Page) -> list[str]:
    """What is in effect, as undo and redo see it."""
    kinds: list[str] = page.evaluate(
        "regionnorm.timeline.steps.slice(0, regionnorm.timeline.at).map((step) => step.kind)"
    )
    return kinds


def view_of(page: Page) -> list[float]:
    seen: list[float] = page.evaluate("(({ x, y, scale }) => [x, y, scale])(regionnorm.view)")
    return seen


def with_letters(photo: Image.Image) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """A photo with a date stamp, and where its letters are."""
    drawn = Image.new("L", photo.size)
    at = (photo.width // 2, photo.height - 50)
    ImageDraw.Draw(drawn).text(at, "24.12.1998", 255, ImageFont.load_default(30))
    photo.paste((255, 150, 30), mask=drawn)
    return photo, np.asarray(drawn) > 127


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(read_image(path))


@pytest.fixture
def photo(tmp_path: Path, make_photo: Maker) -> Path:
    path = tmp_path / "photo.png"
    make_photo(300, 200).save(path)
    return path


# --- from the open page to the saved file --------------------------------------------------------


def test_two_objects_are_gone_after_four_actions_and_each_mask_leaves_once(
    page: Page, address: str, tmp_path: Path, fill: Fill
) -> None:
    requests: list[Any] = []
    page.on("request", lambda request: requests.append(request))
    example = write_examples(tmp_path / "examples")[0]
    # 1: the photo. 2: an object. 3: another one. 4: save; it waits for what is on its way.
    page.locator(".rn-examples button").first.click()
    page.wait_for_function("regionnorm.view.layers")
    paint(page, (0.3, 0.4), (0.4, 0.5))
    one = mask_of(page)
    paint(page, (0.7, 0.15), (0.8, 0.15))
    both = page.evaluate("regionnorm.timeline.items.length + regionnorm.pictures.length")
    result = download(page, tmp_path)

    assert both >= 2
    assert result.name == "coffee-filled-2.png"
    before, after = pixels(example), pixels(result)
    changed = (before != after).any(axis=2)
    assert changed[one].mean() > 0.9
    assert changed[60, 420:480].mean() > 0.9  # the other stroke
    assert changed.mean() < 0.1
    first = fill.own(read_image(example), one)
    assert (np.asarray(first)[one] == after[one]).all()

    sent = [request for request in requests if "/fills" in request.url]
    assert len(sent) == 2
    assert all(len(request.post_data_buffer or b"") < 3000 for request in sent)
    # Nothing came from anywhere else.
    urls = [request.url for request in requests]
    assert [url for url in urls if not url.startswith((address, "data:", "blob:"))] == []
    # The thumbnails name them.
    assert page.locator(".rn-history span").all_text_contents() == [
        "coffee-filled-2.png",
        "coffee-filled.png",
        "coffee.png",
    ]


def test_a_download_waits_for_what_was_painted_while_a_fill_came(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    # The fill is shown, but what the server keeps is not yet told.
    page.evaluate(
        """() => {
            const { server } = regionnorm;
            const ask = server.ask.bind(server);
            const held = new Promise((done) => (regionnorm.goOn = done));
            server.ask = async (method, path, ...rest) => {
                if (!path) await held;
                return ask(method, path, ...rest);
            };
        }"""
    )
    with fill.held():
        paint(page, (0.2, 0.3), (0.25, 0.3))
        paint(page, (0.7, 0.7), (0.75, 0.7))
    page.wait_for_function("regionnorm.timeline.filled")
    with page.expect_download() as started:
        page.locator(".rn-download").click()
        page.evaluate("regionnorm.goOn()")
    assert started.value.suggested_filename == "photo-filled-2.png"
    assert steps(page) == ["picture", "stroke", "picture", "stroke", "picture"]


def test_a_download_that_waits_is_given_up_with_the_fill(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    button = page.locator(".rn-download")
    saved: list[Any] = []
    page.on("download", lambda download: saved.append(download))
    with fill.held():
        paint(page, (0.2, 0.3), (0.25, 0.3))
        button.click()
        expect(button).to_have_text("Saving…")
        page.keyboard.press("Escape")
        expect(button).to_have_text("Download")
        page.keyboard.press("Control+Enter")
    settle(page, 1)
    page.wait_for_timeout(200)
    assert saved == []
    # More of the same object is painted: the fill begins anew, and is saved.
    with page.expect_download() as kept, fill.held():
        paint(page, (0.7, 0.7), (0.75, 0.7))
        button.click()
        paint(page, (0.75, 0.7), (0.8, 0.7))
        expect(button).to_have_text("Saving…")
    assert kept.value.suggested_filename == "photo-filled-2.png"
    expect(button).to_have_text("Download")


@pytest.mark.parametrize(("width", "height"), [(333, 517), (1701, 205)])
def test_mask_and_result_have_the_photos_size_whatever_is_shown(
    page: Page, tmp_path: Path, make_photo: Maker, width: int, height: int
) -> None:
    path = tmp_path / "odd.jpg"
    make_photo(width, height).save(path, quality=90)
    open_photo(page, path)
    by_hand(page)
    page.keyboard.press("+")
    paint(page, (0.45, 0.45), (0.5, 0.5))
    page.locator(".rn-menu summary").click()
    mask = read_mask(download(page, tmp_path, "[data-do=save]"))
    assert mask.shape == (height, width)
    assert (mask_of(page) == mask).all() and mask.any()
    page.locator("[data-do=fill]").click()
    settle(page, 1)
    with Image.open(download(page, tmp_path)) as result:
        assert (result.format, result.size) == ("JPEG", (width, height))


# --- the view ------------------------------------------------------------------------------------


def test_wheel_zooms_to_the_cursor_space_pans_and_a_fill_leaves_the_view(
    page: Page, photo: Path
) -> None:
    open_photo(page, photo)
    by_hand(page)
    stage = page.locator(".rn-stage").bounding_box()
    assert stage and stage["height"] > 680  # of 800
    [target] = place(page, (0.8, 0.3))
    page.mouse.move(*target)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"regionnorm.view.scale > {view_of(page)[2]} * 0.99")
    [there] = place(page, (0.8, 0.3))
    assert there == pytest.approx(target, abs=1)
    x, y, scale = view_of(page)
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(target[0] - 70, target[1] + 40, steps=3)
    page.mouse.up()
    page.keyboard.up(" ")
    assert view_of(page) == pytest.approx([x - 70, y + 40, scale])
    assert steps(page) == ["picture"]
    seen = view_of(page)
    paint(page, (0.7, 0.4), (0.75, 0.5))
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    assert view_of(page) == seen
    page.keyboard.press("0")
    assert page.evaluate("regionnorm.view.fitted")


def test_large_photos_are_drawn_only_where_they_are_seen(
    page: Page, tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(400, 300).resize((4000, 3000)).save(tmp_path / "large.jpg", quality=60)
    open_photo(page, tmp_path / "large.jpg")
    canvases = page.locator(".rn-stage canvas")
    sizes = canvases.evaluate_all("all => all.map((one) => one.width * one.height)")
    assert max(sizes) <= 1280 * 800
    assert page.evaluate("regionnorm.view.layers.small.width") == 2048
    assert not page.evaluate("Boolean(regionnorm.view.layers.whole)")
    # Every pixel is there for who looks closely.
    page.evaluate("regionnorm.view.zoom(8)")
    page.wait_for_function("regionnorm.view.layers.whole?.width === 4000")


# --- touch ---------------------------------------------------------------------------------------


class Fingers:
    """Fingers on the photo, at shares of the stage."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)
        self.box = page.locator(".rn-stage").bounding_box() or {}

    def send(self, kind: str, *points: Point) -> None:
        box = self.box
        touches = [
            {
                "x": box["x"] + x * box["width"],
                "y": box["y"] + y * box["height"],
                "id": number,
            }
            for number, (x, y) in enumerate(points)
        ]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def drag(self, *ways: tuple[Point, Point], steps: int = 6) -> None:
        starts = [start for start, _ in ways]
        for count in range(1, len(starts) + 1):  # one finger lands after the other
            self.send("touchStart", *starts[:count])
        for step in range(1, steps + 1):
            share = step / steps
            self.send(
                "touchMove",
                *((a + (c - a) * share, b + (d - b) * share) for (a, b), (c, d) in ways),
            )
        self.send("touchEnd")

    def tap(self, point: Point) -> None:
        self.send("touchStart", point)
        self.send("touchEnd")


def test_one_finger_paints_two_zoom_and_pan_and_a_double_tap_fits(
    browser: Browser, address: str, photo: Path
) -> None:
    with visit(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        open_photo(page, photo)
        by_hand(page)
        fingers = Fingers(page)
        x, y, scale = view_of(page)
        middle = page.evaluate("regionnorm.view.toPhoto(195, regionnorm.view.height / 2)")
        fingers.drag(((0.4, 0.5), (0.2, 0.5)), ((0.6, 0.5), (0.8, 0.5)))
        assert view_of(page)[2] == pytest.approx(3 * scale, rel=0.05)
        there = page.evaluate("regionnorm.view.toPhoto(195, regionnorm.view.height / 2)")
        assert there == pytest.approx(middle, abs=4)
        x, y, scale = view_of(page)
        fingers.drag(((0.4, 0.5), (0.5, 0.6)), ((0.6, 0.5), (0.7, 0.6)))
        moved = view_of(page)
        assert moved == pytest.approx(
            [x + 0.1 * fingers.box["width"], y + 0.1 * fingers.box["height"], scale], rel=0.02
        )
        assert steps(page) == ["picture"]  # nothing was painted

        fingers.tap((0.5, 0.5))
        fingers.tap((0.5, 0.5))
        assert page.evaluate("regionnorm.view.fitted")
        page.wait_for_timeout(400)
        assert steps(page) == ["picture"]

        fingers.drag(((0.3, 0.5), (0.6, 0.5)))
        assert steps(page) == ["picture", "stroke"]
        fingers.tap((0.5, 0.45))
        page.wait_for_function("regionnorm.timeline.steps.length === 3")
        # All that is offered can be reached, and is large enough for a thumb.
        buttons = page.locator(".rn-bar button:visible")
        for box in (button.bounding_box() for button in buttons.all()):
            assert box and box["height"] >= 36
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844


# --- keyboard ------------------------------------------------------------------------------------


def test_keyboard_alone_chooses_paints_fills_compares_and_saves(page: Page, tmp_path: Path) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    tab_to("[data-example='3']")
    page.keyboard.press("Enter")
    page.wait_for_function("regionnorm.view.layers")
    tab_to(".rn-auto input")
    page.keyboard.press(" ")
    page.keyboard.press("]")
    page.evaluate("document.activeElement.blur()")
    tab_to(".rn-stage")
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Enter", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    stroke = mask_of(page)
    assert 0 < stroke.mean() < 0.1
    expect(page.locator(".rn-size")).to_contain_text("painted")
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    assert steps(page) == ["picture", "stroke", "picture"]
    page.keyboard.down("c")
    assert page.evaluate("regionnorm.view.holdsBefore")
    page.keyboard.up("c")
    assert not page.evaluate("regionnorm.view.holdsBefore")
    page.keyboard.press("?")
    expect(page.locator(".rn-help")).to_be_visible()
    page.keyboard.press("Escape")
    with page.expect_download() as saved:
        page.keyboard.press("Control+s")
    assert saved.value.suggested_filename == "rocket-filled.png"


def test_control_and_enter_fill_and_escape_leaves_wherever_the_hand_is(
    page: Page, photo: Path
) -> None:
    open_photo(page, photo)
    by_hand(page)
    # Escape closes a menu, and whoever was in it is at its button again.
    for name in (".rn-find", ".rn-edge", ".rn-menu"):
        page.locator(f"{name} summary").focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"{name} .rn-list")).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(page.locator(f"{name} .rn-list")).to_be_hidden()
        expect(page.locator(f"{name} summary")).to_be_focused()
    # It drops a stroke, and a border that is being drawn.
    [at, to] = place(page, (0.3, 0.3), (0.5, 0.4))
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(*to)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert steps(page) == ["picture"]
    page.keyboard.press("x")
    x, y = handle_at(page, "right")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=3)
    assert page.evaluate("regionnorm.frame.margins[2]") > 0
    page.keyboard.press("Escape")
    page.mouse.move(x + 80, y)
    page.mouse.up()
    assert steps(page) == ["picture"]
    assert page.evaluate("regionnorm.frame.margins") == [0, 0, 0, 0]
    field = page.locator(".rn-margins input[name=left]")
    # What was typed goes first; only then is anything else stopped.
    page.evaluate("stops = 0; regionnorm.controls.escape = () => stops++; null")
    field.fill("70")
    field.press("Escape")
    expect(field).to_have_value("0")
    assert page.evaluate("stops") == 0
    field.press("Escape")
    assert page.evaluate("stops") == 1
    field.fill("40")
    field.press("Control+Enter")
    page.wait_for_function("regionnorm.timeline.picture.width === 340")


@pytest.mark.parametrize(
    ("side", "more", "less"),
    [
        ("left", ("ArrowLeft", "ArrowUp"), ("ArrowRight", "ArrowDown")),
        ("right", ("ArrowRight", "ArrowUp"), ("ArrowLeft", "ArrowDown")),
        ("top", ("ArrowUp", "ArrowRight"), ("ArrowDown", "ArrowLeft")),
        ("bottom", ("ArrowDown", "ArrowRight"), ("ArrowUp", "ArrowLeft")),
    ],
)
def test_handles_are_sliders_whose_border_goes_where_the_arrow_points(
    page: Page,
    tmp_path: Path,
    make_photo: Maker,
    side: str,
    more: tuple[str, str],
    less: tuple[str, str],
) -> None:
    make_photo(100, 100).save(tmp_path / "square.png")
    open_photo(page, tmp_path / "square.png")
    page.keyboard.press("x")
    handle = page.locator(f".rn-handle[data-side={side}]")
    for key, amount in (
        (more[0], 2),
        (more[1], 4),
        (less[0], 2),
        (less[1], 0),
        (less[0], 0),
        ("PageUp", 10),
        (f"Shift+{more[0]}", 20),
        ("PageDown", 10),
        ("End", 100),
        ("PageUp", 100),
        ("Home", 0),
    ):
        handle.press(key)
        expect(handle).to_have_attribute("aria-valuenow", str(amount))
    # One step for all presses until the handle is left.
    handle.blur()
    handle.press(more[0])
    handle.press(more[1])
    for amount in (0, 0):
        page.keyboard.press("Control+z")
        expect(handle).to_have_attribute("aria-valuenow", str(amount))
    assert steps(page) == ["picture"]


def test_eraser_undo_redo_clear_and_shortcuts(page: Page, photo: Path) -> None:
    open_photo(page, photo)
    by_hand(page)
    assert not mask_of(page).any()
    paint(page, (0.2, 0.5), (0.8, 0.5))
    stroke = mask_of(page)
    page.keyboard.press("e")
    paint(page, (0.5, 0.2), (0.5, 0.8))
    erased = mask_of(page)
    assert stroke[100, 150] and not erased[100, 150] and erased[100, 70]
    page.keyboard.press("Control+z")
    assert (mask_of(page) == stroke).all()
    page.keyboard.press("Control+y")
    assert (mask_of(page) == erased).all()
    page.keyboard.press("Delete")
    assert not mask_of(page).any()
    page.locator("[data-do=undo]").click()
    assert (mask_of(page) == erased).all()
    page.locator("[data-do=clear]").click()
    for _ in range(6):
        page.keyboard.press("[")
    page.keyboard.press("b")
    paint(page, (0.2, 0.5), (0.8, 0.5))
    assert 0 < mask_of(page).sum() < stroke.sum() / 2


# --- selecting ------------------------------------------------------------------------------------


@pytest.fixture
def thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo, 300x200, with a blue thing from (100, 60) to (200, 140)."""
    monkeypatch.setenv("REGIONNORM_SEGMENTER", "")
    pixels = np.full((200, 300, 3), (190, 180, 160), np.uint8)
    pixels[60:140, 100:200] = (40, 80, 150)
    path = tmp_path / "thing.png"
    Image.fromarray(pixels).save(path)
    return path


def selected(page: Page, count: int) -> npt.NDArray[np.bool_]:
    page.wait_for_function(
        f"regionnorm.timeline.items.length === {count}"
        " && !regionnorm.finding.line.length && !regionnorm.view.stroke"
    )
    return mask_of(page)


def test_stroke_or_loop_selects_the_object_grows_and_is_undone(page: Page, thing: Path) -> None:
    open_photo(page, thing)
    by_hand(page)
    grow = page.locator(".rn-grow input")
    expect(grow).to_be_hidden()
    page.keyboard.press("s")
    expect(grow).to_be_visible()
    grow.fill("0")
    page.locator(".rn-brush input").fill("120")
    paint(page, (0.42, 0.45), (0.6, 0.55))
    found = selected(page, 1)
    assert found[60:140, 100:200].mean() > 0.99 and found.sum() < 8100
    assert steps(page) == ["picture", "mask"]
    # The slider changes what was selected last, in its place.
    grow.fill("20")
    page.wait_for_function("regionnorm.timeline.items[0].grown === 20")
    assert selected(page, 1).sum() == pytest.approx(112 * 92, rel=0.02)
    page.keyboard.press("Control+z")
    assert not mask_of(page).any()
    # Around it, instead of over it.
    grow.fill("0")
    page.keyboard.press("[")
    page.locator(".rn-brush input").fill("12")
    around = [(0.3, 0.25), (0.7, 0.24), (0.71, 0.76), (0.3, 0.75), (0.3, 0.27)]
    paint(page, *around)
    assert (selected(page, 1) == found).mean() > 0.99
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    assert steps(page) == ["picture", "mask", "picture"]


def test_object_is_selected_by_touch_and_by_keyboard_and_filled_at_once(
    browser: Browser, address: str, thing: Path
) -> None:
    with visit(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        open_photo(page, thing)
        page.locator("[data-tool=select]").tap()
        boxes = [one.bounding_box() for one in page.locator(".rn-bar button:visible").all()]
        assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        Fingers(page).drag(((0.42, 0.48), (0.6, 0.52)))
        settle(page, 1)
        assert steps(page) == ["picture", "mask", "picture"]
    with visit(browser, address) as page:
        open_photo(page, thing)
        by_hand(page)
        page.locator(".rn-stage").focus()
        for key in ("s", "Enter", "Enter"):  # a click, in the middle
            page.keyboard.press(key)
        found = selected(page, 1)
        assert found[65:135, 105:195].mean() > 0.95 and found.mean() < 0.16


def test_growth_set_during_or_after_an_automatic_fill_fills_the_grown_object_anew(
    page: Page, thing: Path, fill: Fill
) -> None:
    open_photo(page, thing)
    page.keyboard.press("s")
    grow = page.locator(".rn-grow input")
    grow.fill("0")
    page.locator(".rn-brush input").fill("120")
    with fill.held():
        paint(page, (0.42, 0.45), (0.6, 0.55))
        until_it_fills(page)
        grow.fill("20")
        page.wait_for_function("regionnorm.timeline.items[0]?.grown === 20")
    settle(page, 1)
    box = "regionnorm.timeline.picture.box"
    assert steps(page) == ["picture", "mask", "picture"]
    assert page.evaluate(box)[:2] == pytest.approx([94, 54], abs=1)
    grow.fill("0")
    settle(page, 2)
    # One step of the history, as if it had been so from the beginning.
    assert steps(page) == ["picture", "mask", "picture"]
    assert page.evaluate(box)[:2] == pytest.approx([100, 60], abs=2)
    assert not page.evaluate("regionnorm.timeline.canRedo")
    page.locator("[data-do=undo]").click()
    assert mask_of(page).sum() == pytest.approx(8000, rel=0.02)
    page.locator("[data-do=undo]").click()
    assert not mask_of(page).any()


def test_growth_leaves_what_was_filled_by_hand_and_what_is_not_the_last(
    page: Page, thing: Path
) -> None:
    open_photo(page, thing)
    by_hand(page)
    page.keyboard.press("s")
    paint(page, (0.42, 0.45), (0.6, 0.55))
    selected(page, 1)
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".rn-grow input").fill("20")
    page.locator(".rn-auto input").check()
    page.keyboard.press("b")
    paint(page, (0.05, 0.05), (0.1, 0.05))
    settle(page, 2)
    page.keyboard.press("s")
    page.locator(".rn-grow input").fill("10")
    page.wait_for_timeout(50)
    assert [url for url in asked if "selections" in url] == []


# --- what is found --------------------------------------------------------------------------------


def find(page: Page, what: str) -> None:
    page.locator(".rn-find summary").click()
    page.locator(f"[data-do={what}]").click()


def test_finds_go_one_after_the_other_are_said_and_filled_when_they_have_come(
    page: Page, thing: Path, search: Any
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_photo(page, thing)
    by_hand(page)
    find(page, "scratches")
    said = page.locator(".rn-finding [role=status]")
    expect(said).to_have_text("Looking for scratches…")
    button = page.locator(".rn-find summary")
    expect(button).to_have_attribute("title", "This is being looked for already")
    expect(button).to_have_attribute("aria-disabled", "true")
    button.click()
    expect(page.locator(".rn-find .rn-list")).to_be_hidden()
    for name in ("scratches", "text"):
        expect(page.locator(f"[data-do={name}]")).to_be_disabled()
    page.keyboard.press("s")
    for _ in range(2):
        paint(page, (0.42, 0.45), (0.6, 0.55))
    expect(said).to_have_text("Looking for scratches… · 2 more after it")
    page.keyboard.press("Control+Enter")
    assert len([url for url in asked if "rule=" in url or "selections" in url]) == 1
    search.go_on.set()
    settle(page, 1)
    assert steps(page) == ["picture", "mask", "mask", "mask", "picture"]
    expect(page.locator(".rn-finding")).to_be_hidden()
    expect(button).to_have_attribute("aria-disabled", "false")
    expect(page.locator("[data-do=text]")).to_be_enabled()


def test_what_is_being_found_is_left_by_escape(page: Page, thing: Path, search: Any) -> None:
    open_photo(page, thing)
    find(page, "text")
    expect(page.locator(".rn-finding")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".rn-finding")).to_be_hidden()
    find(page, "scratches")
    search.go_on.set()
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    assert steps(page) == ["picture", "mask"]
    expect(page.locator(".rn-said:visible")).to_have_count(0)


def test_undo_leaves_what_is_being_found_before_anything_else(
    page: Page, thing: Path, search: Any
) -> None:
    open_photo(page, thing)
    page.keyboard.press("s")
    paint(page, (0.42, 0.45), (0.6, 0.55))
    expect(page.locator(".rn-finding")).to_be_visible()
    page.locator("[data-do=undo]").click()
    expect(page.locator(".rn-finding")).to_be_hidden()
    page.keyboard.press("b")
    paint(page, (0.8, 0.85), (0.85, 0.85))
    settle(page, 1)
    page.keyboard.press("s")
    paint(page, (0.42, 0.45), (0.6, 0.55))
    expect(page.locator(".rn-finding")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(page.locator(".rn-finding")).to_be_hidden()
    search.go_on.set()
    page.wait_for_timeout(300)
    assert steps(page) == ["picture", "stroke", "picture"]


def test_mask_that_comes_when_the_photo_is_another_is_said_and_after_a_fill_it_still_fits(
    page: Page, photo: Path, thing: Path, search: Any
) -> None:
    open_photo(page, photo)
    find(page, "scratches")
    paint(page, (0.5, 0.5), (0.6, 0.5))
    settle(page, 1)
    search.go_on.set()
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    assert steps(page) == ["picture", "stroke", "picture", "mask"]
    search.go_on.clear()
    line = page.locator(".rn-compare").bounding_box()
    find(page, "scratches")
    expect(page.locator(".rn-finding")).to_be_visible()
    assert page.locator(".rn-compare").bounding_box() == line  # stays under the hand
    open_photo(page, thing)
    search.go_on.set()
    expect(page.locator("[data-place=photo]")).to_contain_text("The photo has changed meanwhile.")
    assert page.evaluate("regionnorm.timeline.items") == []


# --- one picture ---------------------------------------------------------------------------------


def test_undo_and_redo_run_through_strokes_and_fills_alike(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    open_photo(page, photo)
    paint(page, (0.2, 0.3), (0.3, 0.3))
    settle(page, 1)
    paint(page, (0.7, 0.6), (0.8, 0.6))
    settle(page, 2)
    done = ["picture", "stroke", "picture", "stroke", "picture"]
    assert steps(page) == done
    for count in (4, 3, 2, 1):
        page.keyboard.press("Control+z")
        assert steps(page) == done[:count]
    expect(page.locator("[data-do=undo]")).to_be_disabled()
    assert (pixels(download(page, tmp_path)) == pixels(photo)).all()
    for _ in range(4):
        page.keyboard.press("Control+y")
    assert steps(page) == done
    assert download(page, tmp_path).name == "photo-filled-2.png"
    # An earlier fill is a step, too.
    page.locator(".rn-history button").nth(1).click()
    page.wait_for_function("regionnorm.timeline.steps.length === 6")
    assert download(page, tmp_path).name == "photo-filled.png"
    page.keyboard.press("Control+z")
    assert page.evaluate("regionnorm.timeline.picture.name") == "photo-filled-2.png"
    # The slider shows the photo as it was at first.
    page.locator(".rn-compare input").focus()
    page.keyboard.press("End")
    expect(page.locator(".rn-line")).to_be_visible()
    assert page.evaluate("regionnorm.view.split") > 0.9
    assert page.evaluate("regionnorm.view.before.number === regionnorm.pictures.at(-1).number")


def test_strokes_made_while_a_fill_runs_join_it_if_near_and_wait_if_not(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    with fill.held():
        paint(page, (0.2, 0.3), (0.25, 0.3))
        until_it_fills(page)
        job = page.evaluate("regionnorm.fills.running.job")
        paint(page, (0.25, 0.3), (0.3, 0.35))  # more of the same
        page.wait_for_function(f"(regionnorm.fills.running?.job ?? '{job}') !== '{job}'")
        paint(page, (0.8, 0.8), (0.9, 0.8))  # something else
    settle(page, 2)
    assert steps(page) == ["picture", "stroke", "stroke", "picture", "stroke", "picture"]


def test_strokes_made_while_a_fill_runs_that_was_asked_for_wait_for_their_turn(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    by_hand(page)
    paint(page, (0.2, 0.3), (0.25, 0.3))
    with fill.held():
        page.keyboard.press("Control+Enter")
        until_it_fills(page)
        page.locator(".rn-auto input").check()
        paint(page, (0.8, 0.8), (0.9, 0.8))
        paint(page, (0.21, 0.3), (0.24, 0.3))  # near, but what was asked for goes on
    settle(page, 2)
    done = ["picture", "stroke", "picture", "stroke", "stroke", "picture"]
    assert steps(page) == done
    paint(page, (0.2, 0.8), (0.25, 0.8))
    with fill.held():
        until_it_fills(page)
        by_hand(page)
        paint(page, (0.5, 0.1), (0.6, 0.1))
    settle(page, 3)
    assert steps(page) == [*done, "stroke", "picture", "stroke"]  # filled when told to


@pytest.mark.parametrize("how", ["clear", "erase a part", "erase all", "erase elsewhere"])
def test_what_is_taken_back_while_it_is_being_filled_is_not_filled(
    page: Page, photo: Path, fill: Fill, how: str
) -> None:
    open_photo(page, photo)
    page.locator(".rn-brush input").fill("30")
    with fill.held():
        paint(page, (0.2, 0.3), (0.5, 0.3))
        until_it_fills(page)
        job = page.evaluate("regionnorm.fills.running.job")
        if how == "clear":
            page.keyboard.press("Delete")
        else:
            page.keyboard.press("e")
            page.locator(".rn-brush input").fill("60")
            to = {"erase a part": (0.3, 0.3), "erase all": (0.55, 0.3)}.get(how, (0.9, 0.9))
            paint(page, (0.15, 0.3) if how != "erase elsewhere" else (0.8, 0.9), to)
        if how in ("clear", "erase all"):
            page.wait_for_function("!regionnorm.fills.running")
        elif how == "erase a part":
            page.wait_for_function(f"(regionnorm.fills.running?.job ?? '{job}') !== '{job}'")
        else:
            assert page.evaluate("regionnorm.fills.running.job") == job
    fills = 0 if how in ("clear", "erase all") else 1
    settle(page, fills)
    expect(page.locator(".rn-said:visible")).to_have_count(0)
    if how == "erase a part":
        left, _, right, _ = page.evaluate("regionnorm.timeline.picture.box")
        assert left > 0.3 * 300 and right > 0.45 * 300


def test_next_photo_can_be_filled_while_that_of_another_is_on_its_way(
    page: Page, photo: Path, thing: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    by_hand(page)
    paint(page, (0.2, 0.3), (0.25, 0.3))
    with fill.held():
        page.keyboard.press("Control+Enter")
        until_it_fills(page)
        open_photo(page, thing)
        expect(page.locator("[data-do=fill]")).to_be_enabled()
        expect(page.locator(".rn-progress")).to_be_hidden()
        page.locator(".rn-history button", has_text="photo.png").click()
        page.wait_for_function("regionnorm.timeline.picture.name === 'photo.png'")
        paint(page, (0.2, 0.3), (0.25, 0.3))
        page.keyboard.press("Control+Enter")
        until_it_fills(page)
        page.locator(".rn-history button", has_text="thing.png").click()
        page.wait_for_function("regionnorm.timeline.picture.name === 'thing.png'")
        expect(page.locator("[data-do=fill]")).to_be_enabled()
    page.wait_for_function("regionnorm.pictures.length === 4")


def test_selection_made_while_a_fill_runs_is_filled_next_whenever_its_answer_comes(
    page: Page, thing: Path, fill: Fill
) -> None:
    open_photo(page, thing)
    for late in (False, True):
        before = page.evaluate("regionnorm.pictures.length") - 1
        page.keyboard.press("b")
        with fill.held():
            paint(page, (0.05, 0.05), (0.1, 0.05))
            until_it_fills(page)
            if late:
                page.evaluate(
                    """() => {
                        const { server, fills } = regionnorm, ask = server.ask;
                        server.ask = async (method, path, body) => {
                            const told = await ask.call(server, method, path, body);
                            while (path.includes('/selections') && fills.running)
                                await new Promise((go) => setTimeout(go, 20));
                            return told;
                        };
                    }"""
                )
            page.keyboard.press("s")
            with page.expect_response("**/selections*"):
                paint(page, (0.42, 0.48), (0.6, 0.52))
            if not late:
                page.wait_for_function("regionnorm.timeline.items.at(-1)?.kind === 'mask'")
        settle(page, before + 2)
    assert steps(page)[1:] == ["stroke", "picture", "mask", "picture"] * 2


def test_reload_brings_photo_mask_history_and_a_running_fill_back(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    by_hand(page)
    paint(page, (0.2, 0.3), (0.3, 0.3))
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    paint(page, (0.6, 0.6), (0.7, 0.6))
    mask = mask_of(page)
    page.reload()
    page.locator(".rn-app.rn-open").wait_for()
    page.wait_for_function("regionnorm.view.layers")
    assert page.evaluate("regionnorm.timeline.picture.name") == "photo-filled.png"
    assert (mask_of(page) == mask).mean() > 0.999
    assert page.locator(".rn-history button").count() == 2
    with fill.held():
        page.keyboard.press("Control+Enter")
        until_it_fills(page)
        page.reload()
        expect(page.locator(".rn-doing")).to_contain_text("left")
    settle(page, 2)
    assert steps(page)[-2:] == ["stroke", "picture"]


def test_reload_after_many_fills_shows_the_last_one(
    page: Page, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.web.visitors.HISTORY", 2)
    open_photo(page, photo)
    for number, name in enumerate(("filled", "filled-2", "filled-3")):
        paint(page, (0.2 + 0.2 * number, 0.3), (0.25 + 0.2 * number, 0.3))
        page.wait_for_function(
            f"regionnorm.timeline.picture.name === 'photo-{name}.png' && !regionnorm.fills.running"
        )
    page.reload()
    page.locator(".rn-app.rn-open").wait_for()
    page.wait_for_function("regionnorm.view.layers && regionnorm.view.before")
    expect(page.locator(".rn-said:visible")).to_have_count(0)
    # Even where the first photo is gone for good, the fill is shown.
    page.route("**/view", lambda route: route.fulfill(status=404, body="{}"), times=1)
    page.evaluate("regionnorm.bitmaps.layers.delete(regionnorm.timeline.picture.origin)")
    page.evaluate("regionnorm.view.show([1, 1], null, null); regionnorm.changed()")
    page.wait_for_function("regionnorm.view.layers && !regionnorm.view.before")


def test_masks_that_are_not_painted_any_more_are_not_kept(page: Page, thing: Path) -> None:
    open_photo(page, thing)
    by_hand(page)
    page.keyboard.press("s")
    for _ in range(8):
        paint(page, (0.42, 0.45), (0.6, 0.55))
        found = selected(page, 1)
        page.keyboard.press("Control+z")
    assert page.evaluate("regionnorm.view.masks.size") <= 6
    for _ in range(8):
        paint(page, (0.42, 0.45), (0.6, 0.55))
    assert (selected(page, 8) == found).mean() > 0.99
    assert page.evaluate("regionnorm.view.masks.size") == 8  # those of now all are


def test_choosing_another_photo_during_a_fill_stays_there(
    page: Page, photo: Path, tmp_path: Path, make_photo: Maker, fill: Fill
) -> None:
    make_photo(200, 120, seed=1).save(tmp_path / "next.png")
    open_photo(page, photo)
    with fill.held():
        paint(page, (0.2, 0.3), (0.3, 0.3))
        until_it_fills(page)
        open_photo(page, tmp_path / "next.png")
    page.wait_for_function("regionnorm.pictures.length === 3")
    assert page.evaluate("regionnorm.timeline.picture.name") == "next.png"
    saved = download(page, tmp_path / "got")
    assert (saved.name, pixels(saved).shape) == ("next.png", (120, 200, 3))
    # It is not lost: it is among the thumbnails.
    page.locator(".rn-history button", has_text="photo-filled.png").click()
    page.wait_for_function("regionnorm.timeline.picture.name === 'photo-filled.png'")
    assert pixels(download(page, tmp_path / "got")).shape == (200, 300, 3)


# --- what is going on ----------------------------------------------------------------------------


def test_progress_and_place_are_seen_whole_and_a_fill_can_be_cancelled(
    page: Page, browser: Browser, address: str, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    with fill.held():
        paint(page, (0.2, 0.3), (0.3, 0.3))
        expect(page.locator(".rn-doing")).to_contain_text("about")
        with visit(browser, address) as other:
            open_photo(other, photo)
            paint(other, (0.2, 0.3), (0.3, 0.3))
            expect(other.locator(".rn-doing")).to_contain_text("1 before you")
            # Nothing lies over it.
            assert other.locator(".rn-progress").evaluate(
                """box => [[0.05, 0.5], [0.5, 0.5], [0.95, 0.5]].every(([x, y]) => {
                    const { left, top, width, height } = box.getBoundingClientRect();
                    const at = document.elementFromPoint(left + x * width, top + y * height);
                    return box.contains(at);
                })"""
            )
            other.locator("[data-do=cancel]").click()
            expect(other.locator(".rn-progress")).to_be_hidden()
            assert steps(other) == ["picture", "stroke"]
        page.keyboard.press("Escape")
        expect(page.locator(".rn-progress")).to_be_hidden()
    assert page.evaluate("regionnorm.pictures.length") == 1


def test_messages_are_near_what_they_are_about_and_go_when_that_is_mended(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    about_photo, about_fill = (page.locator(f"[data-place={place}]") for place in ("photo", "fill"))
    page.locator("[data-do=fill]").click()
    expect(about_photo).to_contain_text("Choose one first.")
    (tmp_path / "no photo.png").write_bytes(b"no photo")
    page.locator(".rn-file").set_input_files(tmp_path / "no photo.png")
    expect(about_photo).to_contain_text("no photo.png is no image")
    open_photo(page, photo)
    expect(about_photo).to_be_hidden()
    by_hand(page)
    page.locator("[data-do=fill]").click()
    expect(about_fill).to_contain_text("Nothing is painted yet.")
    box, bar = about_fill.bounding_box(), page.locator(".rn-bottom").bounding_box()
    assert box and bar and bar["y"] - 120 < box["y"] + box["height"] <= bar["y"]
    paint(page, (0.2, 0.3), (0.3, 0.3))
    expect(about_fill).to_be_hidden()
    page.locator("[data-do=fill]").click()
    settle(page, 1)
    page.locator("[data-do=another]").click()
    expect(about_fill).to_contain_text("Another fill would be the same: the network fills alone")
    about_fill.get_by_role("button").click()
    expect(about_fill).to_be_hidden()


# --- masks, and other ways in --------------------------------------------------------------------


def test_masks_are_loaded_and_found_and_regions_shown(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    scratched = make_photo(200, 150)
    scratched.paste("white", (20, 70, 180, 72))
    scratched.save(tmp_path / "scan.png")
    make_mask(200, 150).save(tmp_path / "mask.png")
    open_photo(page, tmp_path / "scan.png")
    page.locator(".rn-mask-file").set_input_files(tmp_path / "mask.png")
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    assert (mask_of(page) == read_mask(tmp_path / "mask.png")).all()
    page.keyboard.press("Control+z")
    page.locator(".rn-find summary").click()
    page.locator("[data-do=scratches]").click()
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    found = mask_of(page)
    assert found[70:72, 30:170].mean() > 0.9 and found.mean() < 0.2
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    menu(page, "regions")
    expect(page.locator(".rn-regions .rn-note")).to_contain_text("RN-L layers")


def test_pasted_and_dropped_photos_are_opened(page: Page, make_photo: Maker) -> None:
    for event, width in (("paste", 90), ("drop", 110)):
        buffer = io.BytesIO()
        make_photo(width, 70).save(buffer, "PNG")
        page.evaluate(
            """([kind, data]) => {
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                const list = new DataTransfer();
                list.items.add(new File([bytes], 'given.png', { type: 'image/png' }));
                const options = { bubbles: true, clipboardData: list, dataTransfer: list };
                const make = { paste: ClipboardEvent, drop: DragEvent }[kind];
                document.querySelector('.rn-stage').dispatchEvent(new make(kind, options));
            }""",
            [event, base64.b64encode(buffer.getvalue()).decode()],
        )
        expect(page.locator(".rn-size")).to_contain_text(f"{width} × 70")


def test_menu_shows_how_programs_ask(page: Page) -> None:
    menu(page, "program")
    expect(page.locator(".api-docs")).to_contain_text("/inpaint")


def drop(dialog: Locator, kind: str, files: Path | list[Path]) -> None:
    """Choose ``"photos"`` or ``"masks"`` in the window for several photos."""
    dialog.locator(f"[data-take={kind}] input").set_input_files(files)


def test_several_photos_are_filled_at_once(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    for seed in range(2):
        make_photo(60, 40, seed=seed).save(tmp_path / f"{seed}.png")
    make_mask(60, 40).save(tmp_path / "mask.png")
    menu(page, "batch")
    dialog = page.locator(".rn-batch")
    start = dialog.locator("[data-batch=start]")
    expect(start).to_be_disabled()
    photos = [tmp_path / f"{seed}.png" for seed in range(2)]
    drop(dialog, "photos", photos)
    expect(dialog.locator(".rn-note")).to_contain_text("2 photos, 0 masks")
    drop(dialog, "masks", tmp_path / "mask.png")
    start.click()
    expect(dialog.locator(".rn-note")).to_contain_text("2 photos filled.")
    with zipfile.ZipFile(download(page, tmp_path, "[data-batch=zip]")) as packed:
        assert packed.namelist() == ["0-filled.png", "1-filled.png"]
    make_photo(60, 40, seed=2).save(tmp_path / "2.png")
    drop(dialog, "photos", tmp_path / "2.png")
    expect(dialog.locator(".rn-note")).to_contain_text("3 photos, 1 mask")
    dialog.locator(".rn-rule input").press("Control+Enter")
    expect(dialog.locator(".rn-note")).to_contain_text("3 photos filled.")
    # Others begin anew.
    dialog.locator("[data-batch=anew]").click()
    expect(dialog.locator(".rn-note")).to_have_text("")
    expect(dialog.locator("[data-batch=zip]")).to_be_hidden()
    expect(start).to_be_disabled()
    drop(dialog, "photos", tmp_path / "2.png")
    make_mask(50, 40).save(tmp_path / "wrong.png")
    drop(dialog, "masks", tmp_path / "wrong.png")
    start.click()
    expect(dialog.locator("[data-place=batch]")).to_contain_text("2.png")
    # The right mask takes the place of the wrong one of its name.
    make_mask(60, 40).save(tmp_path / "wrong.png")
    drop(dialog, "masks", tmp_path / "wrong.png")
    expect(dialog.locator(".rn-note")).to_contain_text("1 photo, 1 mask")
    start.click()
    expect(dialog.locator(".rn-note")).to_contain_text("1 photo filled.")


def test_several_photos_outlive_a_reload_and_a_broken_connection(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    for seed in range(3):
        make_photo(60, 40, seed=seed).save(tmp_path / f"{seed}.png")
    make_mask(60, 40).save(tmp_path / "mask.png")
    menu(page, "batch")
    dialog = page.locator(".rn-batch")
    note = dialog.locator(".rn-note")
    drop(dialog, "photos", tmp_path / "0.png")
    expect(note).to_contain_text("1 photo")
    drop(dialog, "masks", tmp_path / "mask.png")
    expect(note).to_contain_text("1 mask")
    # The answer to the first two times that filling is asked for breaks off.
    page.evaluate(
        """() => {
          const ask = window.fetch;
          let left = 2;
          window.fetch = async (address, ...how) => {
            if (!String(address).includes('/fills') || !left--) return ask(address, ...how);
            throw new TypeError('network error');
          };
        }"""
    )
    dialog.locator("[data-batch=start]").click()
    expect(note).to_contain_text("1 photo filled.")
    page.reload()
    menu(page, "batch")
    expect(note).to_contain_text("1 photo filled.")
    with zipfile.ZipFile(download(page, tmp_path, "[data-batch=zip]")) as packed:
        assert packed.namelist() == ["0-filled.png"]
    drop(dialog, "photos", [tmp_path / "1.png", tmp_path / "2.png"])
    expect(note).to_contain_text("3 photos, 1 mask")
    dialog.locator("[data-batch=anew]").click()
    page.reload()
    menu(page, "batch")
    expect(note).to_have_text("")


def test_photos_and_masks_that_come_at_once_come_together(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    make_photo(60, 40).save(tmp_path / "a.png")
    make_mask(60, 40).save(tmp_path / "mask.png")
    menu(page, "batch")
    dialog = page.locator(".rn-batch")
    page.evaluate(
        """() => {
          const ask = window.fetch;
          window.fetch = async (address, ...how) => {
            const answer = await ask(address, ...how);
            const wait = String(address).endsWith('/batches') ? 500 : 0;
            await new Promise((done) => setTimeout(done, wait));
            return answer;
          };
        }"""
    )
    drop(dialog, "photos", tmp_path / "a.png")
    drop(dialog, "masks", tmp_path / "mask.png")
    expect(dialog.locator(".rn-note")).to_contain_text("1 photo, 1 mask")
    expect(dialog.locator("[data-batch=start]")).to_be_enabled()


def test_photos_that_come_while_others_are_filled_are_filled_next(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker, fill: Fill
) -> None:
    for seed in range(4):
        make_photo(60, 40, seed=seed).save(tmp_path / f"{seed}.png")
    make_mask(60, 40).save(tmp_path / "mask.png")
    menu(page, "batch")
    dialog = page.locator(".rn-batch")
    start, note = dialog.locator("[data-batch=start]"), dialog.locator(".rn-note")
    photos = dialog.locator("[data-take=photos] input")
    photos.set_input_files([tmp_path / "0.png", tmp_path / "1.png"])
    expect(note).to_contain_text("2 photos")
    drop(dialog, "masks", tmp_path / "mask.png")
    expect(note).to_contain_text("1 mask")
    with fill.held():
        start.click()
        expect(note).to_contain_text("Filling 1 of 2")
        with page.expect_response("**/photos?*"):
            photos.set_input_files(tmp_path / "2.png")
        page.wait_for_function("regionnorm.batch.counts.photos === 3")
        expect(start).to_be_disabled()
        expect(dialog.locator(".rn-track")).to_be_visible()
    expect(note).to_contain_text("2 photos filled.")
    start.click()
    expect(note).to_contain_text("3 photos filled.")
    expect(dialog.locator("[data-place=batch]")).to_be_hidden()


# --- masks that find themselves, soft ones, and borders drawn outward ---------------------------


def test_text_is_found_undone_and_filled(page: Page, tmp_path: Path, make_photo: Maker) -> None:
    photo, letters = with_letters(make_photo(400, 300))
    photo.save(tmp_path / "stamp.png")
    open_photo(page, tmp_path / "stamp.png")
    by_hand(page)
    page.locator(".rn-find summary").click()
    page.locator("[data-do=text]").click()
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    found = mask_of(page)
    assert found[letters].mean() > 0.9 and found.mean() < 0.2
    expect(page.locator(".rn-find .rn-list")).to_be_hidden()
    page.keyboard.press("Control+z")
    assert not mask_of(page).any()
    page.keyboard.press("Control+y")
    assert (mask_of(page) == found).all()
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    changed = (pixels(download(page, tmp_path)) != pixels(tmp_path / "stamp.png")).any(axis=2)
    assert changed[letters].mean() > 0.8 and not changed[~found].any()


def test_where_no_text_is_found_or_the_detector_is_missing_the_page_says_what_helps(
    page: Page, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_photo(page, photo)
    for name, words in (("", "No writing was found"), ("no_such_module", "regionnorm[text]")):
        if name:
            monkeypatch.setattr("regionnorm.masks.lines._PACKAGE", name)
        page.locator(".rn-find summary").click()
        page.locator("[data-do=text]").click()
        expect(page.locator("[data-place=photo]")).to_contain_text(words)


def levels_of(page: Page) -> npt.NDArray[np.uint8]:
    """The mask as the page would save it, soft edges and all."""
    with page.expect_download() as saved:
        menu(page, "save")
    with Image.open(saved.value.path()) as image:
        return np.asarray(image.convert("L"))


def set_range(page: Page, selector: str, value: int) -> None:
    page.locator(selector).evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input')); }", value
    )


def test_soft_strokes_fade_into_the_photo_and_can_be_made_hard(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    open_photo(page, photo)
    by_hand(page)
    set_range(page, ".rn-brush input", 120)
    page.locator(".rn-edge summary").click()
    expect(page.locator(".rn-softness input")).to_be_visible()
    set_range(page, ".rn-softness input", 80)
    page.locator(".rn-edge summary").click()
    paint(page, (0.4, 0.5), (0.6, 0.5))
    soft = levels_of(page)
    across = soft[:, 150].astype(int)
    assert across[100] == 255 and len(set(across.tolist())) > 10
    assert (np.diff(across[100:]) <= 1).all()  # fades outward
    assert ((soft > 20) & (soft < 235)).mean() > 0.02
    # What is filled is a blend of photo and fill.
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    before, after = pixels(photo).astype(int), pixels(download(page, tmp_path)).astype(int)
    full = after[100, 150] - before[100, 150]
    assert abs(full).max() > 0
    assert (after == before)[soft == 0].all()
    half = (soft > 110) & (soft < 145)
    moved = abs(after - before).sum(axis=2)
    assert 0 < moved[half].mean() < moved[soft == 255].mean() * 1.5
    # All or nothing, at will, and undone.
    page.keyboard.press("Control+z")
    page.locator(".rn-edge summary").click()
    page.locator(".rn-hard input").check()
    page.keyboard.press("Escape")
    hard = levels_of(page)
    assert set(np.unique(hard)) == {0, 255}
    assert ((hard > 127) != (soft > 127)).mean() < 0.01
    page.locator(".rn-edge summary").click()
    page.locator(".rn-hard input").uncheck()
    assert abs(levels_of(page).astype(int) - soft).max() <= 2


def test_a_loaded_mask_of_grays_stays_soft_through_a_reload_unless_hard_edges_are_wanted(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    given = np.zeros((200, 300), np.uint8)
    given[60:140, 80:220] = np.linspace(40, 255, 140).astype(np.uint8)
    Image.fromarray(given).save(tmp_path / "mask.png")
    open_photo(page, photo)
    by_hand(page)
    page.locator(".rn-mask-file").set_input_files(tmp_path / "mask.png")
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    expect(page.locator("[data-place=photo]")).to_contain_text("hard edges")
    assert abs(levels_of(page).astype(int) - given).max() <= 8
    page.reload()
    page.locator(".rn-app.rn-open").wait_for()
    page.wait_for_function("regionnorm.view.masks.size === 1")
    assert abs(levels_of(page).astype(int) - given).max() <= 8
    page.locator(".rn-edge summary").click()
    page.locator(".rn-hard input").check()
    assert ((levels_of(page) > 127) == (given > 127)).mean() > 0.999


def handle_at(page: Page, side: str) -> Point:
    box = page.locator(f".rn-handle[data-side={side}]").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_borders_are_drawn_outward_filled_undone_and_reloaded(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    open_photo(page, photo)
    page.locator(".rn-bottom [data-tool=expand]").click()
    expect(page.locator(".rn-handle:visible")).to_have_count(4)
    expect(page.locator(".rn-brush")).to_be_hidden()
    scale = view_of(page)[2]
    x, y = handle_at(page, "right")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30 * scale, y, steps=4)
    page.mouse.up()
    assert page.evaluate("regionnorm.timeline.margins") == pytest.approx([0, 0, 30, 0], abs=1)
    page.locator(".rn-margins input[name=right]").fill("40")
    page.locator(".rn-margins input[name=top]").fill("20")
    page.locator(".rn-margins input[name=top]").press("Enter")
    assert page.evaluate("regionnorm.timeline.margins") == [0, 20, 40, 0]
    expect(page.locator(".rn-size")).to_contain_text("300 × 200 → 340 × 220")
    # What is new is seen, all of it.
    stage, new = (page.locator(name).bounding_box() for name in (".rn-stage", ".rn-beyond"))
    assert stage and new and new["x"] >= stage["x"] and new["y"] >= stage["y"]
    assert new["width"] / new["height"] == pytest.approx(340 / 220, rel=0.01)
    page.locator(".rn-stage").focus()
    page.keyboard.press("Control+z")
    assert page.evaluate("regionnorm.timeline.margins") == [0, 0, 40, 0]
    page.keyboard.press("Control+y")
    # An object goes with it, painted with the same brush as ever.
    page.keyboard.press("b")
    paint(page, (0.2, 0.3), (0.3, 0.3))
    hole = mask_of(page)
    page.wait_for_timeout(100)
    assert not page.evaluate("Boolean(regionnorm.fills.running)")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("regionnorm.timeline.picture.parent && regionnorm.view.size[0] === 340")
    result = download(page, tmp_path)
    assert result.name == "photo-filled.png"
    before, after = pixels(photo), pixels(result)
    assert after.shape == (220, 340, 3)
    inner = after[20:, :300]
    assert (inner == before)[~hole].all() and (inner != before)[hole].any()
    assert page.evaluate("regionnorm.timeline.margins") == [0, 0, 0, 0]
    # Before and after lie over each other.
    assert page.evaluate("regionnorm.view.frame") == pytest.approx([0, 20 / 220, 300 / 340, 1])
    page.reload()
    page.locator(".rn-app.rn-open").wait_for()
    page.wait_for_function("regionnorm.view.size?.[0] === 340")
    paint(page, (0.9, 0.1), (0.95, 0.1))
    settle(page, 1)
    again = pixels(download(page, tmp_path / "again"))
    assert again.shape == (220, 340, 3) and (again != after).any()
    for _ in range(4):
        page.keyboard.press("Control+z")
    assert page.evaluate("regionnorm.timeline.picture.width") == 300
    assert page.evaluate("regionnorm.timeline.margins") == [0, 20, 40, 0]


def test_borders_are_drawn_by_keyboard_and_by_a_finger(
    browser: Browser, address: str, photo: Path
) -> None:
    with visit(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        open_photo(page, photo)
        page.locator(".rn-bottom [data-tool=expand]").click()
        fingers, stage = Fingers(page), page.locator(".rn-stage").bounding_box()
        assert stage
        x, y = handle_at(page, "bottom")
        at = (x - stage["x"]) / stage["width"], (y - stage["y"]) / stage["height"]
        fingers.drag((at, (at[0], at[1] + 0.05)))
        drawn = page.evaluate("regionnorm.timeline.margins[3]")
        assert drawn == pytest.approx(0.05 * stage["height"] / view_of(page)[2], rel=0.5)
        page.locator(".rn-handle[data-side=left]").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowLeft")
        assert page.evaluate("regionnorm.timeline.margins") == [36, 0, 0, drawn]
        page.keyboard.press("ArrowRight")
        assert page.evaluate("regionnorm.timeline.margins[0]") == 30
        page.locator("[data-do=clear]").click()
        assert page.evaluate("regionnorm.timeline.margins") == [0, 0, 0, 0]
        page.locator("[data-do=fill]").click()
        expect(page.locator("[data-place=fill]")).to_contain_text("Drag a border")
        for box in (one.bounding_box() for one in page.locator(".rn-margins input").all()):
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
            assert box["width"] > 60  # four digits
        rows = {one.bounding_box()["y"] for one in page.locator(".rn-bottom > .rn-strong").all()}  # type: ignore[index]
        rows.add(page.locator(".rn-download").bounding_box()["y"])  # type: ignore[index]
        assert len(rows) == 1
        page.locator("[data-tool=select]").click()
        for name in ("Size", "Grow"):
            expect(page.get_by_text(name, exact=True)).to_be_visible()


def test_what_is_painted_while_the_border_is_filled_moves_with_the_photo(
    page: Page, photo: Path, fill: Fill
) -> None:
    open_photo(page, photo)
    by_hand(page)
    page.locator(".rn-bottom [data-tool=expand]").click()
    page.locator(".rn-margins input[name=left]").fill("50")
    page.locator(".rn-margins input[name=left]").press("Enter")
    with fill.held():
        page.locator("[data-do=fill]").click()
        until_it_fills(page)
        page.locator(".rn-bottom [data-tool=brush]").click()
        paint(page, (0.5, 0.5), (0.6, 0.5))
        hole = mask_of(page)
    page.wait_for_function("regionnorm.view.size[0] === 350")
    assert (mask_of(page)[:, 50:] == hole).mean() > 0.998
    # Another fill of the same border leaves them there.
    there = mask_of(page)
    page.evaluate(
        """() => {
            const { timeline } = regionnorm;
            const mark = timeline.steps[timeline.start - 1];
            timeline.insert(mark, { ...timeline.picture, number: 'another' });
        }"""
    )
    assert steps(page) == ["picture", "expand", "picture", "picture", "stroke"]
    assert (mask_of(page) == there).all()


# --- who cannot see it, and where it is ----------------------------------------------------------

_CONTRAST = """dark => {
    document.body.classList.toggle('dark', dark);
    const light = (colour) => {
        const parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const ground = (one) => {
        while (one && /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(one).backgroundColor))
            one = one.parentElement;
        return getComputedStyle(one ?? document.body).backgroundColor;
    };
    const poor = [];
    const words = '.rn-app :is(button, span, p, output, h1, label)';
    for (const one of document.querySelectorAll(words)) {
        if (!one.offsetParent || one.closest(':disabled') || !one.innerText) continue;
        const [ink, paper] = [light(getComputedStyle(one).color), light(ground(one))];
        const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        if (ratio < 4.5) poor.push(`${one.className} ${one.innerText} ${ratio.toFixed(2)}`);
    }
    return poor;
}"""


def test_everything_has_a_name_and_can_be_read_in_the_light_and_in_the_dark(
    page: Page, photo: Path
) -> None:
    nameless = page.locator(".rn-app").evaluate(
        """app => [...app.querySelectorAll('button, input, summary, a, [role]')].filter((one) =>
            !one.textContent.trim() && !one.getAttribute('aria-label')
            && ![...(one.labels ?? [])].some((label) => label.textContent.trim())
            && !one.querySelector('img[alt]:not([alt=""])')
            && one.role !== 'alert' && one.role !== 'status' && one.role !== 'progressbar'
        ).map((one) => one.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    open_photo(page, photo)
    by_hand(page)
    paint(page, (0.2, 0.3), (0.3, 0.3))
    page.keyboard.press("Control+Enter")
    settle(page, 1)
    page.evaluate("regionnorm.say('fill', 'Something to read.')")
    page.locator(".rn-menu").evaluate("menu => (menu.open = true)")
    for dark in (False, True):
        assert page.evaluate(_CONTRAST, dark) == []


def test_size_and_what_is_added_and_painted_are_read_whole_on_a_phone(
    browser: Browser, address: str, tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(400, 300).resize((4000, 3000)).save(tmp_path / "large.jpg", quality=60)
    with visit(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        open_photo(page, tmp_path / "large.jpg")
        by_hand(page)
        paint(page, (0.2, 0.3), (0.8, 0.3))
        page.locator("[data-tool=expand]").click()
        page.locator(".rn-margins input[name=left]").fill("1200")
        page.locator(".rn-margins input[name=left]").press("Enter")
        line = page.locator(".rn-size")
        expect(line).to_contain_text("4000 × 3000 → 5200 × 3000 · ")
        expect(line).to_contain_text("painted")
        seen = "one => [one.scrollWidth <= one.clientWidth, one.scrollHeight <= one.clientHeight]"
        assert line.evaluate(seen) == [True, True]
        bar = page.locator(".rn-top").bounding_box()
        assert bar and bar["height"] < 60


def test_tools_take_two_rows_on_a_phone_before_and_after_a_fill(
    browser: Browser, address: str, photo: Path
) -> None:
    with visit(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        open_photo(page, photo)
        heights = []
        for act in (None, "paint", "fill", "paint"):
            if act == "paint":
                by_hand(page)
                paint(page, (0.2, 0.3), (0.3, 0.3))
            elif act == "fill":
                page.locator("[data-do=fill]").click()
                settle(page, 1)
            box = page.locator(".rn-bottom").bounding_box()
            assert box
            heights.append(box["height"])
            slider = page.locator(".rn-brush input").bounding_box()
            assert slider and slider["width"] >= 44
        assert max(heights) < 120 and max(heights) - min(heights) < 2


def test_no_button_lies_outside_a_window_of_middle_width(
    browser: Browser, address: str, photo: Path
) -> None:
    with visit(browser, address) as page:
        open_photo(page, photo)
        paint(page, (0.2, 0.3), (0.3, 0.3))
        settle(page, 1)
        for width, height in ((1100, 800), (1060, 800), (1024, 768), (768, 1024), (844, 390)):
            page.set_viewport_size({"width": width, "height": height})
            for tool in ("brush", "select", "expand"):
                page.locator(f"[data-tool={tool}]").click()
                for name in ("fill", "download", "another"):
                    expect(page.locator(f"[data-do={name}]")).to_be_visible()
                beyond = page.evaluate(
                    """[...document.querySelectorAll('.rn-bar :is(button, summary, label)')]
                        .filter((one) => one.checkVisibility())
                        .map((one) => one.getBoundingClientRect())
                        .filter((box) => box.right > innerWidth || box.bottom > innerHeight).length
                    """
                )
                assert beyond == 0, (width, tool)


def test_switches_that_are_off_and_the_sign_of_work_can_be_seen(page: Page, photo: Path) -> None:
    colour = "one => getComputedStyle(one, {}).{}"
    switch = page.locator(".rn-auto input")
    seen = set()
    for on in (False, True):
        switch.set_checked(on)
        seen.add(switch.evaluate(colour.format("null", "backgroundColor")))
    assert len(seen) == 2 and "rgba(0, 0, 0, 0)" not in seen
    page.locator(".rn-app").evaluate("app => app.classList.add('rn-opening')")
    edge = page.locator(".rn-stage").evaluate(colour.format("'::after'", "borderBottomColor"))
    assert edge not in ("rgba(0, 0, 0, 0)", "")
    assert (
        page.locator(".rn-stage").evaluate(colour.format("'::after'", "borderBottomWidth")) == "4px"
    )
    page.mouse.move(0, 0)
    pressed = page.locator(".rn-bottom [data-tool=brush]")
    rest = pressed.evaluate(colour.format("null", "backgroundColor"))
    pressed.hover()
    assert pressed.evaluate(colour.format("null", "backgroundColor")) == rest


def test_page_works_below_a_path_of_a_proxy(
    browser: Browser, small_weights: Path, photo: Path, tmp_path: Path
) -> None:
    with (
        running(Inpainter(small_weights), AppOptions(port=0, root_path="/fill")) as (_, url),
        stripping_proxy(url, "/fill") as shown,
        visit(browser, shown) as page,
    ):
        open_photo(page, photo)
        paint(page, (0.2, 0.3), (0.3, 0.3))
        settle(page, 1)
        assert download(page, tmp_path / "got").name == "photo-filled.png"
