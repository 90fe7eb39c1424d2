"""Files and folders: pair photos with masks, fill them, write the results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.pairing import (
    Identity,
    Job,
    check_apart,
    check_paths,
    check_plan,
    find_result,
    identities,
    identity,
    is_same,
    left_out,
    make_folder,
    make_plan,
    mask_files,
    mask_finder,
    results_there,
)
from regionnorm.files.remote import Place, as_place
from regionnorm.files.whole import atomic_path
from regionnorm.filling.expand import Margins, make_hole
from regionnorm.filling.log import csv_report
from regionnorm.imaging import (
    check_mask_writable,
    check_size,
    check_writable,
    read_image,
    standardize,
    write_image,
)
from regionnorm.masks.check import (
    CheckedMask,
    MaskOptions,
    NothingFoundError,
    is_mask_rule,
    paint_preview,
)
from regionnorm.masks.soft import blend
from regionnorm.photo import Photo, check_target, read_photo, write_photo
from regionnorm.stopping import Stopped

__all__ = ["BatchReport", "Fill", "Outcome", "Settings", "Work", "attempt", "inpaint_path"]

Fill = Callable[[Image.Image, npt.NDArray[np.bool_]], Image.Image]
Progress = Callable[[int, int, Place], None]

_NOTHING = "nothing to fill"


@dataclass(frozen=True)
class BatchReport:
    """What :func:`inpaint_path` did.

    Attributes:
        done: The files written.
        failed: The photos that could not be filled, each with one line that says why.
        skipped: The photos whose results were there already.
        unchanged: The photos of a folder in which a rule found nothing to fill; their results are
            copies of them.
        warnings: What looked odd about photos and masks that were used, one line each.
        left_out: Files of the folder that are no photos by their names.
    """

    done: list[Place] = field(default_factory=list)
    failed: list[tuple[Place, str]] = field(default_factory=list)
    skipped: list[Place] = field(default_factory=list)
    unchanged: list[Place] = field(default_factory=list)
    warnings: list[tuple[Place, str]] = field(default_factory=list)
    left_out: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What is done to every photo.

    Attributes:
        inpainter: Fills holes.
        find_mask: A photo's mask or rule.
        inputs: All photos and masks, none of which is replaced.
        mask_options: What to do to masks before they are used.
        overwrite: Replace results that exist.
        quality: For lossy formats.
        save_mask: Where the mask that is used goes: a file, or a folder.
        preview: Where the photo with its hole in red goes.
        folder: Photos are those of a folder: results that are there are skipped.
        there: What :func:`~regionnorm.files.pairing.results_there` found before the first photo.
        expand: What to add on each side.
    """

    inpainter: Fill
    find_mask: Callable[[Job], str | Place | None]
    inputs: Set[Identity]
    mask_options: MaskOptions
    overwrite: bool
    quality: int | None
    save_mask: Place | None
    preview: Place | None
    folder: bool
    there: Set[Place] | None = None
    expand: Margins | None = None


@dataclass
class Outcome:
    """What became of a photo.

    Attributes:
        job: The photo.
        status: ``filled``, ``skipped``, ``nothing to fill`` or ``failed``.
        result: Where its result is.
        mask: The mask or rule.
        size: Width and height in pixels.
        hole: The hole's share of the area.
        seconds: How long it took.
        message: Why it failed, was skipped or left as it is.
        warnings: What looked odd.
    """

    job: Job
    status: str = "failed"
    result: Place | None = None
    mask: str = ""
    size: tuple[int, int] | None = None
    hole: float | None = None
    seconds: float = 0.0
    message: str = ""
    warnings: tuple[str, ...] = ()


Work: TypeAlias = Callable[[Sequence[Job], Settings, int], Iterable[Outcome]]
"""Works through a plan, so many photos at once, and yields what became of each."""


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
    work: Work | None = None,
) -> BatchReport:
    """Fill a photo, or every photo of a folder, and write the results.

    A photo's mask is the file of the same stem in the mask folder (of the same name where there
    are several), or the one mask file given, or made by a rule
    (:func:`~regionnorm.masks.check.make_mask`). In a folder a result has its photo's name; where
    that format cannot hold the result, ``.png`` is appended. A photo that fails never stops the
    others; one of a folder in which a rule finds nothing is copied as it is. Results appear whole
    or not at all, and photos of a folder whose result exists are skipped, so that a run which was
    stopped goes on where it was. Every place may be a URL, such as ``s3://bucket/photos``, see
    :mod:`regionnorm.files.remote`.

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
        work: What works through the photos; by default this process.

    Raises:
        FileNotFoundError: ``image`` or ``mask`` does not exist.
        ValueError: There are no photos, the same place is given twice, nothing is asked for, or
            there is neither a mask nor a margin.
        OSError: The output folder or the report cannot be made or written to.
    """
    if mask is None and expand is None:
        raise ValueError("there is nothing to fill; give a mask, or margins to expand by")
    source, rule = as_place(image), mask is None or is_mask_rule(mask)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; give 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; give 1 to 100")
    if output is None and save_mask is None and preview is None:
        raise ValueError("there is nothing to write; name an output, a mask or a preview to save")
    masks = None if rule or mask is None else as_place(mask)
    out = None if output is None else as_place(output)
    check_paths(source, masks, out)
    check_apart({"output": out, "mask": save_mask, "preview": preview, "report": report})
    mask_place, preview_place = (
        None if given is None else as_place(given) for given in (save_mask, preview)
    )
    folder = source.is_dir()
    extras = [place for place in (mask_place, preview_place) if place is not None]
    for place in extras:
        if folder and is_same(source, place):
            raise ValueError(f"{place} is given for the photos, too; choose another place")
    if not folder:
        _check_extras(mask_place, preview_place)
    plan = make_plan(source, masks, output, recursive, extras)
    report_place = None if report is None else as_place(report)
    if folder:
        places = {"result": out, "mask": mask_place, "preview": preview_place}
        check_plan(plan, places, report_place)
    else:  # the output may be a folder, in which the result has the photo's name
        result = plan[0].target
        check_apart(
            {"result": result, "mask": save_mask, "preview": preview, "report": report_place}
        )
    files = mask_files(masks, recursive)
    same = None if mask is None else os.fspath(mask)
    if out is not None:
        target = plan[0].target
        make_folder(out if folder or target is None else target.parent)
    for place in extras:
        make_folder(place if folder else place.parent)
    settings = Settings(
        inpainter,
        mask_finder(masks, files) if masks is not None else lambda job: same,
        identities([*files, *(job.photo for job in plan)]),
        mask_options or MaskOptions(),
        overwrite,
        quality,
        mask_place,
        preview_place,
        folder,
        results_there(out) if folder and not overwrite else None,
        expand,
    )
    outcomes = []
    with csv_report(report) as write_row:
        for outcome in (work or _work)(plan, settings, jobs):
            outcomes.append(outcome)
            write_row(_row(outcome))
            if on_progress is not None:
                on_progress(len(outcomes), len(plan), outcome.job.photo)
    done = _summary(plan, outcomes)
    others, unread = left_out(source, [masks, out, *extras], recursive)
    done.left_out.extend(others)
    done.failed.extend(unread)
    return done


def _summary(plan: Sequence[Job], outcomes: Sequence[Outcome]) -> BatchReport:
    order = {id(job): number for number, job in enumerate(plan)}
    report = BatchReport()
    for outcome in sorted(outcomes, key=lambda outcome: order[id(outcome.job)]):
        photo = outcome.job.photo
        report.warnings.extend((photo, line) for line in outcome.warnings)
        if outcome.status == "failed":
            report.failed.append((photo, outcome.message))
        elif outcome.status == "skipped":
            report.skipped.append(photo)
        elif outcome.status == _NOTHING:
            report.unchanged.append(photo)
        elif outcome.result is not None:
            report.done.append(outcome.result)
    return report


# --- one photo -----------------------------------------------------------------------------------


def _work(plan: Sequence[Job], settings: Settings, jobs: int) -> Iterator[Outcome]:
    """Work through the plan, as many photos at once as there are jobs."""
    if jobs == 1 or len(plan) == 1:
        for job in plan:
            yield attempt(job, settings)
        return
    pending: set[Future[Outcome]] = set()
    waiting = iter(plan)
    pool = ThreadPoolExecutor(jobs)
    try:
        while True:
            for job in waiting:
                pending.add(pool.submit(attempt, job, settings))
                if len(pending) >= jobs:
                    break
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    except KeyboardInterrupt:
        # Those that are at work end first, and are told of.
        pool.shutdown(wait=True, cancel_futures=True)
        yield from (future.result() for future in pending if not future.cancelled())
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def attempt(job: Job, settings: Settings) -> Outcome:
    """Fill one photo; whatever is wrong with it is what became of it."""
    outcome = Outcome(job)
    start = time.perf_counter()
    try:
        _fill_file(job, settings, outcome)
    except Stopped:  # by who waited for it: nothing is wrong with the photo
        raise
    except Exception as error:  # decoders and encoders raise nearly anything on damaged files
        outcome.status, outcome.message = "failed", _message(error)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _fill_file(job: Job, settings: Settings, outcome: Outcome) -> None:
    if settings.folder and not settings.overwrite:
        there = find_result(job, settings.inputs, settings.there)
        if there is not None:
            outcome.status, outcome.result = "skipped", there
            outcome.message = f"{there} exists"
            return
    mask = settings.find_mask(job)
    outcome.mask = "" if mask is None else os.fspath(mask)
    photo = read_photo(job.photo)
    outcome.size = photo.size
    target = None if job.target is None else _free_target(job.target, job, photo, settings)
    extras = _free_extras(job, settings)
    try:
        photo, checked = make_hole(photo, mask, settings.mask_options, settings.expand)
    except NothingFoundError as error:
        if not settings.folder:  # who asks for one photo wants it changed
            raise
        if target is not None:
            _copy(job.photo, photo, target)
        outcome.status, outcome.result, outcome.message = _NOTHING, target, str(error)
        return
    if target is not None and settings.expand is not None:
        check_target(photo, target)  # it may have grown beyond what the format holds
    outcome.hole = float(checked.hole.mean())
    outcome.warnings = (*photo.notes, *checked.warnings)
    _write_extras(extras, photo, checked, settings)
    if target is not None:
        filled = _fill(settings.inpainter, photo, checked)
        write_photo(filled, target, quality=settings.quality)
    outcome.status, outcome.result = "filled", target


def _free_target(target: Place, job: Job, photo: Photo, settings: Settings) -> Place:
    """Where the result goes; all that can be refused is refused before the slow part."""
    if not job.named_by_user:
        try:
            check_target(photo, target)
        except ValueError as error:
            if job.as_png is None or job.taken:
                raise ValueError(
                    f"{error}; and {target.name}.png is the result of another photo; rename one"
                ) from error
            target = job.as_png
    check_target(photo, target)
    _check_free(target, settings)
    return target


def _copy(source: Place, photo: Photo, target: Place) -> None:
    """Write a photo as it is, to the byte where the format is the same."""
    if target.suffix != source.suffix:
        write_photo(photo, target)
        return
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def _check_free(target: Place, settings: Settings) -> None:
    if not target.exists():
        return
    if identity(target) in settings.inputs:
        raise ValueError(
            f"the result would replace {target}, a photo or mask; choose another output"
        )
    if not settings.overwrite:
        raise FileExistsError(f"{target} exists; choose another output, or allow replacing it")


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


def _check_extras(save_mask: Place | None, preview: Place | None) -> None:
    """Refuse files for a mask and a preview that could not be written."""
    if save_mask is not None:
        check_mask_writable(save_mask)
    if preview is not None:
        check_writable(preview, "RGB")


def _free_extras(job: Job, settings: Settings) -> list[Place | None]:
    """Where the mask and the preview of a photo go.

    A folder's run that was stopped may have left those of a photo without its result: there, what
    exists is looked at when it is known what to write.
    """
    extras = [settings.save_mask, settings.preview]
    if settings.folder:
        extras = [None if place is None else place / job.saved for place in extras]
    for place in extras:
        if place is not None and not (settings.folder and _is_ours(place, settings)):
            _check_free(place, settings)
    return extras


def _is_ours(place: Place, settings: Settings) -> bool:
    """Whether a file may be what a stopped run has left."""
    return place.is_file() and identity(place) not in settings.inputs


def _write_extras(
    extras: list[Place | None], photo: Photo, mask: CheckedMask, settings: Settings
) -> None:
    levels = mask.hole.astype(np.uint8) * 255 if mask.cover is None else mask.cover
    mask_place, preview = extras
    if preview is not None:  # before the mask is there
        check_size(preview, photo.size)
    if mask_place is not None:
        _write_extra(Image.fromarray(levels), mask_place, settings)
    if preview is not None:
        _write_extra(paint_preview(photo, mask.hole), preview, settings)


def _write_extra(image: Image.Image, place: Place, settings: Settings) -> None:
    """Write a mask or a preview; one just like it that is there already stays."""
    if settings.folder and not settings.overwrite and place.exists():
        there = np.asarray(read_image(place).convert(image.mode))
        if not np.array_equal(there, np.asarray(image)):
            _check_free(place, settings)
        return
    write_image(image, place)


# --- the report ----------------------------------------------------------------------------------


def _row(outcome: Outcome) -> list[object]:
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
