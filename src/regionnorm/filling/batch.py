"""Files and folders: pair photos with masks, fill them, write the results, report."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.pairing import (
    Job,
    check_paths,
    find_result,
    identities,
    identity,
    left_out,
    make_folder,
    make_plan,
    mask_files,
    mask_finder,
)
from regionnorm.filling.expand import Margins, expand_photo
from regionnorm.imaging import standardize, write_image
from regionnorm.masks.check import (
    CheckedMask,
    MaskOptions,
    is_mask_rule,
    make_mask,
    paint_preview,
)
from regionnorm.masks.soft import blend
from regionnorm.photo import Photo, check_target, read_photo, write_photo

__all__ = ["BatchReport", "Fill", "inpaint_path"]

Fill = Callable[[Image.Image, npt.NDArray[np.bool_]], Image.Image]
Progress = Callable[[int, int, Path], None]

_COLUMNS = ("photo", "mask", "result", "status", "width", "height", "hole_percent", "seconds")
_HEADER = (*_COLUMNS, "message")


@dataclass(frozen=True)
class BatchReport:
    """What :func:`inpaint_path` did.

    Attributes:
        done: The files written.
        failed: The photos that could not be filled, each with one line that says why.
        skipped: The photos whose results were there already.
        warnings: What looked odd about photos and masks that were used, one line each.
        left_out: Files of the folder that are no photos by their names.
    """

    done: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    warnings: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Settings:
    inpainter: Fill
    find_mask: Callable[[Job], str | Path | None]
    inputs: Set[tuple[int, int]]
    mask_options: MaskOptions
    overwrite: bool
    skip: bool
    quality: int | None
    save_mask: Path | None
    preview: Path | None
    folder: bool
    expand: Margins | None = None


@dataclass
class _Outcome:
    job: Job
    status: str = "failed"
    result: Path | None = None
    mask: str = ""
    size: tuple[int, int] | None = None
    hole: float | None = None
    seconds: float = 0.0
    message: str = ""
    warnings: tuple[str, ...] = ()


def inpaint_path(
    inpainter: Fill,
    image: str | os.PathLike[str],
    mask: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    *,
    recursive: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
    jobs: int = 1,
    mask_options: MaskOptions | None = None,
    quality: int | None = None,
    save_mask: str | os.PathLike[str] | None = None,
    preview: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    expand: Margins | None = None,
) -> BatchReport:
    """Fill a photo, or every photo of a folder, and write the results.

    A photo's mask is the file of the same stem in the mask folder (of the same name where there
    are several), or the one mask file given, or made by a rule
    (:func:`~regionnorm.masks.check.make_mask`). In a folder a result has its photo's name; where
    that format cannot hold the result, ``.png`` is appended. A photo that fails never stops the
    others. Results appear whole or not at all, and photos of a folder whose result exists are
    skipped, so that a run which was stopped goes on where it was.

    Args:
        inpainter: An :class:`~regionnorm.filling.inpainter.Inpainter`, or any function of a photo
            (mode L, LA, RGB or RGBA) and a bool mask.
        image: A photo, or a folder of photos.
        mask: A mask, a folder of masks, or a rule; None with ``expand`` alone.
        output: A file for one photo; a folder otherwise. Missing folders are made. None fills
            nothing, for ``save_mask`` and ``preview``.
        recursive: Take the folders inside ``image`` too, and keep their structure.
        overwrite: Replace results that exist; a photo or a mask is never replaced.
        on_progress: Called after each photo as ``on_progress(count, total, photo)``.
        jobs: Photos worked on at once; each takes its own memory.
        mask_options: What to do to masks before they are used.
        quality: 1 to 100 for lossy formats; None keeps the photo's own.
        save_mask: Where to write the mask that is used: a file, or for a folder a folder.
        preview: Where to write the photo with its hole in red: a file, or a folder.
        report: A CSV file to write a line to for each photo as soon as it is done; an existing
            report is added to.
        expand: Go on beyond the border: what to add on each side, beside what the mask takes.

    Raises:
        FileNotFoundError: ``image`` or ``mask`` does not exist.
        ValueError: There are no photos, the same place is given twice, nothing is asked for, or
            there is neither a mask nor a margin.
        OSError: The output folder or the report cannot be made or written to.
    """
    if mask is None and expand is None:
        raise ValueError("there is nothing to fill; give a mask, or margins to expand by")
    source, rule = Path(image), mask is None or is_mask_rule(mask)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; give 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; give 1 to 100")
    if output is None and save_mask is None and preview is None:
        raise ValueError("there is nothing to write; name an output, a mask or a preview to save")
    masks = None if rule or mask is None else Path(mask)
    out = None if output is None else Path(output)
    check_paths(source, masks, out)
    plan = make_plan(source, masks, output, recursive)
    files = mask_files(masks, recursive)
    same = None if mask is None else os.fspath(mask)
    settings = _Settings(
        inpainter,
        mask_finder(masks, files) if masks is not None else lambda job: same,
        identities([*files, *(job.photo for job in plan)]),
        mask_options or MaskOptions(),
        overwrite,
        source.is_dir(),
        quality,
        None if save_mask is None else Path(save_mask),
        None if preview is None else Path(preview),
        source.is_dir(),
        expand,
    )
    if out is not None:
        target = plan[0].target
        make_folder(out if source.is_dir() or target is None else target.parent)
    outcomes = []
    with _csv_report(report) as write_row:
        for outcome in _work(plan, settings, jobs):
            outcomes.append(outcome)
            write_row(outcome)
            if on_progress is not None:
                on_progress(len(outcomes), len(plan), outcome.job.photo)
    done = _summary(plan, outcomes)
    others, unread = left_out(source, masks, out, recursive)
    done.left_out.extend(others)
    done.failed.extend(unread)
    return done


def _summary(plan: Sequence[Job], outcomes: Sequence[_Outcome]) -> BatchReport:
    order = {id(job): number for number, job in enumerate(plan)}
    report = BatchReport()
    for outcome in sorted(outcomes, key=lambda outcome: order[id(outcome.job)]):
        photo = outcome.job.photo
        report.warnings.extend((photo, line) for line in outcome.warnings)
        if outcome.status == "failed":
            report.failed.append((photo, outcome.message))
        elif outcome.status == "skipped":
            report.skipped.append(photo)
        elif outcome.result is not None:
            report.done.append(outcome.result)
    return report


# --- one photo -----------------------------------------------------------------------------------


def _work(plan: Sequence[Job], settings: _Settings, jobs: int) -> Iterator[_Outcome]:
    """Work through the plan, as many photos at once as there are jobs."""
    if jobs == 1 or len(plan) == 1:
        for job in plan:
            yield _attempt(job, settings)
        return
    pending: set[Future[_Outcome]] = set()
    waiting = iter(plan)
    pool = ThreadPoolExecutor(jobs)
    try:
        while True:
            for job in waiting:
                pending.add(pool.submit(_attempt, job, settings))
                if len(pending) >= jobs:
                    break
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(job: Job, settings: _Settings) -> _Outcome:
    outcome = _Outcome(job)
    start = time.perf_counter()
    try:
        _fill_file(job, settings, outcome)
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
        outcome.status, outcome.message = "failed", _message(error)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _fill_file(job: Job, settings: _Settings, outcome: _Outcome) -> None:
    if settings.skip and not settings.overwrite and (there := find_result(job, settings.inputs)):
        outcome.status, outcome.result = "skipped", there
        outcome.message = f"{there} exists"
        return
    mask = settings.find_mask(job)
    outcome.mask = "" if mask is None else os.fspath(mask)
    photo = read_photo(job.photo)
    outcome.size = photo.size
    target = None if job.target is None else _free_target(job.target, job, photo, settings)
    photo, checked = _prepared(photo, mask, settings)
    outcome.hole = float(checked.hole.mean())
    outcome.warnings = (*photo.notes, *checked.warnings)
    _write_extras(job, photo, checked, settings)
    if target is not None:
        filled = _fill(settings.inpainter, photo, checked)
        write_photo(filled, target, quality=settings.quality)
    outcome.status, outcome.result = "filled", target


def _prepared(
    photo: Photo, mask: str | os.PathLike[str] | None, settings: _Settings
) -> tuple[Photo, CheckedMask]:
    """The photo on its canvas, and all of what is to be filled."""
    checked = None if mask is None else make_mask(photo, mask, settings.mask_options)
    if settings.expand is None:
        assert checked is not None
        return photo, checked
    wide, new = expand_photo(photo, settings.expand)
    if checked is None:
        return wide, CheckedMask(new)
    left, top, right, bottom = settings.expand.pixels(photo.size)
    around = ((top, bottom), (left, right))
    cover = None if checked.cover is None else np.pad(checked.cover, around, constant_values=255)
    return wide, replace(checked, hole=np.pad(checked.hole, around) | new, cover=cover)


def _free_target(target: Path, job: Job, photo: Photo, settings: _Settings) -> Path:
    """Where the result goes; all that can be refused is refused before the slow part."""
    if not job.named_by_user:
        try:
            check_target(photo, target)
        except ValueError:
            target = target.with_name(f"{target.name}.png")
    check_target(photo, target)
    _check_free(target, settings)
    return target


def _check_free(target: Path, settings: _Settings) -> None:
    if target.exists() and identity(target) in settings.inputs:
        raise ValueError(
            f"the result would replace {target}, a photo or mask; choose another output"
        )
    if target.exists() and not settings.overwrite:
        raise FileExistsError(f"{target} exists; allow replacing it with --overwrite")


def _fill(inpainter: Fill, photo: Photo, mask: CheckedMask) -> Photo:
    fill_photo = getattr(inpainter, "fill_photo", None)
    if fill_photo is not None:
        filled: Photo = fill_photo(photo, mask.hole, opaque=mask.opaque, cover=mask.cover)
        return filled
    colours = photo.colours()
    result = np.asarray(inpainter(standardize(photo.image), mask.hole).convert("RGB"))
    if colours.dtype == np.uint16:
        result = result.astype(np.uint16) * 257
    if mask.cover is not None:
        result = blend(colours, result, mask.cover)
    return photo.filled(result, mask.hole, opaque=mask.opaque)


def _write_extras(job: Job, photo: Photo, mask: CheckedMask, settings: _Settings) -> None:
    for place in (settings.save_mask, settings.preview):
        if place is None:
            continue
        # A mask's name is its photo's stem, so that a folder of saved masks can be given again.
        target = place / job.name.with_suffix(".png") if settings.folder else place
        if target.suffix.lower() in (".jpg", ".jpeg") and place is settings.save_mask:
            raise ValueError(f"cannot save the mask as {target}: JPEG adds noise; use .png")
        _check_free(target, settings)
        if place is settings.save_mask:
            levels = mask.hole.astype(np.uint8) * 255 if mask.cover is None else mask.cover
            write_image(Image.fromarray(levels), target)
        else:
            write_image(paint_preview(photo, mask.hole), target)


# --- the report ----------------------------------------------------------------------------------


@contextmanager
def _csv_report(path: str | os.PathLike[str] | None) -> Iterator[Callable[[_Outcome], None]]:
    """Open a report to add to; every line is on disk before the next photo is done."""
    if path is None:
        yield lambda outcome: None
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # backslashreplace: names that are no valid UTF-8 should not cost the report.
        file = target.open("a+", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OSError(f"cannot write the report {target}: {error.strerror or error}") from error
    with file:
        _start_report(file, target)
        writer = csv.writer(file)

        def write(outcome: _Outcome) -> None:
            writer.writerow(_row(outcome))
            file.flush()

        yield write


def _start_report(file: TextIO, target: Path) -> None:
    file.seek(0)
    try:
        first = file.readline(10_000)
    except UnicodeDecodeError:
        first = "\0"
    if not first:
        csv.writer(file).writerow(_HEADER)
    elif next(csv.reader([first]), []) != list(_HEADER):
        raise ValueError(f"{target} exists and is no report of this program; name another file")


def _row(outcome: _Outcome) -> list[Any]:
    width, height = outcome.size or ("", "")
    message = "; ".join(part for part in (outcome.message, *outcome.warnings) if part)
    return [
        outcome.job.photo,
        outcome.mask,
        "" if outcome.result is None else outcome.result,
        outcome.status,
        width,
        height,
        "" if outcome.hole is None else f"{100 * outcome.hole:.3f}",
        f"{outcome.seconds:.2f}",
        message,
    ]


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    no_memory = "out of memory" in text.lower() or "allocate memory" in text.lower()
    if no_memory or isinstance(error, MemoryError):
        return "there is not enough memory for a photo of this size; make it smaller"
    return text
