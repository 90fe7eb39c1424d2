"""Sixty clients at once at the service, slow ones among them, and a SIGTERM while they wait.

    python benchmarks/load_serve.py --clients 60

``regionnorm serve`` runs in a process of its own. Every client has a photo and a mask that no other
has, tries again when it is told to (429), and compares the answer with what the library makes of
that photo; every sixth sends a piece now and then, every twelfth never ends. When the others have
their answers, a few more are sent and the service is told to stop: these have to be answered too.
Saves ``out/bench/load-serve.json``.
"""

from __future__ import annotations

import argparse
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
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from regionnorm.files.whole import atomic_path
from regionnorm.filling.inpainter import Inpainter

BOUNDARY = "boundary-of-the-load-test"
PATIENCE = 8.0  # seconds, of the service
QUEUE = 8


def main() -> int:
    """Send, compare, print and save; 1 if an answer is wrong or missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--side", type=int, default=160, help="of the photos, in pixels")
    parser.add_argument("--out", type=Path, default=Path("out/bench/load-serve.json"))
    arguments = parser.parse_args()
    pairs = [make_pair(number, arguments.side) for number in range(arguments.clients)]
    figures = Load(pairs).run()
    for name, value in figures.items():
        print(f"{name:<40} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(figures["wrong or missing"] + figures["lost at the end"] > 0)


class Load:
    """The service and its clients."""

    def __init__(self, pairs: list[tuple[Image.Image, Image.Image]]) -> None:
        self.pairs = pairs
        self.statuses: Counter[int] = Counter()
        self.lock = threading.Lock()
        command = [sys.executable, "-m", "regionnorm", "serve", "--port", "0", "--jobs", "2"]
        command += ["--max-queue", str(QUEUE), "--patience", str(PATIENCE), "--method", "network"]
        command += ["--device", "cpu", "--precision", "fp32"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline())[1])  # type: ignore[index]
        self.idle = self.most = self.memory()

    def run(self) -> dict[str, float]:
        """Everything, in order."""
        watching = threading.Event()
        watcher = threading.Thread(target=self.watch, args=[watching])
        watcher.start()
        start = time.monotonic()
        with ThreadPoolExecutor(len(self.pairs)) as pool:
            answers = list(pool.map(self.client, range(len(self.pairs))))
        seconds = time.monotonic() - start
        with ThreadPoolExecutor(QUEUE) as pool:
            last = [pool.submit(self.send, number) for number in range(QUEUE)]
            time.sleep(0.5)
            self.process.send_signal(signal.SIGTERM)
            ends = [answer.result()[0] for answer in last]
        code = self.process.wait()
        watching.set()
        watcher.join()
        inpainter = Inpainter(device="cpu", precision="fp32", method="network")
        wanted = [number for number in range(len(self.pairs)) if number % 12 != 11]
        wrong = sum(not self.right(inpainter, number, answers[number]) for number in wanted)
        return {
            "clients": len(self.pairs),
            "of them slow": sum(number % 6 == 5 for number in range(len(self.pairs))),
            "seconds": round(seconds, 1),
            **{f"answers {status}": count for status, count in sorted(self.statuses.items())},
            "wrong or missing": wrong,
            "never sent, told 408": sum(
                answers[n] is None for n in set(range(len(answers))) - {*wanted}
            ),
            "memory when idle, MB": self.idle,
            "most memory, MB": self.most,
            "sent before SIGTERM": len(ends),
            "lost at the end": sum(status not in (200, 429, 503) for status in ends),
            "exit code": code,
        }

    def client(self, number: int) -> bytes | None:
        """A client's photo, filled; None for one that was sent away for good."""
        while True:
            status, after, content = self.send(number)
            with self.lock:
                self.statuses[status] += 1
            if status != 429:
                return content if status == 200 else None
            time.sleep(min(after, 5))

    def send(self, number: int) -> tuple[int, int, bytes]:
        """Status, Retry-After and content of an answer."""
        body = form(*self.pairs[number])
        head = f"POST /fill HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            connection.sendall(head.encode())
            if number % 12 == 11:  # never ends
                connection.sendall(body[: len(body) // 2])
            elif number % 6 == 5:  # a piece now and then
                for start in range(0, len(body), len(body) // 8 + 1):
                    connection.sendall(body[start : start + len(body) // 8 + 1])
                    time.sleep(0.2)
            else:
                connection.sendall(body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, int(answer.headers.get("Retry-After", 0)), answer.read()

    def right(self, inpainter: Inpainter, number: int, content: bytes | None) -> bool:
        """Whether an answer is what the library makes of this client's photo."""
        if content is None:
            return False
        photo, mask = self.pairs[number]
        given, expected = Image.open(io.BytesIO(content)), inpainter(photo, mask)
        # The service computes with other threads than this process: the last digit may differ.
        apart = np.abs(np.asarray(given).astype(int) - np.asarray(expected).astype(int))
        return given.size == expected.size and int(apart.max()) <= 1

    def memory(self) -> int:
        """What the service holds, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) // 1024 if found else 0

    def watch(self, end: threading.Event) -> None:
        """Look at the memory until the service has ended."""
        while not end.wait(0.1) and self.process.poll() is None:
            self.most = max(self.most, self.memory())


def make_pair(number: int, side: int) -> tuple[Image.Image, Image.Image]:
    """A photo and a mask of their own."""
    random = np.random.default_rng(number)
    width, height = side + number, side
    ramp = np.linspace(random.integers(0, 100, 3), random.integers(150, 255, 3), width)
    photo = np.repeat(ramp[None], height, 0) + random.normal(0, 6, (height, width, 3))
    mask = np.zeros((height, width), np.uint8)
    top, left = random.integers(20, side // 2, 2)
    mask[top : top + 40, left : left + 40] = 255
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8)), Image.fromarray(mask)


def form(photo: Image.Image, mask: Image.Image) -> bytes:
    """The body of a request."""
    body = b""
    for name, image in (("photo", photo), ("mask", mask)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        about = f'Content-Disposition: form-data; name="{name}"; filename="{name}.png"'
        body += f"--{BOUNDARY}\r\n{about}\r\n\r\n".encode() + buffer.getvalue() + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    sys.exit(main())
