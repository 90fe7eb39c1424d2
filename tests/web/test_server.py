"""The running app, asked as programs ask it: answers, limits, and what visitors cannot reach."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask
from regionnorm.web.server import AppOptions, _check_port, running

Maker = Callable[..., Image.Image]
RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def inpainter(small_weights: Path) -> Inpainter:
    return Inpainter(small_weights)


@pytest.fixture(scope="module")
def address(inpainter: Inpainter) -> Iterator[str]:
    """An app that is running."""
    with running(inpainter, AppOptions(port=0, max_megapixels=0.05)) as (_, url):
        yield url


@pytest.fixture(scope="module")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=120) as client:
        yield client


@pytest.fixture
def client(address: str, tmp_path: Path) -> Iterator[Client]:
    with closing_client(address, tmp_path) as made:
        yield made


class closing_client:
    """A ``gradio_client.Client`` for a with block."""

    def __init__(self, address: str, folder: Path, **options: object) -> None:
        options |= {"verbose": False, "httpx_kwargs": {"timeout": 120}}
        self.client = Client(address, download_files=folder / "got", **options)

    def __enter__(self) -> Client:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()


@pytest.fixture
def files(tmp_path: Path, make_photo: Maker) -> Callable[..., tuple[Path, Path]]:
    """``files(seed, suffix=".png")``: a photo and a mask that no other seed has."""

    def make(seed: int, suffix: str = ".png") -> tuple[Path, Path]:
        photo, mask = tmp_path / f"photo-{seed}{suffix}", tmp_path / f"mask-{seed}.png"
        width, height = 40 + seed, 52 - seed
        make_photo(width, height, seed=seed).save(photo)
        hole = Image.new("L", (width, height))
        hole.paste(255, (5 + seed, 8, 20 + seed, 30 - seed // 2))
        hole.save(mask)
        return photo, mask

    return make


def upload(http: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        return str(http.post("gradio_api/upload", files={"files": file}).json()[0])


def ask(
    http: httpx.Client, *paths: str, further: Sequence[object] = ()
) -> tuple[str, dict[str, object]]:
    """What a program without gradio's client does: post, then read the event."""
    data: list[object] = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
    data += further
    event = http.post("gradio_api/call/inpaint", json={"data": data}).json()["event_id"]
    lines = http.get(f"gradio_api/call/inpaint/{event}").text.splitlines()
    return lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))


def same(first: Path | Image.Image, second: Path | Image.Image) -> bool:
    one, two = (x if isinstance(x, Image.Image) else read_image(x) for x in (first, second))
    return bool((np.asarray(one) == np.asarray(two)).all())


# --- programs ------------------------------------------------------------------------------------


def test_inpaint_is_the_one_endpoint(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/inpaint"]
    names = [parameter["parameter_name"] for parameter in endpoints["/inpaint"]["parameters"]]
    assert names == ["image", "mask", "variant"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_answer_is_the_photo_filled_in_its_own_format(
    client: Client, files: Callable[..., tuple[Path, Path]], inpainter: Inpainter, suffix: str
) -> None:
    photo, mask = files(3, suffix)
    answer = client.predict(image=handle_file(photo), mask=handle_file(mask), api_name="/inpaint")
    assert Path(answer).name == f"photo-3-filled{suffix}"
    assert same(Path(answer), inpainter(read_image(photo), read_mask(mask)))


def test_programs_may_ask_for_a_variant(
    client: Client,
    http: httpx.Client,
    files: Callable[..., tuple[Path, Path]],
    inpainter: Inpainter,
) -> None:
    photo, mask = files(0)
    Image.new("L", (40, 52)).save(mask)
    with Image.open(mask) as hole:
        hole.paste(255, (8, 8, 34, 34))
        hole.save(mask)
    expected = [inpainter(read_image(photo), read_mask(mask), variant=v) for v in (0, 1)]
    assert not same(*expected)
    pair = [handle_file(photo), handle_file(mask)]
    answer = Path(client.predict(*pair, variant=1, api_name="/inpaint"))
    assert answer.name == "photo-0-filled-2.png"
    assert same(answer, expected[1])
    assert same(Path(client.predict(*pair, api_name="/inpaint")), expected[0])
    paths = [upload(http, path) for path in (photo, mask)]
    for further, variant in (((), 0), ((None,), 0), ((1,), 1), ((1.0,), 1)):
        kind, told = ask(http, *paths, further=further)
        assert kind == "complete"
        got = http.get(f"gradio_api/file={told[0]['path']}").content
        assert same(Image.open(io.BytesIO(got)), expected[variant])


@pytest.mark.parametrize("variant", [-1, 1.5, "two", 10**30, [1], {"value": 1}])
def test_variants_that_are_none_are_refused_in_one_line(
    http: httpx.Client, files: Callable[..., tuple[Path, Path]], variant: object
) -> None:
    paths = [upload(http, path) for path in files(1)]
    kind, answer = ask(http, *paths, further=[variant])
    assert kind == "error"
    assert re.fullmatch(r"variant is .+; give a whole number from 0 to 999", str(answer["error"]))


def test_what_is_missing_is_named(
    http: httpx.Client, files: Callable[..., tuple[Path, Path]]
) -> None:
    kind, answer = ask(http, upload(http, files(1)[0]))
    assert (kind, answer["error"]) == ("error", "there is no mask; send a file for it")


def test_what_cannot_be_filled_is_answered_with_one_line_of_json(
    http: httpx.Client, files: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    photo, mask = files(1)
    (tmp_path / "no photo.png").write_bytes(b"no photo")
    Image.new("L", (400, 300)).save(tmp_path / "large.png")
    cases = {
        (photo, files(2)[1]): "the mask is 42x50 but the upright photo is 41x51",
        (tmp_path / "no photo.png", mask): "no photo.png is no image",
        (tmp_path / "large.png", mask): "large.png is 400x300",
    }
    for paths, words in cases.items():
        kind, answer = ask(http, *(upload(http, path) for path in paths))
        assert kind == "error"
        assert words in str(answer["error"])
        assert "\n" not in str(answer["error"])
        assert os.environ["GRADIO_TEMP_DIR"] not in str(answer["error"])


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("call/unknown", {"data": []}, 404, "there is no endpoint 'unknown'; there is /inpaint"),
        ("call/inpaint", {}, 422, "data: Field required"),
        ("call/inpaint", b"{", 422, "the request's body is no JSON"),
        ("call/v2/inpaint", {"image": 1}, 400, "cannot be answered"),
        ("nothing", {}, 404, "there is nothing at this address"),
    ],
)
def test_what_cannot_be_read_is_answered_with_one_line_of_json(
    http: httpx.Client, path: str, body: dict[str, object] | bytes, status: int, words: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"gradio_api/{path}", content=content, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]


@pytest.mark.parametrize("file", [5, "a.png", {"path": 5}, {"path": "/tmp"}, {"url": "x"}])
def test_inputs_that_are_no_uploaded_files_are_refused_in_one_line(
    http: httpx.Client, file: object
) -> None:
    event = http.post("gradio_api/call/inpaint", json={"data": [file, None]}).json()["event_id"]
    kind, answer = http.get(f"gradio_api/call/inpaint/{event}").text.splitlines()[:2]
    error = json.loads(answer.removeprefix("data: "))["error"]
    assert kind == "event: error"
    assert "\n" not in error and "upload" in error
    assert os.environ["GRADIO_TEMP_DIR"] not in error


def test_many_requests_at_once_are_answered_and_none_mixed_up(
    client: Client, files: Callable[..., tuple[Path, Path]], inpainter: Inpainter
) -> None:
    pairs = [files(seed) for seed in range(8)]
    jobs = [
        client.submit(image=handle_file(photo), mask=handle_file(mask), api_name="/inpaint")
        for photo, mask in pairs
    ]
    for job, (photo, mask) in zip(jobs, pairs, strict=True):
        answer = Path(job.result(timeout=120))
        assert answer.name == f"{photo.stem}-filled.png"
        assert same(answer, inpainter(read_image(photo), read_mask(mask)))


def test_full_queue_sends_requests_away_politely(
    tmp_path: Path, files: Callable[..., tuple[Path, Path]]
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(image: Image.Image, mask: object) -> Image.Image:
        started.set()
        assert go_on.wait(120)
        return image

    pair = [handle_file(path) for path in files(0)]
    options = AppOptions(port=0, max_queue=1)
    with (
        running(slow, options) as (_, url),  # type: ignore[arg-type]
        closing_client(url, tmp_path) as client,
    ):
        first = client.submit(*pair, api_name="/inpaint")
        assert started.wait(120)
        others = [client.submit(*pair, api_name="/inpaint") for _ in range(2)]
        while not (refused := [job for job in others if job.done()]):
            time.sleep(0.02)
        with pytest.raises(Exception, match=r"many others are waiting|Queue is full"):
            refused[0].result()
        go_on.set()
        waited = [first, *(job for job in others if job is not refused[0])]
        assert all(Path(job.result(timeout=120)).is_file() for job in waited)


def test_programs_wait_in_one_line_in_the_order_they_came(
    tmp_path: Path, files: Callable[..., tuple[Path, Path]]
) -> None:
    started, go_on, filled = threading.Event(), threading.Event(), []

    def slow(image: Image.Image, mask: object) -> Image.Image:
        filled.append(image.size[0])
        started.set()
        assert go_on.wait(120)
        return image

    pair = [handle_file(path) for path in files(0)]
    with (
        running(slow, AppOptions(port=0)) as (_, url),  # type: ignore[arg-type]
        closing_client(url, tmp_path) as client,
        httpx.Client(base_url=f"{url.rstrip('/')}/page/", timeout=120) as http,
    ):
        first = client.submit(*pair, api_name="/inpaint")
        assert started.wait(120)
        second = client.submit(*pair, api_name="/inpaint")
        while second.status().code.name != "PROCESSING":
            time.sleep(0.05)
        time.sleep(0.5)  # it is in the line by then
        visitor = http.post("visitors").json()["visitor"]
        photo, stroke = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (99, 40)).save(photo, "PNG")
        Image.new("L", (9, 9), "white").save(stroke, "PNG")
        opened = http.post(f"{visitor}/photos?name=a.png", content=photo.getvalue()).json()
        fills = f"{visitor}/pictures/{opened['number']}/fills"
        with http.stream("POST", fills, content=stroke.getvalue()) as answer:
            places = []
            for line in answer.iter_lines():
                places.append(json.loads(line))
                go_on.set()
        assert (places[0]["ahead"], places[-1]["state"]) == (2, "done")
        assert all(Path(job.result(timeout=120)).is_file() for job in (first, second))
    assert filled[-1] == 99 and len(filled) == 3


# --- what nobody can reach -----------------------------------------------------------------------


def test_files_outside_and_of_others_cannot_be_reached(
    http: httpx.Client, files: Callable[..., tuple[Path, Path]]
) -> None:
    photo, mask = files(4)
    public = Path(os.environ["GRADIO_TEMP_DIR"])
    uploaded = Path(upload(http, photo))
    assert uploaded.is_relative_to(public)
    private = public.parent / "sessions" / "secret.png"
    private.parent.mkdir(exist_ok=True)
    private.write_bytes(photo.read_bytes())
    for path in (private, photo, Path("/etc/passwd"), public, uploaded.parent, public / "guess"):
        assert http.get(f"gradio_api/file={path}").status_code == 403
        kind, _ = ask(http, str(path), upload(http, mask))
        assert kind == "error"


def test_folders_are_for_this_user_alone(address: str) -> None:
    root = Path(os.environ["GRADIO_TEMP_DIR"]).parent
    assert root.stat().st_mode & 0o077 == 0


def test_server_fetches_nothing_for_visitors(http: httpx.Client, files: object) -> None:
    for path in (
        "gradio_api/file=https://example.org/a.png",
        "gradio_api/proxy=http://example.org",
    ):
        answer = http.get(path)
        assert answer.status_code == 403
        assert "fetches no files" in answer.json()["error"]
    kind, answer = ask(http, "https://example.org/a.png", "https://example.org/b.png")
    assert (kind, "upload it first" in str(answer["error"])) == ("error", True)


def test_too_large_requests_are_refused(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b"{}"

    assert http.post("gradio_api/queue/join", content=endless()).status_code == 411
    answer = http.post("gradio_api/queue/join", content=bytes(33 * 2**20))
    assert (answer.status_code, "33554432" in answer.json()["error"]) == (413, True)
    data = io.BytesIO(bytes(500_000))
    assert http.post("gradio_api/upload", files={"files": data}).status_code == 413


def test_password_is_asked_of_pages_files_and_programs(
    inpainter: Inpainter, tmp_path: Path, files: Callable[..., tuple[Path, Path]]
) -> None:
    photo, mask = files(5)
    with running(inpainter, AppOptions(port=0, password="open sesame")) as (_, url):
        with httpx.Client(base_url=url, timeout=120) as stranger:
            assert '"components":[],"dependencies":[]' in stranger.get("").text
            for path in ("config", "gradio_api/info", "gradio_api/file=/etc/passwd"):
                assert stranger.get(path).status_code == 401
            data = {"username": "me", "password": "wrong"}
            assert stranger.post("login", data=data).status_code == 400
            assert stranger.post("gradio_api/call/inpaint", json={"data": []}).status_code == 401
        with closing_client(url, tmp_path, auth=("anyone", "open sesame")) as client:
            answer = client.predict(handle_file(photo), handle_file(mask), api_name="/inpaint")
        assert same(Path(answer), inpainter(read_image(photo), read_mask(mask)))


# --- starting and stopping -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (AppOptions(port=70000), "port is 70000"),
        (AppOptions(max_megapixels=0), "max_megapixels is 0"),
        (AppOptions(max_queue=0), "max_queue is 0"),
        (AppOptions(password=""), "password is empty"),
    ],
)
def test_options_out_of_range_are_refused(
    inpainter: Inpainter, options: AppOptions, words: str
) -> None:
    with pytest.raises(ValueError, match=words), running(inpainter, options):
        pass


def test_taken_port_is_named(run_cli: RunCli, address: str, small_weights: Path) -> None:
    port = httpx.URL(address).port
    code, _, err = run_cli("app", "--port", port, "--model", small_weights)
    assert (code, err.count("\n")) == (2, 1)
    assert f"127.0.0.1:{port}" in err


def test_ports_are_looked_for_in_the_hosts_own_family() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert _check_port("::1", 0) > 0
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on ::1:{port}"):
            _check_port("::1", port)


def test_app_listens_on_this_computer_only_unless_told_otherwise() -> None:
    assert AppOptions().host == "127.0.0.1"


def test_app_fills_by_the_method_asked_for_and_loads_no_weights_for_pieces_of_the_photo(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_weights: Path
) -> None:
    served: list[Inpainter] = []
    monkeypatch.setattr("regionnorm.web.serve", lambda given, *_, **__: served.append(given))
    missing = tmp_path / "none.safetensors"
    assert run_cli("app", "--method", "exemplar", "--model", missing)[0] == 0
    assert run_cli("app", "--method", "network", "--model", small_weights)[0] == 0
    assert run_cli("app", "--model", small_weights)[0] == 0
    assert [given.method for given in served] == ["exemplar", "network", "auto"]
    assert [given.model is None for given in served] == [True, False, False]
    code, _, err = run_cli("app", "--method", "magic", "--model", small_weights)
    assert (code, "'magic' is not known" in err, err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_app_leaves_no_files(
    small_weights: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    command = [sys.executable, "-m", "regionnorm", "app", "--port", "0", "--model", small_weights]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, process.stderr.read()
        assert len(list(tmp_path.glob("regionnorm-app-*"))) == 1
        process.send_signal(stop)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert list(tmp_path.glob("regionnorm-app-*")) == []
