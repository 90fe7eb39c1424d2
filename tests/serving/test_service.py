"""The service: what it answers, whom it refuses, how it ends."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regionnorm.filling.inpainter import Inpainter, inpaint_path
from regionnorm.serving.service import ServiceOptions, build_service
from regionnorm.stopping import stop_if_asked

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
uvicorn = pytest.importorskip("uvicorn")

Maker = Callable[..., Image.Image]
Answer = tuple[int, http.client.HTTPMessage, bytes]
BOUNDARY = "b-o-u-n-d"


class Slow(Inpainter):
    """Fills holes with the photo's first pixel when it is let go on."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())
        self.go = threading.Event()
        self.begun = self.most = self.now = 0

    def fill_photo(self, photo: Any, hole: Any, **_: Any) -> Any:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while not self.go.wait(0.01):
                stop_if_asked()
        finally:
            self.now -= 1
        colours = photo.colours()
        return photo.filled(np.broadcast_to(colours[:1, :1], colours.shape), hole)


@contextmanager
def running(inpainter: Inpainter, **options: Any) -> Iterator[int]:
    """The port of a service with these limits."""
    with served(build_service(inpainter, ServiceOptions(**options))) as port:
        yield port


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The port at which an app answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def service(small_weights: Path) -> Iterator[int]:
    with running(Inpainter(small_weights, device="cpu"), max_megapixels=0.01) as port:
        yield port


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def form(**parts: bytes | str) -> bytes:
    body = b""
    for name, part in parts.items():
        file = isinstance(part, bytes)
        ending = "jpg" if file and part[:2] == b"\xff\xd8" else "png"
        file_name = f'; filename="../../{name}.{ending}"' if file else ""
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        body += f"{file_name}\r\n\r\n".encode() + (part if file else part.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def head_of(body: bytes) -> bytes:
    head = f"POST /fill HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nContent-Type: "
    return f"{head}multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()


def ask(port: int, path: str = "/fill", body: bytes | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


# --- what it answers -----------------------------------------------------------------------------


def test_photo_comes_back_filled_as_the_inpainter_fills_it(
    service: int, small_weights: Path, make_photo: Maker, make_mask: Maker, tmp_path: Path
) -> None:
    photo, mask = make_photo(80, 60), make_mask(80, 60)
    mask.paste(128, (30, 20, 40, 30))  # shows half of the fill
    status, headers, content = ask(service, body=form(photo=png(photo), mask=png(mask)))
    assert (status, headers["Content-Type"]) == (200, "image/png")
    for name, image in (("photo", photo), ("mask", mask)):
        image.save(tmp_path / f"{name}.png")
    inpaint_path(
        Inpainter(small_weights, device="cpu"),
        *(tmp_path / name for name in ("photo.png", "mask.png", "filled.png")),
    )
    assert content == (tmp_path / "filled.png").read_bytes()


def test_formats_rules_and_options_are_those_of_the_command_line(
    service: int, make_photo: Maker, make_mask: Maker
) -> None:
    photo = make_photo(80, 60)
    status, headers, content = ask(
        service, body=form(photo=png(photo, "JPEG"), mask=png(make_mask(40, 30)), fit_mask="true")
    )
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert 'filename="filled.jpg"' in headers["Content-Disposition"]
    photo.paste("#ff00ff", (10, 10, 30, 30))
    status, _, content = ask(service, body=form(photo=png(photo), rule="color:#ff00ff"))
    assert status == 200
    assert Image.open(io.BytesIO(content)).getpixel((20, 20)) != (255, 0, 255)


def test_what_watches_it_is_answered(service: int) -> None:
    assert json.loads(ask(service, "/healthz")[2])["status"] == "ok"
    assert json.loads(ask(service, "/readyz")[2]) == {"status": "ready"}
    ask(service, body=form(photo=b"no photo", rule="alpha"))
    status, headers, content = ask(service, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert re.search(rb'^regionnorm_requests_total\{code="400"\} [1-9]', content, re.M)
    assert b"regionnorm_fill_seconds_bucket" in content
    assert b"\nregionnorm_running 0.0\n" in content


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ({"rule": "alpha"}, 400, "the form has no file 'photo'"),
        ({"photo": b"x"}, 400, "send either a file 'mask' or a field 'rule'"),
        ({"photo": b"x", "mask": b"y", "rule": "alpha"}, 400, "send either a file"),
        ({"photo": b"x", "rule": "/etc/passwd"}, 400, "rule '/etc/passwd' is not known"),
        ({"photo": b"x", "rule": "alpha", "method": "magic"}, 400, "method 'magic' is not known"),
        ({"photo": b"x", "rule": "alpha", "dilate": "-1"}, 400, "dilate is '-1'"),
        ({"photo": b"x", "rule": "alpha", "size": "9"}, 400, "the form has 'size'; known are"),
        ({"photo": b"x", "rule": "alpha"}, 400, "photo.png is no image this program can read"),
        ({"photo": "text", "rule": "alpha"}, 400, "the form has no file 'photo'"),
        ({"photo": b"x" * 2**21, "rule": "alpha"}, 413, "larger than 1128576 bytes"),
    ],
)
def test_what_cannot_be_filled_is_one_line(
    service: int, parts: dict[str, Any], status: int, words: str
) -> None:
    got, _, content = ask(service, body=form(**parts))
    reason = json.loads(content)["error"]
    assert (got, "\n" in reason, "/tmp" in reason) == (status, False, False)
    assert reason.startswith("the request is") or words in reason
    assert words in reason


def test_messages_name_no_options_of_the_command_line(
    service: int, make_photo: Maker, make_mask: Maker
) -> None:
    photo = png(make_photo(32, 24))
    status, _, content = ask(service, body=form(photo=photo, mask=png(make_mask(31, 24))))
    reason = json.loads(content)["error"]
    assert status == 400 and "--" not in reason and "or have it scaled" in reason
    status, _, content = ask(service, body=form(photo=photo, rule="alpha"))
    assert status == 400 and "--" not in str(content)


def test_what_is_no_form_is_refused_unread(service: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service, timeout=30)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/fill", b"a=1&" * 10_000, headers)
    answer = connection.getresponse()
    assert answer.status == 400
    assert "send a form, multipart/form-data" in json.loads(answer.read())["error"]
    connection.close()


def test_what_fails_unexpectedly_is_said_and_counted(
    make_photo: Maker,
    make_mask: Maker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr("regionnorm.serving.service._Service._answer", fail)
    body = form(photo=png(make_photo(40, 30)), mask=png(make_mask(40, 30)))
    inpainter = Slow()
    inpainter.go.set()
    with running(inpainter) as port:
        status, headers, content = ask(port, body=body)
        assert (status, headers["Content-Type"]) == (500, "application/json")
        assert "failed on the server" in json.loads(content)["error"]
        counted = ask(port, "/metrics")[2]
    assert re.search(rb'^regionnorm_requests_total\{code="500"\} 1', counted, re.M)
    assert "KeyError" in caplog.text


def test_it_works_below_a_path(small_weights: Path, make_photo: Maker, make_mask: Maker) -> None:
    starlette = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    service = build_service(Inpainter(small_weights, device="cpu"), ServiceOptions())
    above = starlette.Starlette(routes=[routing.Mount("/x", service)])
    body = form(photo=png(make_photo(40, 30)), mask=png(make_mask(40, 30)))
    with served(above) as port:
        assert ask(port, "/x/readyz")[0] == 200
        assert ask(port, "/x/fill", body=body)[0] == 200
        assert ask(port, "/x/fill", body=form(rule="alpha"))[0] == 400


def test_photos_of_too_many_pixels_are_not_decoded(service: int, make_mask: Maker) -> None:
    huge = png(Image.new("1", (3000, 2000)))
    for parts in ({"photo": huge, "rule": "alpha"}, {"photo": png(make_mask(9, 9)), "mask": huge}):
        status, _, content = ask(service, body=form(**parts))
        assert status == 400 and "3000x2000, 6 megapixels; up to 0.01 are taken" in str(content)


def test_more_than_may_wait_are_told_when_to_come_back(make_photo: Maker, make_mask: Maker) -> None:
    inpainter = Slow()
    photos = [make_photo(40, 30, seed=number) for number in range(12)]
    mask = png(make_mask(40, 30))

    def send(photo: Image.Image) -> Answer:
        return ask(port, body=form(photo=png(photo), mask=mask))

    with running(inpainter, jobs=2, max_queue=3) as port, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(send, photo) for photo in photos]
        while sum(answer.done() for answer in answers) < 7 or inpainter.now < 2:
            time.sleep(0.01)
        inpainter.go.set()
        done = [answer.result() for answer in answers]
    assert sorted(status for status, _, _ in done) == [200] * 5 + [429] * 7
    assert inpainter.most == 2
    for photo, (status, headers, content) in zip(photos, done, strict=True):
        if status == 429:
            assert int(headers["Retry-After"]) >= 1
            continue
        filled = Image.open(io.BytesIO(content))  # none is another's
        assert filled.getpixel((20, 15)) == filled.getpixel((0, 0)) == photo.getpixel((0, 0))


def test_slow_clients_hold_nobody_up(make_photo: Maker, make_mask: Maker) -> None:
    inpainter = Slow()
    inpainter.go.set()
    body = form(photo=png(make_photo(40, 30)), mask=png(make_mask(40, 30)))
    with running(inpainter, max_open=3, patience=1.5) as port:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
        for connection in slow:
            connection.sendall(head_of(body) + body[:100])
        assert ask(port, body=body)[0] == 200
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
            connection.close()


def test_who_has_gone_keeps_no_place(make_photo: Maker, make_mask: Maker) -> None:
    inpainter = Slow()
    body = form(photo=png(make_photo(40, 30)), mask=png(make_mask(40, 30)))

    def count(name: str) -> int:
        found = re.search(rf"^regionnorm_{name} (\d+)", ask(port, "/metrics")[2].decode(), re.M)
        assert found
        return int(found[1])

    def wait_until(running: int, waiting: int) -> None:
        until = time.monotonic() + 20
        while (count("running"), count("waiting")) != (running, waiting):
            if time.monotonic() > until:
                inpainter.go.set()  # else the service would never end
                pytest.fail(f"still not {running} running and {waiting} waiting")
            time.sleep(0.02)

    with running(inpainter, jobs=1, max_queue=1) as port:
        clients = []
        for number in range(2):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            clients[-1].sendall(head_of(body) + body)
            wait_until(1, number)
        clients.pop().close()  # it has waited in vain
        wait_until(1, 0)
        clients.pop().close()  # its photo is being filled
        wait_until(0, 0)
        assert (inpainter.begun, inpainter.now) == (1, 0)
        inpainter.go.set()
        assert ask(port, body=body)[0] == 200
    assert inpainter.begun == 2


# --- how it ends ---------------------------------------------------------------------------------


def test_stopped_service_finishes_what_it_has_taken_on(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import time\n"
        "import torch\n"
        "from regionnorm.filling.inpainter import Inpainter\n"
        "from regionnorm.serving import serve\n"
        "class Slow(Inpainter):\n"
        "    def fill_photo(self, photo, hole, **_):\n"
        "        print('filling', flush=True)\n"
        "        time.sleep(1)\n"
        "        return photo\n"
        "serve(Slow(torch.nn.Identity()), port=0, on_start=lambda url: print(url, flush=True))\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        body = form(photo=png(make_photo(40, 30)), mask=png(make_mask(40, 30)))
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(ask, port, body=body) for _ in range(2)]
            assert process.stdout.readline() == "filling\n"
            time.sleep(0.2)  # the other one waits by then
            process.send_signal(signal.SIGTERM)
            assert [answer.result()[0] for answer in answers] == [200, 200]
        assert process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/healthz")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_first_request_ends_it_well(
    tmp_path: Path, stop: signal.Signals
) -> None:
    script = tmp_path / "compiling.py"
    script.write_text(
        "import time\n"
        "import torch\n"
        "from regionnorm.filling.inpainter import Inpainter\n"
        "from regionnorm.serving import serve\n"
        "class Compiling(Inpainter):\n"
        "    def warm_up(self):\n"
        "        time.sleep(60)\n"
        "tell = lambda url: print(url, flush=True)\n"
        "serve(Compiling(torch.nn.Identity()), port=0, on_start=tell)\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "http" in process.stdout.readline()
        process.send_signal(stop)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
