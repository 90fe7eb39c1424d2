"""Pictures of the app's page for the docs, at the sizes that people have.

    python benchmarks/app_pictures.py --out docs/images
    python benchmarks/app_pictures.py --out out/pictures --format png --only expand

Starts the app with the package's weights, opens the example photos in headless Chromium at
1280x800, at 1920x1080 and on a phone of 390x844, in the light and in the dark, and does what a
person would. Look at what it writes before it is committed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright

from regionnorm.filling.inpainter import Inpainter
from regionnorm.web.examples import write_examples
from regionnorm.web.server import AppOptions, running

DESK, LARGE, PHONE = (1280, 800), (1920, 1080), (390, 844)
TOWER = ((0.745, 0.41), (0.75, 0.62), (0.735, 0.86), (0.765, 0.86), (0.75, 0.62))
browsers = run_path(str(Path(__file__).parents[1] / "tests/web/browser.py"))


@contextmanager
def visit(
    browser: Browser, address: str, size: tuple[int, int], *, dark: bool = False
) -> Iterator[Page]:
    phone = size == PHONE
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        has_touch=phone,
        is_mobile=phone,
    )
    context.set_default_timeout(300_000)
    page = context.new_page()
    page.goto(address)
    page.locator(".rn-app[data-ready]").wait_for()
    if dark:
        page.evaluate("document.body.classList.add('dark')")
    yield page
    context.close()


def opened(page: Page, photo: Path | int) -> None:
    if isinstance(photo, int):
        page.locator(f"[data-example='{photo}']").click()
    else:
        page.locator(".rn-file").set_input_files(photo)
    page.wait_for_function("regionnorm.view.layers")


def paint(page: Page, points: tuple[tuple[float, float], ...], size: int = 40) -> None:
    page.locator(".rn-brush input").evaluate("(one, size) => { one.value = size; }", size)
    stage = page.locator(".rn-stage").bounding_box()
    assert stage is not None
    x, y, scale, width, height = page.evaluate(
        "(({ x, y, scale, size }) => [x, y, scale, ...size])(regionnorm.view)"
    )
    for index, (across, down) in enumerate(points):
        page.mouse.move(
            stage["x"] + x + across * width * scale, stage["y"] + y + down * height * scale, steps=8
        )
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def filled(page: Page, count: int = 1) -> None:
    page.wait_for_function(
        f"regionnorm.pictures.filter((one) => one.parent).length === {count}"
        " && !regionnorm.fills.running"
    )
    page.wait_for_timeout(400)


def by_hand(page: Page) -> None:
    page.locator(".rn-auto input").uncheck()


# --- what is shown -------------------------------------------------------------------------------


def while_filling(page: Page, folder: Path) -> None:
    opened(page, 3)
    paint(page, TOWER)
    page.wait_for_function("regionnorm.fills.running?.job")
    page.wait_for_timeout(150)


def before_and_after(page: Page, folder: Path) -> None:
    opened(page, 3)
    paint(page, TOWER)
    filled(page)
    page.locator(".rn-compare input").evaluate(
        "one => { one.value = 760; one.dispatchEvent(new Event('input')); }"
    )


def expanding(page: Page, folder: Path) -> None:
    opened(page, 2)
    page.locator(".rn-bottom [data-tool=expand]").click()
    for side, pixels in (("left", 90), ("right", 140)):
        page.locator(f".rn-margins input[name={side}]").fill(str(pixels))
        page.locator(f".rn-margins input[name={side}]").press("Enter")
    page.evaluate("document.activeElement.blur()")


def text_found(page: Page, folder: Path) -> None:
    opened(page, stamped(folder))
    by_hand(page)
    page.locator(".rn-find summary").click()
    page.locator("[data-do=text]").click()
    page.wait_for_function("regionnorm.timeline.items.length === 1")
    page.locator(".rn-find summary").click()


def soft_brush(page: Page, folder: Path) -> None:
    opened(page, 1)
    by_hand(page)
    page.locator(".rn-edge summary").click()
    page.locator(".rn-softness input").evaluate(
        "one => { one.value = 70; one.dispatchEvent(new Event('input')); }"
    )
    paint(page, ((0.25, 0.78), (0.4, 0.82), (0.55, 0.8)), 110)
    if not page.locator(".rn-softness").is_visible():
        page.locator(".rn-edge summary").click()


def several(page: Page, folder: Path) -> None:
    examples = write_examples(folder / "several")
    page.locator(".rn-menu summary").click()
    page.locator("[data-do=batch]").click()
    page.locator("[data-take=photos] input").set_input_files(examples[:3])
    page.locator(".rn-batch .rn-note", has_text="3 photos").wait_for()
    page.locator(".rn-rule input").check()


def stamped(folder: Path) -> Path:
    """An example with a subtitle and a date on it."""
    photo = Image.open(write_examples(folder / "examples")[2]).convert("RGB")
    draw = ImageDraw.Draw(photo)
    size = photo.height // 13
    font = ImageFont.load_default(size)
    place = (photo.width / 2, photo.height * 0.86)
    draw.text(
        place,
        "Is it time for dinner yet?",
        "white",
        font,
        "mm",
        stroke_width=2,
        stroke_fill="black",
    )
    small = ImageFont.load_default(size * 0.7)
    draw.text((photo.width * 0.97, photo.height * 0.96), "24.12.1998", "#ff9a2e", small, "rm")
    photo.save(folder / "stamped.png")
    return folder / "stamped.png"


def settled(page: Page) -> None:
    page.wait_for_timeout(500)


Act = Callable[[Page, Path], None]
PICTURES: dict[str, tuple[tuple[int, int], bool, Act]] = {
    "app-paint": (DESK, False, while_filling),
    "app-result": (DESK, False, before_and_after),
    "app-dark": (LARGE, True, before_and_after),
    "app-phone": (PHONE, False, before_and_after),
    "app-phone-dark": (PHONE, True, while_filling),
    "app-expand": (DESK, False, expanding),
    "app-expand-dark": (LARGE, True, expanding),
    "app-expand-phone": (PHONE, False, expanding),
    "app-batch": (DESK, False, several),
    "app-text": (DESK, False, text_found),
    "app-text-phone": (PHONE, True, text_found),
    "app-soft": (DESK, True, soft_brush),
    "app-soft-phone": (PHONE, False, soft_brush),
}


def save(shot: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    if image.width > DESK[0]:  # the docs show no more
        image = image.resize((DESK[0], image.height * DESK[0] // image.width))
    options: dict[str, Any] = {"quality": 82, "method": 6} if path.suffix == ".webp" else {}
    image.save(path, **options)
    print(f"saved {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/pictures"))
    parser.add_argument("--format", choices=("webp", "png"), default="webp")
    parser.add_argument("--only", default="", help="pictures whose name has this in it")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Inpainter(), AppOptions(port=0)) as (_, address),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=browsers["find_browser"](), args=["--no-sandbox"]
        )
        for name, (size, dark, act) in PICTURES.items():
            if arguments.only not in name:
                continue
            with visit(browser, address, size, dark=dark) as page:
                act(page, Path(folder))
                settled(page)
                save(page.screenshot(), arguments.out / f"{name}.{arguments.format}")
        browser.close()


if __name__ == "__main__":
    main()
