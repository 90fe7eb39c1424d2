"""The CSV report of a run over many photos: a line for each, added to what is there."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from regionnorm.files.remote import RemotePath, as_place
from regionnorm.files.whole import atomic_path

__all__ = ["csv_report"]

_COLUMNS = ("photo", "mask", "result", "status", "width", "height", "hole_percent", "seconds")
_HEADER = (*_COLUMNS, "message")
# Elsewhere a file cannot be added to: all of it is written anew, this many seconds apart.
_EVERY = 20.0

Row = Sequence[object]


@contextmanager
def csv_report(path: str | os.PathLike[str] | None) -> Iterator[Callable[[Row], None]]:
    """Open a report to add to: yields what writes a photo's line.

    Here every line is on disk before the next photo is done; behind a URL the report is written
    anew every 20 seconds and at the end, also of a run that is interrupted.

    Raises:
        OSError: It cannot be written to.
        ValueError: There is another file.
    """
    if path is None:
        yield lambda row: None
        return
    target = as_place(path)
    if isinstance(target, RemotePath):
        with _elsewhere(target) as write:
            yield write
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # backslashreplace: names that are no valid UTF-8 should not cost the report.
        file = target.open("a+", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OSError(f"cannot write the report {target}: {error.strerror or error}") from error
    with file:
        _start(file, target)
        writer = csv.writer(file)

        def write_row(row: Row) -> None:
            writer.writerow(row)
            file.flush()

        yield write_row


@contextmanager
def _elsewhere(target: RemotePath) -> Iterator[Callable[[Row], None]]:
    file = io.StringIO(newline="")
    if target.is_file():
        file.write(target.read_bytes().decode("utf-8", "replace"))
    _start(file, target)
    file.seek(0, io.SEEK_END)
    writer, written = csv.writer(file), time.monotonic()

    def send() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(file.getvalue().encode("utf-8", "backslashreplace"))

    def write_row(row: Row) -> None:
        nonlocal written
        writer.writerow(row)
        if time.monotonic() - written >= _EVERY:
            send()
            written = time.monotonic()

    send()  # before the first photo: a place that cannot be written to is told at once
    try:
        yield write_row
    finally:
        send()


def _start(file: TextIO, target: Path | RemotePath) -> None:
    file.seek(0)
    try:
        first = file.readline(10_000)
    except UnicodeDecodeError:
        first = "\0"
    if not first:
        csv.writer(file).writerow(_HEADER)
    elif next(csv.reader([first]), []) != list(_HEADER):
        raise ValueError(f"{target} exists and is no report of this program; name another file")
    else:
        _end_last_line(file)


def _end_last_line(file: TextIO) -> None:
    """Close a line that a killed run was writing, so that the next one is a row of its own."""
    file.seek(0)
    quotes, last = 0, ""
    while chunk := file.read(1 << 20):
        quotes, last = quotes + chunk.count('"'), chunk[-1]
    if last != "\n" or quotes % 2:
        file.write('"' * (quotes % 2) + "\r\n")
