"""The static page in a real browser whose network is cut off."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect, sync_playwright
from torch import Tensor

from regionnorm.filling.any_size import fill_holes
from regionnorm.filling.conditioning import conditioned
from regionnorm.filling.inpainter import Inpainter
from regionnorm.nn.prefill import push_pull
from regionnorm.web import site

pytest.importorskip("onnx", reason="pip install 'regionnorm[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'regionnorm[export]'")

Maker = Callable[..., Image.Image]
RunCli = Callable[..., tuple[int, str, str]]
Pixels = npt.NDArray[np.uint8]

browsers = run_path(str(Path(__file__).with_name("browser.py")))
PATIENCE = 120_000  # milliseconds; nothing takes that long on a computer that is not busy


@cache
def runtime_or_skip() -> bytes:
    """The runtime from npm's store: tests fetch nothing."""
    try:
        return site.fetch_runtime(offline=True)
    except ValueError:
        pytest.skip(f"run once: npm cache add onnxruntime-web@{site.RUNTIME}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_weights: Path) -> Path:
    """The page, with a small network."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "runtime.tgz"
    package.write_bytes(runtime_or_skip())
    site.write_site(folder / "page", small_weights, runtime=package)
    return folder / "page"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    path = browsers["find_browser"]()
    if path is None:
        pytest.skip(browsers["ADVICE"])
    cut_off = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", cut_off])
        page = chromium.new_context(viewport={"width": 1100, "height": 900}).new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.goto(address)
        page.locator("body[data-ready=isolated]").wait_for()
        yield page
        chromium.close()


def paint(page: Page, *points: tuple[float, float]) -> None:
    page.locator(".rn-mask").evaluate("mask => mask.scrollIntoView({ block: 'center' })")
    box = page.locator(".rn-mask").bounding_box()
    assert box
    for index, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def painted(page: Page) -> npt.NDArray[np.bool_]:
    mask = decoded(page.evaluate("window.regionnorm.mask()")).convert("L")
    hole: npt.NDArray[np.bool_] = np.asarray(mask) > 127
    return hole


def fill_and_download(page: Page, folder: Path) -> Pixels:
    page.locator("#rn-fill").click()
    expect(page.locator("#rn-status")).to_contain_text(re.compile(r"Filled in|It did not work"))
    return np.asarray(Image.open(download(page, folder)).convert("RGB"))


def download(page: Page, folder: Path) -> Path:
    with page.expect_download() as started:
        page.locator("#rn-save").click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


# Takes the network's place: answers when it is told to, with the photo's first pixel everywhere.
STAND_IN = """
window.Worker = class {
  postMessage({ pixels }) {
    const filled = pixels.map(() => pixels[0]);
    document.body.dataset.asked = 'yes';
    window.answer = () => {
      delete document.body.dataset.asked;
      this.onmessage({ data: { filled, seconds: 1 } });
    };
  }
};
"""


@pytest.fixture
def slow(page: Page, address: str) -> Iterator[Page]:
    """The page with a network that waits for `answer()`."""
    slow = page.context.new_page()
    slow.add_init_script(STAND_IN)
    slow.set_default_timeout(PATIENCE)
    slow.goto(address)
    slow.locator("body[data-ready=isolated]").wait_for()
    yield slow
    slow.close()


def choose(page: Page, path: Path, size: tuple[int, int], level: int = 0) -> None:
    Image.new("RGB", size, (level, level, level)).save(path)
    page.locator("#rn-file").set_input_files(path)


def opened(page: Page, size: tuple[int, int]) -> None:
    expect(page.locator(".rn-tools output")).to_contain_text("{} × {}".format(*size))


# --- a photo's way -------------------------------------------------------------------------------


def test_a_photo_is_filled_as_by_the_inpainter_and_nothing_is_fetched_from_elsewhere(
    page: Page, address: str, tmp_path: Path, make_photo: Maker, small_weights: Path
) -> None:
    photo, asked = make_photo(221, 173), []
    photo.save(tmp_path / "beach.png")
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#rn-file").set_input_files(tmp_path / "beach.png")
    expect(page.locator(".rn-tools output")).to_contain_text("221 × 173")
    expect(page.locator("#rn-save")).to_be_hidden()
    paint(page, (0.3, 0.3), (0.5, 0.45))
    paint(page, (0.7, 0.2), (0.75, 0.8), (0.9, 0.7))
    hole = painted(page)
    found = fill_and_download(page, tmp_path)
    assert (tmp_path / "beach-filled.png").is_file()
    assert np.array_equal(found[~hole], np.asarray(photo)[~hole])
    inpainter = Inpainter(small_weights, device="cpu", precision="fp32", method="network")
    wanted = np.asarray(inpainter(photo, hole))
    assert np.abs(found.astype(int) - wanted).max() <= 2
    assert np.abs(wanted.astype(int) - np.asarray(photo))[hole].mean() > 2
    assert any(url.endswith("model.onnx") for url in asked)
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)


def test_what_is_filled_can_be_painted_on_again(
    page: Page, tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(120, 90).save(tmp_path / "first.png")
    page.locator("#rn-file").set_input_files(tmp_path / "first.png")
    expect(page.locator(".rn-tools output")).to_contain_text("120 × 90")
    page.locator("#rn-fill").click()
    expect(page.locator("#rn-status")).to_contain_text("Nothing is painted yet")
    paint(page, (0.2, 0.2), (0.3, 0.3))
    first = fill_and_download(page, tmp_path)
    page.locator("#rn-again").click()
    expect(page.locator(".rn-tools output")).not_to_contain_text("hole")
    paint(page, (0.6, 0.6), (0.7, 0.7))
    hole = painted(page)
    second = fill_and_download(page, tmp_path)
    assert np.array_equal(first[~hole], second[~hole]) and not np.array_equal(first, second)


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#rn-file").set_input_files(tmp_path / "notes.png")
    expect(page.locator("#rn-status")).to_contain_text("notes.png is no picture")


def test_a_fill_is_its_own_photo_s_though_another_is_chosen_meanwhile(
    slow: Page, tmp_path: Path
) -> None:
    fill, status = slow.locator("#rn-fill"), slow.locator("#rn-status")
    choose(slow, tmp_path / "black.png", (60, 40), level=10)
    opened(slow, (60, 40))
    paint(slow, (0.4, 0.4), (0.6, 0.6))
    fill.click()
    slow.locator("body[data-asked]").wait_for()
    choose(slow, tmp_path / "white.png", (80, 50), level=240)
    opened(slow, (80, 50))
    expect(status).to_contain_text("black.png is still being filled")
    expect(fill).to_be_disabled()
    paint(slow, (0.4, 0.4), (0.6, 0.6))
    slow.evaluate("answer()")
    expect(status).to_contain_text("black.png: Filled in")
    before = decoded(slow.locator("#rn-before").evaluate("canvas => canvas.toDataURL()"))
    assert download(slow, tmp_path).name == "black-filled.png"
    black = Image.open(tmp_path / "black-filled.png")
    assert black.size == before.size == (60, 40)
    assert black.convert("L").getextrema() == before.convert("L").getextrema() == (10, 10)
    fill.click()
    slow.locator("body[data-asked]").wait_for()
    slow.evaluate("answer()")
    expect(status).to_have_text("Filled in 1.0 s.")
    assert download(slow, tmp_path).name == "white-filled.png"
    white = Image.open(tmp_path / "white-filled.png")
    assert white.size == (80, 50) and white.convert("L").getextrema() == (240, 240)


def test_the_photo_chosen_last_is_the_one_that_is_painted_on(slow: Page, tmp_path: Path) -> None:
    slow.evaluate("""() => {
      const read = createImageBitmap;
      window.createImageBitmap = async (file) => {
        if (file.name !== 'large.png') return read(file);
        document.body.dataset.reads = 'yes';
        await new Promise((go) => { window.go = go; });
        return read(file);
      };
    }""")
    choose(slow, tmp_path / "small.png", (80, 50))
    opened(slow, (80, 50))
    choose(slow, tmp_path / "large.png", (70, 60))
    slow.locator("body[data-reads]").wait_for()
    paint(slow, (0.2, 0.2))
    slow.mouse.down()  # a stroke that is under the hand when the picture changes
    choose(slow, tmp_path / "last.png", (90, 40))
    opened(slow, (90, 40))
    slow.mouse.up()
    slow.evaluate("() => { go(); return new Promise((done) => setTimeout(done, 500)); }")
    opened(slow, (90, 40))
    assert not painted(slow).any() and painted(slow).shape == (40, 90)


def test_a_worker_that_failed_while_the_visitor_painted_is_begun_anew(
    slow: Page, tmp_path: Path
) -> None:
    slow.evaluate("""() => {
      const good = Worker;
      window.Worker = class {
        constructor() {
          setTimeout(() => { this.onerror?.({}); document.body.dataset.failed = 'yes'; });
          window.Worker = good;
        }
        postMessage() {}
      };
    }""")
    choose(slow, tmp_path / "photo.png", (80, 50))
    opened(slow, (80, 50))
    slow.locator("body[data-failed]").wait_for()
    paint(slow, (0.4, 0.4), (0.6, 0.6))
    slow.locator("#rn-fill").click()
    slow.locator("body[data-asked]").wait_for()


def test_a_worker_without_a_network_is_begun_anew_at_the_next_fill(
    slow: Page, tmp_path: Path
) -> None:
    slow.evaluate("""() => {
      const good = Worker;
      window.Worker = class {
        postMessage() {
          setTimeout(() => this.onmessage({ data: { error: 'cut off', unusable: true } }));
        }
        terminate() { document.body.dataset.ended = 'yes'; window.Worker = good; }
      };
    }""")
    choose(slow, tmp_path / "photo.png", (80, 50))
    opened(slow, (80, 50))
    paint(slow, (0.4, 0.4), (0.6, 0.6))
    slow.locator("#rn-fill").click()
    slow.locator("body[data-ended]").wait_for()
    assert "cut off" in slow.locator("#rn-status").inner_text()
    slow.locator("#rn-fill").click()
    slow.locator("body[data-asked]").wait_for()


def test_previews_are_let_go(slow: Page, tmp_path: Path) -> None:
    slow.evaluate("""() => {
      window.made = new Set();
      const [make, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
      URL.createObjectURL = (blob) => { const a = make(blob); window.made.add(a); return a; };
      URL.revokeObjectURL = (a) => { window.made.delete(a); revoke(a); };
    }""")
    for width in (80, 90):
        choose(slow, tmp_path / f"{width}.png", (width, 50))
        opened(slow, (width, 50))
    slow.wait_for_function("() => window.made.size === 0")


def test_the_brush_goes_without_a_mouse(slow: Page, tmp_path: Path) -> None:
    choose(slow, tmp_path / "photo.png", (200, 150))
    opened(slow, (200, 150))
    stage, told = slow.locator(".rn-stage"), slow.locator("[data-told]")
    assert not painted(slow).any()
    slow.locator("#rn-file").focus()
    for _ in range(12):
        slow.keyboard.press("Tab")
        if stage.evaluate("stage => stage === document.activeElement"):
            break
    how = slow.locator("#rn-how").bounding_box()
    assert how and how["height"] > 10  # shown to those who come with the keyboard
    press(slow, "Shift+ArrowLeft", "Shift+ArrowUp", "Enter", "ArrowRight", "ArrowRight")
    expect(told).to_contain_text(re.compile(r"Painting at \d+ % across, \d+ % down"))
    press(slow, "Enter", "Shift+ArrowRight")  # lifted: it paints no more
    expect(told).to_contain_text("Brush at")
    hole = painted(slow)
    rows, columns = np.nonzero(hole)
    assert 0 < rows.mean() < 75 and 0 < columns.mean() < 100
    assert np.ptp(columns) > np.ptp(rows) > 0
    press(slow, "Enter", "ArrowDown", "Control+z")  # what is begun is undone, too
    assert np.array_equal(painted(slow), hole)
    press(slow, "Enter", "ArrowDown", "Tab")  # what is begun stays where the photo is left
    assert painted(slow).sum() > hole.sum()
    slow.keyboard.press("Shift+Tab")
    press(slow, "e", "Enter", "Shift+ArrowLeft", "Shift+ArrowLeft", "Enter")
    assert 0 < painted(slow).sum() < hole.sum()
    press(slow, "b", "+", "+", *["Shift+ArrowDown"] * 12, "Enter")
    assert painted(slow)[-1].any()
    assert slow.locator(".rn-cursor").evaluate(SEEN)
    press(slow, "Control+Enter")
    slow.locator("body[data-asked]").wait_for()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


# Whether the middle of an element is in what its stage shows.
SEEN = """(it) => {
  const [own, stage] = [it, it.closest('.rn-stage')].map((one) => one.getBoundingClientRect());
  const middle = (own.top + own.bottom) / 2;
  return stage.top <= middle && middle <= stage.bottom && middle <= innerHeight;
}"""


KEPT = "async () => (await (await caches.open('regionnorm')).keys()).map((key) => key.url)"


def test_the_page_opens_where_the_browser_has_no_room_to_keep_it(page: Page, address: str) -> None:
    assert page.context.browser
    context = page.context.browser.new_context()
    full = context.new_page()
    full.set_default_timeout(PATIENCE)
    try:
        context.new_cdp_session(full).send(
            "Storage.overrideQuotaForOrigin", {"origin": address.rstrip("/"), "quotaSize": 1}
        )
        full.goto(address)
        full.locator("body[data-ready=isolated]").wait_for()
        assert full.evaluate(KEPT) == []
    finally:
        context.close()


def test_the_page_opens_without_a_network_once_it_was_there(page: Page, address: str) -> None:
    again = page.context.new_page()
    page.context.set_offline(True)
    try:
        again.goto(address)
        expect(again.locator("h1")).to_contain_text("Remove something")
        expect(again.locator("body")).to_have_attribute("data-ready", "isolated")
    finally:
        page.context.set_offline(False)
        again.close()


# --- any size ------------------------------------------------------------------------------------

# Fills photo.png with mask.png by a network that paints waves on the fill by diffusion.
IN_THE_BROWSER = """
async () => {
  const { fillHoles, pushPull } = await import('./fill.js');
  const read = async (name) => {
    const file = await (await fetch(name, { cache: 'no-store' })).blob();
    const picture = await createImageBitmap(file);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const pen = canvas.getContext('2d');
    pen.drawImage(picture, 0, 0);
    return { canvas, pen, data: pen.getImageData(0, 0, canvas.width, canvas.height) };
  };
  const [photo, mask] = [await read('photo.png'), await read('mask.png')];
  const { width, height } = photo.canvas;
  const bytes = photo.data.data;
  const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) =>
    bytes[4 * Math.floor(i / 3) + (i % 3)]);
  const hole = Uint8Array.from({ length: width * height }, (_, i) => mask.data.data[4 * i] > 127);
  const network = async (image, inside, h, w) => pushPull(image, inside, h, w).map(
    (v, i) => v + 0.1 * Math.sin((i % w) / 3) * Math.cos(Math.floor((i % (h * w)) / w) / 5));
  const filled = await fillHoles(network, pixels, hole, height, width);
  filled.forEach((v, i) => { bytes[4 * Math.floor(i / 3) + (i % 3)] = v; });
  photo.pen.putImageData(photo.data, 0, 0);
  return photo.canvas.toDataURL('image/png');
}
"""


def waves(image: Tensor, mask: Tensor) -> Tensor:
    height, width = mask.shape[-2:]
    down, across = torch.arange(height)[:, None] / 5, torch.arange(width) / 3
    return push_pull(image, mask) + 0.1 * across.sin() * down.cos()


def box(*corners: tuple[int, int, int, int]) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda draw: [draw.rectangle(each, fill=255) for each in corners]  # type: ignore


CASES: dict[str, tuple[tuple[int, int], float, Callable[[ImageDraw.ImageDraw], None]]] = {
    "deep": ((401, 371), 1, box((90, 80, 330, 300))),
    "deep-and-in-tiles": ((806, 740), 1, box((70, 60, 500, 480))),
    "many-some-joined": ((700, 300), 1, box(*((x, x // 5, x + 9, 150) for x in range(5, 690, 97)))),
    "pale": ((150, 120), 0.1, box((40, 40, 90, 70))),
    "even": ((150, 120), 0.01, box((40, 40, 90, 70))),
    "tiny": ((11, 9), 1, box((3, 3, 6, 6))),
    "whole-edge": ((300, 64), 1, box((0, 0, 140, 63))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_photo_pipeline_in_the_browser_is_that_of_the_package(
    case: str, page: Page, folder: Path, make_photo: Maker
) -> None:
    size, contrast, draw = CASES[case]
    pale = 100 + contrast * (np.asarray(make_photo(*size), np.float32) - 100)
    photo, mask = Image.fromarray(pale.astype(np.uint8)), Image.new("L", size)
    draw(ImageDraw.Draw(mask))
    photo.save(folder / "photo.png")
    mask.save(folder / "mask.png")
    found = np.asarray(decoded(page.evaluate(IN_THE_BROWSER)).convert("RGB")).astype(int)
    hole = np.asarray(mask) > 127
    with torch.inference_mode():
        wanted = fill_holes(conditioned(waves), np.asarray(photo), hole)
    assert np.array_equal(found[~hole], np.asarray(photo)[~hole])
    assert np.abs(found - wanted).max() <= 2
    assert np.abs(found - wanted).mean() < 0.05


# --- writing it ----------------------------------------------------------------------------------


def test_the_command_writes_a_page_that_names_no_other_place(
    folder: Path, tmp_path: Path, run_cli: RunCli, small_weights: Path
) -> None:
    package = tmp_path / "runtime.tgz"
    package.write_bytes(runtime_or_skip())
    with tarfile.open(package) as unpacked:
        for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
            unpacked.extract(f"package/dist/{name}", tmp_path, filter="data")
    out = tmp_path / "page"
    code, said, _ = run_cli(
        "export", small_weights, "--site", out, "--runtime", tmp_path / "package"
    )
    assert code == 0 and "python -m http.server" in said
    names = {file.relative_to(out) for file in out.rglob("*") if file.is_file()}
    there = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    assert names == there - {Path("photo.png"), Path("mask.png")}
    for file in out.glob("*"):
        if file.suffix in (".html", ".js", ".css"):
            assert not re.search(r"https?://", file.read_text(encoding="utf-8")), file


def test_a_runtime_that_is_another_is_refused(
    tmp_path: Path, run_cli: RunCli, small_weights: Path
) -> None:
    (tmp_path / "other.tgz").write_bytes(b"another")
    out = tmp_path / "page"
    for runtime, message in (
        (tmp_path / "other.tgz", "its sha512 differs"),
        (tmp_path, "holds no ort.wasm.bundle.min.mjs"),
        (tmp_path / "none.tgz", "none.tgz: No such file"),
    ):
        code, _, err = run_cli("export", small_weights, "--site", out, "--runtime", runtime)
        assert code == 2 and message in err and err.count("\n") == 1
    model = tmp_path / "x.onnx"
    code, _, err = run_cli("export", small_weights, model, "--site", out, "--runtime", tmp_path)
    assert code == 2 and "holds no ort" in err and not model.exists()
    code, _, err = run_cli("export")
    assert code == 2 and "nothing to write" in err
    code, _, err = run_cli("export", "default", tmp_path / "x.onnx", "--runtime", tmp_path)
    assert code == 2 and "--runtime goes with --site" in err
    assert not out.exists()


def test_the_runtime_comes_through_npm_or_from_the_registry_that_npm_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the package"
    monkeypatch.setattr(site, "_SHA512", hashlib.sha512(content).hexdigest())

    def npm(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["pack", f"onnxruntime-web@{site.RUNTIME}"]
        target = Path(command[command.index("--pack-destination") + 1])
        if "--offline" not in command:
            (target / "package.tgz").write_bytes(content)
        return subprocess.CompletedProcess(command, int("--offline" in command), "", "ENOTCACHED")

    monkeypatch.setattr(site.subprocess, "run", npm)
    monkeypatch.setattr(site.shutil, "which", lambda _: "npm")
    assert site.fetch_runtime() == content
    with pytest.raises(ValueError, match="ENOTCACHED.*give the file as runtime"):
        site.fetch_runtime(offline=True)

    asked = []

    def open_(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(site.urllib.request, "urlopen", open_)
    monkeypatch.setattr(site.shutil, "which", lambda _: None)
    for registry in (None, "https://mirror/npm/"):
        if registry:
            monkeypatch.setenv("npm_config_registry", registry)
        else:
            monkeypatch.delenv("npm_config_registry", raising=False)
        assert site.fetch_runtime() == content
    name = f"onnxruntime-web/-/onnxruntime-web-{site.RUNTIME}.tgz"
    assert asked == [f"https://registry.npmjs.org/{name}", f"https://mirror/npm/{name}"]
    monkeypatch.setattr(site.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"other"))
    with pytest.raises(ValueError, match="sha512 differs"):
        site.fetch_runtime()
