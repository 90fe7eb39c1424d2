"""The page in a real browser: paint with the mouse, fill, compare, download."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask
from regionnorm.web.examples import write_examples
from regionnorm.web.server import AppOptions, running

Maker = Callable[..., Image.Image]

browsers = run_path(str(Path(__file__).with_name("browser.py")))
CHROMIUM = browsers["find_browser"]()
if CHROMIUM is None:
    pytest.skip(browsers["ADVICE"], allow_module_level=True)

PATIENCE = 120_000  # milliseconds; nothing takes that long on a computer that is not busy


@pytest.fixture(scope="module")
def address(small_weights: Path) -> Iterator[str]:
    with running(Inpainter(small_weights), AppOptions(port=0)) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    page.goto(address)
    page.locator(".rn-stage").wait_for()
    yield page
    context.close()


def open_photo(page: Page, path: Path, width: int, height: int) -> None:
    page.locator("#rn-start input[type=file]").set_input_files(path)
    expect(page.locator(".rn-tools output")).to_contain_text(f"{width} × {height}")


def paint(page: Page, *points: tuple[float, float]) -> None:
    """Drag the mouse along points given as shares of the photo's width and height."""
    page.locator(".rn-mask").evaluate("mask => mask.scrollIntoView({ block: 'center' })")
    box = page.locator(".rn-mask").bounding_box()
    assert box
    for index, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def fill(page: Page, button: str = "#rn-fill") -> None:
    fills = page.locator("#rn-history button")
    before = fills.count()
    page.locator(button).click()
    # The status may still say so of the fill before.
    expect(fills).to_have_count(before + 1)
    expect(page.locator("#rn-status")).to_contain_text("Done.")


def download(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.locator(button).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def save_mask(page: Page, folder: Path) -> Path:
    page.get_by_role("button", name="Masks and keyboard shortcuts").click()
    return download(page, "#rn-save-mask", folder)


def mask_of(page: Page) -> npt.NDArray[np.bool_]:
    """The mask as the page would send it."""
    url = page.evaluate("window.regionnorm.mask()")
    data = base64.b64decode(url.partition(",")[2])
    hole: npt.NDArray[np.bool_] = np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127
    return hole


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(read_image(path))


# --- from the example to the downloaded file -----------------------------------------------------


def test_a_visitor_fills_an_example_and_downloads_what_the_inpainter_makes(
    page: Page, address: str, tmp_path: Path, small_weights: Path
) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    example = write_examples(tmp_path / "examples")[0]
    page.locator("#rn-examples button").first.click()
    expect(page.locator(".rn-tools output")).to_contain_text("600 × 400")
    paint(page, (0.3, 0.4), (0.5, 0.5))
    paint(page, (0.7, 0.2))
    fill(page)

    mask = save_mask(page, tmp_path)
    result = download(page, "#rn-download", tmp_path)
    assert (mask.name, result.name) == ("coffee-mask.png", "coffee-filled.png")

    # The mask covers the strokes and little else.
    hole, photo, filled = read_mask(mask), pixels(example), pixels(result)
    assert hole.shape == photo.shape[:2]
    assert hole[160, 180] and hole[200, 300] and hole[80, 420]
    assert 0.005 < hole.mean() < 0.06
    # The result changes only inside the stroke, and is the library's own.
    assert (photo == filled)[~hole].all()
    assert (photo != filled)[hole].mean() > 0.9
    expected = Inpainter(small_weights)(read_image(example), hole)
    assert (filled == np.asarray(expected)).all()
    # The slider shows the same two pictures.
    shown = page.locator("#rn-slider img").evaluate_all("images => images.map(i => i.src)")
    seen = [Image.open(io.BytesIO(page.request.get(src).body())) for src in shown]
    assert {image.convert("RGB").tobytes() for image in seen} == {
        photo.tobytes(),
        filled.tobytes(),
    }
    # Nothing came from anywhere else.
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []

    page.get_by_role("tab", name="Regions").click()
    expect(page.locator("#rn-regions, .prose").filter(has_text="RN-L layers")).not_to_have_count(0)


@pytest.mark.parametrize(("width", "height"), [(333, 517), (1701, 205)])
def test_mask_has_the_photos_size_whatever_is_shown(
    page: Page, tmp_path: Path, make_photo: Maker, width: int, height: int
) -> None:
    path = tmp_path / "odd.jpg"
    make_photo(width, height).save(path, quality=90)
    open_photo(page, path, width, height)
    page.set_viewport_size({"width": 420, "height": 700})
    page.locator("[data-do=in]").click()
    paint(page, (0.2, 0.3), (0.3, 0.4))
    mask = save_mask(page, tmp_path)
    assert read_image(mask).size == (width, height)
    assert mask_of(page).shape == (height, width)
    assert (mask_of(page) == read_mask(mask)).all()
    assert mask_of(page).any()
    fill(page)
    with Image.open(download(page, "#rn-download", tmp_path)) as result:
        assert (result.format, result.size) == ("JPEG", (width, height))


def test_eraser_undo_redo_clear_and_shortcuts(
    page: Page, tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(300, 200).save(tmp_path / "photo.png")
    open_photo(page, tmp_path / "photo.png", 300, 200)
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


def test_pasted_and_dropped_photos_are_opened(
    page: Page, tmp_path: Path, make_photo: Maker
) -> None:
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
        expect(page.locator(".rn-tools output")).to_contain_text(f"{width} × 70")


def test_loaded_mask_history_and_messages(
    page: Page, tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    make_photo(120, 80).save(tmp_path / "photo.png")
    make_mask(120, 80).save(tmp_path / "mask.png")
    page.locator("#rn-fill").click()
    expect(page.locator(".toast-body")).to_contain_text("there is no photo yet")
    open_photo(page, tmp_path / "photo.png", 120, 80)
    page.get_by_role("button", name="Masks and keyboard shortcuts").click()
    page.locator("#rn-more input[type=file]").set_input_files(tmp_path / "mask.png")
    expect(page.locator(".rn-tools output")).to_contain_text("hole 16 %")
    assert (mask_of(page) == read_mask(tmp_path / "mask.png")).all()
    fill(page)
    first = download(page, "#rn-download", tmp_path).read_bytes()

    fill(page, "#rn-another")
    names = page.locator("#rn-history .caption-label")
    expect(names).to_have_text(["photo-filled-2.png", "photo-filled.png"])
    other = download(page, "#rn-download", tmp_path)
    assert other.name == "photo-filled-2.png"
    assert other.read_bytes() != first

    page.get_by_role("tab", name="Paint").click()
    paint(page, (0.1, 0.1), (0.9, 0.1))
    fill(page)
    assert download(page, "#rn-download", tmp_path).read_bytes() != first
    page.locator("#rn-history button").last.click()
    expect(page.locator("#rn-status")).to_contain_text("An earlier fill.")
    assert download(page, "#rn-download", tmp_path).read_bytes() == first


def test_scratches_are_found_and_painted(page: Page, tmp_path: Path, make_photo: Maker) -> None:
    scratched = make_photo(200, 150)
    scratched.paste("white", (20, 70, 180, 72))
    scratched.save(tmp_path / "scan.png")
    open_photo(page, tmp_path / "scan.png", 200, 150)
    page.get_by_role("button", name="Masks and keyboard shortcuts").click()
    page.locator("#rn-find").click()
    expect(page.locator(".rn-tools output")).to_contain_text("hole")
    found = mask_of(page)
    assert found[70:72, 30:170].mean() > 0.9
    assert found.mean() < 0.2


def test_visitors_do_not_see_each_others_fills(
    page: Page, browser: Browser, address: str, tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(90, 60).save(tmp_path / "photo.png")
    open_photo(page, tmp_path / "photo.png", 90, 60)
    paint(page, (0.5, 0.5))
    fill(page)
    other = browser.new_page()
    other.goto(address)
    other.get_by_role("tab", name="Result").click(timeout=PATIENCE)
    expect(other.locator("#rn-history button")).to_have_count(0)
    expect(other.locator("#rn-another")).to_be_disabled()
    other.locator("#rn-fill").click()
    expect(other.locator(".toast-body")).to_contain_text("there is no photo yet")
    other.close()
