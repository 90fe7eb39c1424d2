"""Fill holes in photos: any size, any format, single files and folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from regionnorm.devices import has_native_bfloat16, pick_device
from regionnorm.imaging import (
    array_to_image,
    check_writable,
    image_to_tensor,
    list_images,
    mask_to_array,
    mask_to_tensor,
    read_image,
    read_mask,
    standardize,
    supports_mode,
    tensor_to_image,
    write_image,
)
from regionnorm.models.base import MIN_SIZE
from regionnorm.nn.precision import cast_convolutions

__all__ = ["BatchReport", "Inpainter", "inpaint_path"]

Array = npt.NDArray[Any]
Fill = Callable[[Image.Image, npt.NDArray[np.bool_]], Image.Image]
Progress = Callable[[int, int, Path], None]


class Inpainter:
    """Fills the hole of a photo and leaves every other pixel as it is.

    Calls from several threads at once are safe.

    Args:
        model: None for the weights that come with the package, a name or a file for
            :func:`regionnorm.load_pretrained`, or a module called as ``model(image, mask)``,
            which is put into evaluation mode.
        device: Where to run; None leaves a module where it is and picks the best device otherwise.
        precision: ``"fp32"``, ``"bf16"`` (autocast), or None for bf16 where the device computes in
            it natively: it takes about 0.6 of the time and changes a filled pixel by about a fifth
            of a grey level.

    Example:
        >>> filled = Inpainter()(Image.open("photo.jpg"), Image.open("mask.png"))

    Raises:
        FileNotFoundError: The weights file does not exist.
        ValueError: The name, the device or the precision is not known.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> None:
        if isinstance(model, nn.Module):
            first = next(model.parameters(), None)
            self.device = (
                first.device if device is None and first is not None else pick_device(device)
            )
            self.model = model.to(self.device)
        else:
            # Reading weights needs more packages than running a module does.
            from regionnorm.checkpoints import load_pretrained

            self.device = pick_device(device)
            name = None if model is None else os.fspath(model)
            # Channels-last: measured 5 to 17 % faster with the shipped weights, in both precisions.
            self.model = load_pretrained(name, device=str(self.device)).to(
                memory_format=torch.channels_last  # type: ignore[call-overload]
            )
        self.model.eval()
        self._autocast = _autocast_dtype(precision, self.device)
        if self._autocast is not None and not isinstance(model, nn.Module):
            cast_convolutions(self.model, self._autocast)

    def __call__(self, image: Image.Image | Array, mask: Image.Image | Array) -> Image.Image:
        """Fill the hole.

        Args:
            image: A photo of any mode, or a uint8 array ``[H, W]`` or ``[H, W, C]``; both sides
                at least 16 pixels. Its EXIF orientation is applied.
            mask: White = hole: an image, or an array ``[H, W]``, bool or uint8.

        Returns:
            An image of the same size. Colour stays RGB, gray stays gray, alpha is kept as it was;
            palette images become RGB or RGBA, 16 bits become 8. Pixels outside the hole are
            those of the (upright, converted) photo, exactly.

        Raises:
            ValueError: The photo is too small, the mask has another size, no hole or nothing but
                hole, or the model's output has another shape or is not finite.
        """
        photo = standardize(image if isinstance(image, Image.Image) else array_to_image(image))
        hole = mask_to_array(mask)
        _check(photo, hole)
        filled = tensor_to_image(self._run(image_to_tensor(photo), mask_to_tensor(hole)))
        return _paste(photo, filled, hole)

    @torch.inference_mode()
    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        image, mask = image.to(self.device), mask.to(self.device)
        autocast = (
            torch.autocast(self.device.type, dtype=self._autocast)
            if self._autocast
            else nullcontext()
        )
        with autocast:
            # Zeros in the hole: the result may not depend on what the hole covers.
            output = self.model(image * (1 - mask), mask)
        if not isinstance(output, Tensor) or output.shape != image.shape:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the model returned {got}; it should return one tensor {list(image.shape)}"
            )
        if not torch.isfinite(output).all():
            raise ValueError(
                "the model returned NaN or infinity; try precision fp32 or other weights"
            )
        return output


def _autocast_dtype(precision: str | None, device: torch.device) -> torch.dtype | None:
    """Choose the dtype to autocast to; None runs everything as the weights are."""
    if precision is None:
        precision = "bf16" if has_native_bfloat16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not known; use fp32 or bf16")
    return torch.bfloat16 if precision == "bf16" else None


def _check(photo: Image.Image, hole: npt.NDArray[np.bool_]) -> None:
    width, height = photo.size
    if min(width, height) < MIN_SIZE:
        raise ValueError(
            f"the photo is {width}x{height}; both sides should be {MIN_SIZE} pixels or more"
        )
    if hole.shape != (height, width):
        raise ValueError(
            f"the mask is {hole.shape[1]}x{hole.shape[0]} but the upright photo is "
            f"{width}x{height}; give a mask of the photo's size"
        )
    if not hole.any():
        raise ValueError("the mask is black everywhere; paint what should be filled white")
    if hole.all():
        raise ValueError("the mask is white everywhere; leave black what should be kept")


def _paste(photo: Image.Image, filled: Image.Image, hole: npt.NDArray[np.bool_]) -> Image.Image:
    gray = photo.mode in ("L", "LA")
    new = filled.convert("L") if gray else filled
    old = photo.convert(new.mode)
    # A choice on the bytes themselves: arithmetic could change known pixels by rounding.
    chosen = np.where(hole if gray else hole[:, :, None], np.asarray(new), np.asarray(old))
    result = Image.fromarray(chosen)
    if photo.mode in ("LA", "RGBA"):
        result.putalpha(photo.getchannel("A"))
    _keep_metadata(photo, result)
    return result


def _keep_metadata(photo: Image.Image, result: Image.Image) -> None:
    result.info.clear()
    if photo.info.get("icc_profile"):
        result.info["icc_profile"] = photo.info["icc_profile"]
    if photo.info.get("exif"):
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            exif = Image.Exif()
            exif.load(photo.info["exif"])
            # Written anew, it loses the thumbnail, which would still show what was removed.
            result.info["exif"] = exif.tobytes()


# --- files and folders ---------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchReport:
    """What :func:`inpaint_path` did.

    Attributes:
        done: The files written.
        failed: The photos that could not be filled, each with one line that says why.
    """

    done: list[Path]
    failed: list[tuple[Path, str]]


def inpaint_path(
    inpainter: Fill,
    image: str | os.PathLike[str],
    mask: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    recursive: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> BatchReport:
    """Fill a photo, or every photo of a folder, and write the results.

    A photo's mask is the file of the same stem in the mask folder (of the same name where there
    are several), or the one mask file given. In a folder a result has its photo's name; where that
    format cannot hold the result (GIF, for one), ``.png`` is appended. A photo that fails never
    stops the others.

    Args:
        inpainter: An :class:`Inpainter`, or any function of a photo and a bool mask.
        image: A photo, or a folder of photos.
        mask: A mask, or a folder of masks.
        output: A file for one photo; a folder otherwise. Missing folders are made.
        recursive: Take the folders inside ``image`` too, and keep their structure.
        overwrite: Replace results that exist; a photo or a mask is never replaced.
        on_progress: Called after each photo as ``on_progress(count, total, photo)``.

    Raises:
        FileNotFoundError: ``image`` or ``mask`` does not exist.
        ValueError: There are no photos, or the same place is given twice.
        OSError: The output folder cannot be made or written to.
    """
    source, masks = Path(image), Path(mask)
    _check_paths(source, masks, Path(output))
    jobs = _plan(source, masks, output, recursive)
    mask_files = list_images(masks, recursive=recursive) if masks.is_dir() else [masks]
    inputs = {_identity(path) for path in [*mask_files, *(job.photo for job in jobs)]}
    _make_folder(Path(output) if source.is_dir() else jobs[0].target.parent)
    find_mask = _mask_finder(masks, mask_files)
    done: list[Path] = []
    failed: list[tuple[Path, str]] = []
    for count, job in enumerate(jobs, 1):
        try:
            mask_file = find_mask(job)
            done.append(_fill_file(inpainter, job, mask_file, inputs, overwrite))
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            failed.append((job.photo, _message(error)))
        if on_progress is not None:
            on_progress(count, len(jobs), job.photo)
    return BatchReport(done, failed)


@dataclass(frozen=True)
class _Job:
    photo: Path
    target: Path
    stem: Path  # what its mask is called: the path inside the folder of photos, without suffix
    named_by_user: bool = False  # then the target's format is not ours to change


def _check_paths(source: Path, masks: Path, out: Path) -> None:
    for path, what in ((source, "photo or folder"), (masks, "mask or folder of masks")):
        if not path.exists():
            raise FileNotFoundError(f"there is no {what} {path}; check the path")
    if _same(source, masks):
        raise ValueError(
            f"{masks} is given as photos and as masks; keep the masks in another place"
        )
    for path, what in ((source, "photo"), (masks, "mask")):
        if _same(path, out):
            raise ValueError(f"the output {out} is also the {what} given; choose another place")
    if source.is_dir() and out.exists() and not out.is_dir():
        raise NotADirectoryError(
            f"the output {out} is a file; for a folder of photos name a folder"
        )


def _plan(source: Path, masks: Path, output: str | os.PathLike[str], recursive: bool) -> list[_Job]:
    out = Path(output)
    if not source.is_dir():
        into_folder = out.is_dir() or not out.suffix or str(output).endswith(("/", os.sep))
        target = out / source.name if into_folder else out
        return [_Job(source, target, Path(source.stem), named_by_user=not into_folder)]
    # Masks and earlier results may lie inside the folder of photos; they are no photos.
    root = source.resolve()
    others = [path for path in (masks.resolve(), out.resolve()) if path.is_relative_to(root)]
    photos = [
        photo
        for photo in list_images(source, recursive=recursive)
        if not any((root / photo.relative_to(source)).is_relative_to(other) for other in others)
    ]
    if not photos:
        raise ValueError(f"there are no photos in {source}; give a folder of .jpg, .png, ... files")
    names = [photo.relative_to(source) for photo in photos]
    return [
        _Job(photo, out / name, name.with_suffix(""))
        for photo, name in zip(photos, names, strict=True)
    ]


def _make_folder(folder: Path) -> None:
    # Before the first photo: a place that cannot be written to should not cost a run to find out.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the folder {folder}: {error.strerror}; choose another place"
        ) from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to; choose another place")


def _mask_finder(masks: Path, files: list[Path]) -> Callable[[_Job], Path]:
    if not masks.is_dir():
        return lambda job: masks
    by_stem: dict[Path, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)

    def find(job: _Job) -> Path:
        found = by_stem.get(job.stem, [])
        name = job.photo.name
        if not found:
            raise FileNotFoundError(
                f"there is no mask {job.stem}.png (or .jpg, ...) in {masks}; add one"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            found = [path for path in found if path.name == name]
            if not found:
                raise ValueError(f"several masks fit it ({names}); keep one, or name one {name}")
        return found[0]

    return find


def _fill_file(
    inpainter: Fill, job: _Job, mask: Path, inputs: Set[tuple[int, int]], overwrite: bool
) -> Path:
    photo = read_image(job.photo)
    target = job.target
    if not job.named_by_user and not supports_mode(target, photo.mode):
        target = target.with_name(f"{target.name}.png")
    # All that can be refused is refused before the slow part.
    check_writable(target, photo.mode)
    if target.exists() and _identity(target) in inputs:
        raise ValueError(
            f"the result would replace {target}, a photo or mask; choose another output"
        )
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; allow replacing it with --overwrite")
    write_image(inpainter(photo, read_mask(mask)), target)
    return target


def _identity(path: Path) -> tuple[int, int]:
    # Not the name: links, and upper and lower case, may hide that two names are one file.
    status = path.stat()
    return status.st_dev, status.st_ino


def _same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    no_memory = "out of memory" in text.lower() or "allocate memory" in text.lower()
    if no_memory or isinstance(error, MemoryError):
        return "there is not enough memory for a photo of this size; make it smaller"
    return text
