"""What a run tells: CSV, TensorBoard, sample pictures and a line or a bar on the terminal."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from regionnorm.files.whole import atomic_path
from regionnorm.imaging import composite, tensor_to_image, write_image

__all__ = ["Logs", "Meter", "save_grid"]


class Logs:
    """Scalars by step, kept in ``log.csv`` and, where it is installed, in TensorBoard.

    Rows later than ``step`` are dropped at the start: they belong to a part of the run that a
    resumed run repeats.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_up_to(step)
        self.board: Any = None
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row per value: step, name, value."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([step, key, f"{value:.6g}"] for key, value in values.items())
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self.board is not None:
            self.board.close()

    def _keep_up_to(self, step: int) -> None:
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                # A killed process may have left half a last line.
                rows = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "name", "value"])
            writer.writerows(row for row in rows if int(row[0]) <= step)


LINE_SECONDS = 10.0
"""The longest that a run without a bar takes steps and says nothing."""


class Meter:
    """Progress of a run on the terminal: a bar, or plain lines where there is no terminal."""

    def __init__(self, start: int, total: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)
        self.start, self.total = start, total
        self.began = self.last = time.monotonic()
        self.due = 0.0  # where there is no bar, the first step is told at once
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=total, completed=start, text="")
        self.photos: TaskID | None = None

    def __enter__(self) -> Meter:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step)
        if not self.console.is_terminal and time.monotonic() >= self.due:
            self.due = time.monotonic() + LINE_SECONDS
            self.console.print(f"step {step}/{self.total}")

    def report(
        self, step: int, values: Mapping[str, float], minutes_left: float | None = None
    ) -> None:
        """Show values, on the bar or as a line with the time left, by default by the pace."""
        text = " ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.bar.update(self.task, text=text)
        self.due = time.monotonic() + LINE_SECONDS
        if not self.console.is_terminal:
            pace = (time.monotonic() - self.began) / max(step - self.start, 1)
            left = (self.total - step) * pace / 60 if minutes_left is None else minutes_left
            self.console.print(f"step {step}/{self.total} {text} left {left:.0f} min")

    def decoding(self, done: int, total: int) -> None:
        """Show how many photos are decoded: a bar of its own, or a line for each quarter."""
        if self.photos is None:
            self.photos = self.bar.add_task("decoding", total=total, text="")
        self.bar.update(self.photos, completed=done, visible=done < total)
        if not self.console.is_terminal and 4 * done // total > 4 * (done - 1) // total:
            self.console.print(f"{done} of {total} photos decoded")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False, markup=False)


def save_grid(path: Path, image: Tensor, mask: Tensor, output: Tensor) -> None:
    """Write a picture with one row per photo: input, filled, original.

    Args:
        path: A PNG file.
        image: ``[B, 3, H, W]`` in [0, 1].
        mask: ``[B, 1, H, W]``, 1 = hole.
        output: The network's picture, as ``image``.
    """
    columns = [composite(image, torch.ones_like(image), mask), composite(image, output, mask)]
    rows = torch.cat([*columns, image], dim=3)
    write_image(tensor_to_image(torch.cat(list(rows), dim=1)), path)
