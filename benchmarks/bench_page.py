"""How fast the page answers the hand: a stroke, an undo and a zoom on a photo of 12 megapixels.

    python benchmarks/bench_page.py

A headless Chromium opens the page of an app that runs in this process. Each figure is the longest
of many, in milliseconds from the event until the canvas is drawn. Needs a browser: see
CONTRIBUTING.md. Saves ``out/bench/page.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from regionnorm.files.whole import atomic_path
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import write_image
from regionnorm.web.server import AppOptions, running

_BROWSER = Path(__file__).parents[1] / "tests" / "web" / "browser.py"

# Events as a hand makes them; after each, what it made stale is drawn at once and read back, so
# that the time is that of the whole work and not of its first half.
_MEASURE = """async (count) => {
    const { view, timeline, stage } = regionnorm;
    const box = stage.getBoundingClientRect();
    const event = (kind, x, y, more = {}) => {
        const make = kind === 'wheel' ? WheelEvent : PointerEvent;
        const place = { clientX: box.left + x, clientY: box.top + y };
        const pointer = { pointerId: 1, pointerType: 'mouse', button: 0 };
        return new make(kind, { ...place, ...pointer, bubbles: true, cancelable: true, ...more });
    };
    stage.setPointerCapture = () => {};
    const shown = () => {
        if (view.stale.size) view.draw();
        for (const pen of [view.photoPen, view.maskPen]) pen.getImageData(0, 0, 1, 1);
    };
    const timed = (work) => {
        const began = performance.now();
        work();
        shown();
        return performance.now() - began;
    };
    const times = { stroke: [], undo: [], redo: [], zoom: [], pan: [] };
    const random = (most) => Math.random() * most;
    const stroke = (into) => {
        let [x, y] = [random(box.width), random(box.height)];
        into?.push(timed(() => stage.dispatchEvent(event('pointerdown', x, y))));
        for (let part = 0; part < 30; part++) {
            [x, y] = [x + random(30) - 15, y + random(30) - 15];
            into?.push(timed(() => stage.dispatchEvent(event('pointermove', x, y))));
        }
        into?.push(timed(() => stage.dispatchEvent(event('pointerup', x, y))));
    };
    for (let index = 0; index < count; index++) stroke(times.stroke);
    for (let index = 0; index < count / 2; index++) times.undo.push(timed(() => regionnorm.undo()));
    for (let index = 0; index < count / 2; index++) times.redo.push(timed(() => timeline.redo()));
    const pause = () => new Promise((resolve) => setTimeout(resolve, 30));
    for (let index = 0; index < 2 * count; index++) {
        const sign = index % count < count / 2 ? -1 : 1;
        times.zoom.push(timed(() => stage.dispatchEvent(
            event('wheel', box.width * 0.4, box.height * 0.6, { deltaY: sign * 120 }))));
        times.pan.push(timed(() => view.move(random(60) - 30, random(60) - 30)));
        await pause();
    }
    return times;
}"""


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strokes", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("out/bench/page.json"))
    arguments = parser.parse_args()
    chromium = run_path(str(_BROWSER))["find_browser"]()
    if chromium is None:
        sys.exit("no browser was found")
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Inpainter(), AppOptions(port=0)) as (_, address),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        figures = measure(page, Path(folder), arguments.strokes)
        browser.close()
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0


def measure(page: Page, folder: Path, strokes: int) -> dict[str, float]:
    """Open a large photo and use it; the longest and the middle time of each kind of event."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    write_image(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), folder / "large.jpg")
    page.locator(".rn-app[data-ready]").wait_for()
    page.locator(".rn-auto input").uncheck()
    page.locator(".rn-file").set_input_files(folder / "large.jpg")
    page.wait_for_function("regionnorm.view.layers")
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.url))
    page.wait_for_timeout(2000)
    times = page.evaluate(_MEASURE, strokes)
    figures: dict[str, float] = {}
    for kind, values in times.items():
        figures[f"{kind}, longest, ms"] = round(max(values), 1)
        figures[f"{kind}, median, ms"] = round(float(np.median(values)), 1)
    figures["masks sent"] = sum("/fills" in url for url in sent)
    return figures


if __name__ == "__main__":
    sys.exit(main())
