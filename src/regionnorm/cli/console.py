"""What the commands share: options, and what the terminal shows."""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "FLAGS",
    "ClusterAddress",
    "Device",
    "FitMask",
    "HardMask",
    "InvertMask",
    "Method",
    "Precision",
    "Weights",
    "offer_flags",
    "print_error",
    "print_note",
    "print_study_table",
    "print_table",
    "printable",
    "progress",
    "quick_imports",
    "quiet_decoders",
    "run_progress",
    "wants_gpu",
    "with_flags",
]

ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Work on a Ray cluster: local (started here), ray://host:10001 or host:6379.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best one present.")
]
FitMask = Annotated[
    bool, typer.Option("--fit-mask", help="Scale a mask of another size to the photo's.")
]
InvertMask = Annotated[bool, typer.Option("--invert-mask", help="Black = hole instead of white.")]
HardMask = Annotated[
    bool,
    typer.Option(
        "--hard-mask",
        help="Fill what is brighter than half. Without it, gray shows as much of the fill as it "
        "is bright.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help="network, exemplar (pieces of the same photo, no network) or auto: both, in "
        "narrow holes the network with the photo's fine detail."
    ),
]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16; by default the faster.")]
Weights = Annotated[
    str, typer.Option(help="default, fast (half of its time), a weights file or an .onnx file.")
]

FLAGS = {
    "widen the mask by 2 pixels": "--dilate 2",
    "invert the mask": "--invert-mask",
    "have it scaled": "--fit-mask",
    "hard edges": "--hard-mask",
    "have the photo's own transparent pixels filled": "--mask alpha",
    "allow replacing it": "--overwrite",
    "choose another port or host": "--port, --host",
}
"""What the library advises, which knows of no command line, and the flags that do it."""

_offered: ContextVar[frozenset[str] | None] = ContextVar("offered", default=None)


def wants_gpu(device: str | None) -> bool | None:
    """Whether workers of a cluster need a GPU for a device; None if that depends on the cluster."""
    return None if device is None else device.lower().startswith("cuda")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import the libraries in a way that costs a process of few seconds the least.

    Without looking for garbage among what they make, where there is none: the search would take a
    fifth of the time that PyTorch's import does, and as much again when the process ends. And with
    threads that sleep while they have no work, instead of asking for it without a pause, which
    takes processors from those that do have some. Where PyTorch is there already, nothing changes.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch is loaded
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


LINE_SECONDS = 10.0
"""Between two lines of progress, where there is no terminal to draw a bar on."""


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr that leaves nothing behind; in files and pipes a line now and then.

    Ctrl-C says how far it came.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        reached, said = (0, 0), time.monotonic()

        def advance(done: int, total: int, *_: object) -> None:
            nonlocal reached, said
            reached = done, total
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                print_note(f"{title}: {done} of {total}")

        try:
            yield advance
        except KeyboardInterrupt:
            bar.stop()
            print_note(f"Interrupted: {reached[0]} of {reached[1] or 'all'} were done")
            raise


@contextmanager
def run_progress(total: int) -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar over runs on stderr with a bar for each that is under way; plain lines in a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    doing: dict[str, str] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        overall = bar.add_task("runs", total=total)

        def status(run: str, what: str, step: int, steps: int) -> None:
            if not console.is_terminal and doing.get(run) != what:
                print(f"{run}: {what}", file=sys.stderr, flush=True)
            finished = what == "done" and doing.get(run) != what
            doing[run] = what
            if run not in tasks and what != "done":
                tasks[run] = bar.add_task(run, total=steps)
            if run in tasks:
                bar.update(tasks[run], completed=step, description=f"{run}: {what}")
            if finished:
                bar.advance(overall)
                if run in tasks:
                    bar.remove_task(tasks[run])

        yield status


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep what decoders say about damaged files off stderr; every such file gets its one line.

    Pillow warns through Python; libtiff and OpenCV write to the process's descriptor 2 themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            real = sys.stderr.fileno() == 2
        except (AttributeError, OSError, ValueError):  # replaced by something without one
            real = False
        if not real:
            yield
            return
        before = sys.stderr
        before.flush()
        kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        sys.stderr = os.fdopen(kept, "w", errors="backslashreplace", buffering=1)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            sys.stderr.close()
            sys.stderr = before


def print_table(table: Table) -> None:
    """Print a table, in files and pipes without cutting its cells."""
    from rich.console import Console

    # Files and pipes have no width; rich would assume 80 columns and cut long names.
    shown = sys.stdout is not None and sys.stdout.isatty()
    Console(width=None if shown else 200).print(table)


def print_study_table(table: Any) -> None:
    """Print a study's table; its cells may hold square brackets."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, title=Text(table.caption), title_justify="left")
    for i, heading in enumerate(table.header):
        shown.add_column(Text(heading), justify="left" if i == 0 else "right")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    print_table(shown)


def print_error(message: str) -> None:
    """Print what failed, as one line on stderr."""
    print_note(f"Error: {message}")


def print_note(message: str) -> None:
    """Print one line on stderr."""
    # Plain print: rich would wrap the line, and a path in it.
    print(printable(with_flags(" ".join(message.splitlines()))), file=sys.stderr)


def offer_flags(names: Iterable[str]) -> None:
    """Tell which flags the command that runs has: no other one is advised."""
    _offered.set(frozenset(names))


def with_flags(message: str) -> str:
    """Add the flags that do what the library advises."""
    offered = _offered.get()
    for advice, flag in FLAGS.items():
        if offered is None or flag.split()[0].strip(",") in offered:
            message = message.replace(advice, f"{advice} ({flag})")
    return message


def printable(text: object) -> str:
    """The text as a terminal may show it."""
    # Names of files need be no valid UTF-8, and may hold what moves a terminal's cursor.
    shown = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in shown)
