"""A Ray cluster of two nodes on this machine against one process, from and to a bucket.

    python benchmarks/bench_cluster.py --photos 200

Fills the photos of an S3 server on this machine by ``--jobs 2``, then by two nodes with a worker
each, then once more with one worker killed and one node stopped on the way. Every result is
compared with that of one process, byte by byte, and a last run has to find nothing to do. Saves
``out/bench/cluster.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import fsspec
import torch
from buckets import BUCKET, bucket, fill_bucket, free_port

from regionnorm.cluster import Cluster, connect, filling
from regionnorm.files.whole import atomic_path
from regionnorm.filling.batch import BatchReport, Work, inpaint_path
from regionnorm.filling.inpainter import Inpainter

WARM = 20  # photos after which nothing is loaded or compiled any more


def main() -> int:
    """Measure, print and save; 1 if a result is wrong or missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--method", default="network")
    parser.add_argument("--out", type=Path, default=Path("out/bench/cluster.json"))
    arguments = parser.parse_args()
    # The nodes and their workers inherit these: a thread for each of two workers.
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    # This process too: with two threads convolutions round otherwise, in one photo of 50 a level.
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with bucket():
        fill_bucket(arguments.photos)
        figures = measure(arguments.photos, arguments.method)
    for name, value in figures.items():
        print(f"{name:<56} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(figures["wrong or missing"] + figures["done twice"] > 0)


def measure(count: int, method: str) -> dict[str, float]:
    """All runs one after the other."""
    make = partial(Inpainter, device="cpu", method=method)
    figures: dict[str, float] = {"photos": count}
    inpainter = make()
    clock = Clock()
    fill(inpainter, "one", clock, jobs=2)
    figures |= clock.figures("--jobs 2")
    with nodes() as (address, client, head, second):
        before = processor_seconds([head.pid, second.pid])
        time.sleep(5)
        idle = (processor_seconds([head.pid, second.pid]) - before) / 5
        figures["both nodes without work: processor ms a second"] = round(1000 * idle, 1)
        clock = Clock(roots=(head.pid, second.pid))
        with connect(address, workers=2) as cluster:
            fill(None, "clean", clock, work=filling(cluster, make))
        figures |= clock.figures("cluster")

        def disturb(done: int) -> None:
            if done == count // 4:
                os.kill(workers(second.pid)[0], signal.SIGKILL)
            if done == count // 2:
                second.terminate()  # ends its node

        clock = Clock(disturb)
        with connect(address, workers=2) as cluster:
            report = fill(None, "broken", clock, work=filling(cluster, make))
        figures |= clock.figures("worker killed, node stopped")
        figures["failed"] = len(report.failed)
        clock = Clock()
        with connect(address, workers=1) as cluster:
            report = fill(None, "broken", clock, work=filling(cluster, make))
        figures["rerun: seconds"] = round(clock.last - clock.start, 2)
        figures["done twice"] = len(report.done)
        store = fsspec.filesystem("s3")
        store.rm([f"{BUCKET}/broken/{number:04d}.png" for number in range(5)])
        with patiently(client) as cluster:
            report = fill(None, "broken", Clock(), work=filling(cluster, make))
        figures["five removed: done again by ray://"] = len(report.done)
    figures["wrong or missing"] = compare("clean", count) + compare("broken", count)
    ours, theirs = (figures[f"{name}: processor ms a photo"] for name in ("--jobs 2", "cluster"))
    figures["overhead in processor time, %"] = round(100 * (theirs / ours - 1), 1)
    ours, theirs = figures["--jobs 2: photos/s"], figures["cluster: photos/s"]
    figures["overhead in time, %"] = round(100 * (ours / theirs - 1), 1)
    return figures


@contextmanager
def patiently(address: str) -> Iterator[Cluster]:
    """A cluster through Ray's client, whose server gives up where the machine is busy."""
    for last in (False, False, True):
        with ExitStack() as stack:
            try:
                cluster = stack.enter_context(connect(address, workers=1))
            except OSError:
                if last:
                    raise
                continue
            yield cluster
            return


class Clock:
    """When photos get done, and what processors have done by then, below these processes too."""

    def __init__(
        self, also: Callable[[int], None] = lambda _: None, roots: Sequence[int] = ()
    ) -> None:
        self.start, self.also, self.roots = time.monotonic(), also, roots
        self.times: list[float] = []
        self.used: list[float] = []

    @property
    def last(self) -> float:
        """When the last one was done."""
        return self.times[-1]

    def __call__(self, done: int, total: int, photo: object) -> None:
        """Note a photo."""
        self.times.append(time.monotonic())
        if done in (WARM, total):
            self.used.append(processor_seconds([os.getpid(), *self.roots]))
        self.also(done)

    def figures(self, name: str) -> dict[str, float]:
        """Seconds until the first photo, in all, and the rate once all is warm."""
        count = len(self.times) - WARM
        rate = count / (self.times[-1] - self.times[WARM - 1])
        work = 1000 * (self.used[1] - self.used[0]) / count
        return {
            f"{name}: seconds to the first photo": round(self.times[0] - self.start, 2),
            f"{name}: seconds": round(self.times[-1] - self.start, 2),
            f"{name}: photos/s": round(rate, 2),
            f"{name}: processor ms a photo": round(work, 1),
        }


def processor_seconds(roots: Sequence[int]) -> float:
    """What processes and those below them have used so far."""
    ticks = 0
    for pid in {pid for root in roots for pid in (root, *descendants(root))}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def fill(
    inpainter: Inpainter | None, out: str, clock: Clock, *, jobs: int = 1, work: Work | None = None
) -> BatchReport:
    """Fill the bucket's photos into one of its folders."""
    return inpaint_path(
        inpainter or (lambda photo, hole: photo),
        f"{BUCKET}/in",
        f"{BUCKET}/masks",
        f"{BUCKET}/{out}",
        report=f"{BUCKET}/{out}.csv",
        on_progress=clock,
        jobs=jobs,
        work=work,
    )


def compare(folder: str, count: int) -> int:
    """How many results are not, to the byte, those of one process."""
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    wrong = 0
    for number in range(count):
        name = f"{number:04d}.png"
        path = f"{BUCKET}/{folder}/{name}"
        wrong += not store.exists(path) or store.cat(path) != store.cat(f"{BUCKET}/one/{name}")
    return wrong


@contextmanager
def nodes() -> Iterator[tuple[str, str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """A head and a second node: the address, that for Ray's client, their processes."""
    port, client = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    ray += ["--disable-usage-stats", "--object-store-memory=200000000"]
    head = [*ray, "--head", f"--port={port}", f"--ray-client-server-port={client}"]
    head += ["--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    second = [*ray, f"--address={address}"]
    processes = []
    with tempfile.TemporaryFile() as log:
        try:
            for command in (head, second):
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(15)
                if processes[-1].poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode()[-2000:])
            yield address, f"ray://127.0.0.1:{client}", processes[0], processes[1]
        finally:
            for process in reversed(processes):
                below = descendants(process.pid)
                process.terminate()
                process.wait(60)
                for pid in below:  # what did not end with its node
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue


def workers(root: int) -> list[int]:
    """Processes of workers below a process."""
    return [
        pid
        for pid in descendants(root)
        if b"ray::_Worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found = re.search(r"^PPid:\s+(\d+)$", (entry / "status").read_text(), re.M)
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(found[1]) if found else 0
    below, level = [], [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        below += level
    return below


if __name__ == "__main__":
    sys.exit(main())
