"""An S3 server on this machine and small photos in it, for the benchmarks beside this file."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import numpy as np
from PIL import Image, ImageDraw
from skimage import data

SIDE = 96
BUCKET = "s3://bench"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def bucket() -> Iterator[str]:
    """An empty bucket of a server that ends with the block; its address is in the environment."""
    port = free_port()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    # In a process of its own: it would take its share of the measured one's interpreter.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            fsspec.filesystem("s3").mkdir(BUCKET)
            yield BUCKET
        finally:
            server.terminate()


def photos(count: int) -> Iterator[Image.Image]:
    """Crops of scikit-image's own photos."""
    given = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    random = np.random.default_rng(0)
    for number in range(count):
        photo = given[number % len(given)]
        top, left = (int(random.integers(side - SIDE)) for side in photo.shape[:2])
        yield Image.fromarray(photo[top : top + SIDE, left : left + SIDE])


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def fill_bucket(count: int) -> None:
    """Photos in ``in/``, a mask for each in ``masks/``."""
    store = fsspec.filesystem("s3")
    random = np.random.default_rng(1)
    for number, photo in enumerate(photos(count)):
        mask = Image.new("L", photo.size)
        left, top = random.integers(10, 50, 2).tolist()
        ImageDraw.Draw(mask).ellipse((left, top, left + 30, top + 30), fill=255)
        store.pipe_file(f"{BUCKET}/in/{number:04d}.png", png(photo))
        store.pipe_file(f"{BUCKET}/masks/{number:04d}.png", png(mask))


def write_shards(count: int, shards: int) -> None:
    """The photos in tar shards in ``shards/``."""
    store = fsspec.filesystem("s3")
    made = [png(photo) for photo in photos(count)]
    for shard in range(shards):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number in range(shard, count, shards):
                member = tarfile.TarInfo(f"{number:04d}.png")
                member.size = len(made[number])
                archive.addfile(member, io.BytesIO(made[number]))
        store.pipe_file(f"{BUCKET}/shards/{shard:03d}.tar", buffer.getvalue())
