"""Photos and masks: decode, encode, convert to tensors, composite; the one mask threshold.

Everything that turns a file into pixels, or pixels into a file, goes through here, so that the
command line, the Python API, training and evaluation agree on orientation, modes and polarity.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from regionnorm.files.formats import format_of
from regionnorm.files.remote import as_place
from regionnorm.files.whole import decode, save_image

__all__ = [
    "MASK_THRESHOLD",
    "array_to_image",
    "check_mask_writable",
    "check_range",
    "check_size",
    "check_writable",
    "composite",
    "eight_bits",
    "image_to_tensor",
    "luma",
    "mask_levels",
    "mask_to_array",
    "mask_to_tensor",
    "orientation_of",
    "read_image",
    "read_mask",
    "standardize",
    "supports_mode",
    "tensor_to_image",
    "two_levels",
    "upright",
    "write_image",
]

MASK_THRESHOLD = 0.5
"""A mask pixel brighter than this share of white is hole (8 bit: above 127)."""

_LEVEL_SPREAD = 0.15  # of the range: how far from its ends a mask's two levels reach
_EDGE_SHARE = 0.02  # of a mask's pixels that may lie between them
_FEW_LEVELS = 16  # ranges below have no room for edges

_SAVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    # exact: WebP would otherwise rewrite the colours under transparent pixels.
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_lzw"},
}
# The other formats hold all four modes. GIF's 256 colours would change every pixel of a photo.
_MODES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({"L", "RGB"}),
    "PPM": frozenset({"L", "RGB"}),
    "BMP": frozenset({"L", "RGB"}),
    "GIF": frozenset({"L"}),
}
# Width and height that a format, or the library that writes it, holds.
_MOST_PIXELS = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_536, "HEIF": 65_535}
_METADATA_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "TIFF", "AVIF"})

# --- files ---------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a photo as :func:`standardize` leaves it: upright, mode L, LA, RGB or RGBA.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged or cut short, or is too large.
    """
    return decode(as_place(path), lambda image, _: standardize(image))


def read_mask(path: str | os.PathLike[str]) -> npt.NDArray[np.bool_]:
    """Read a mask file as bool ``[H, W]``: True (hole) where it is brighter than 127 of 255.

    The EXIF orientation is applied, alpha is ignored.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged or cut short, or is too large.
    """
    return decode(as_place(path), lambda image, _: mask_to_array(image))


def write_image(image: Image.Image, path: str | os.PathLike[str], **save_options: Any) -> None:
    """Write a photo; the format follows from the suffix, the file appears whole or not at all.

    PNG, TIFF, BMP, WebP and JPEG 2000 are written without loss, JPEG and AVIF at quality 95
    without chroma subsampling. The colour profile and EXIF data in ``image.info`` are kept where
    the format has room for them.

    Args:
        image: What to write.
        path: Where to; missing folders are made.
        **save_options: Given to Pillow's ``Image.save``, before the defaults above.

    Raises:
        ValueError: The suffix belongs to no known format, or the format cannot hold the mode.
        OSError: The place cannot be written to.
    """
    target = as_place(path)
    check_writable(target, image.mode, image.size)
    format_name = format_of(target)
    options = dict(_SAVE_DEFAULTS.get(format_name, {}))
    if format_name in _METADATA_FORMATS:
        kept = {key: image.info.get(key) for key in ("icc_profile", "exif")}
        options |= {key: value for key, value in kept.items() if value}
    save_image(image, target, format_name, options | save_options)


def supports_mode(path: str | os.PathLike[str], mode: str) -> bool:
    """Return whether the format of ``path`` can hold ``mode`` (L, LA, RGB or RGBA).

    Raises:
        ValueError: The suffix belongs to no known format.
    """
    modes = _MODES.get(format_of(as_place(path)), frozenset({"L", "LA", "RGB", "RGBA"}))
    return mode in modes


def check_size(path: str | os.PathLike[str], size: tuple[int, int]) -> None:
    """Raise ``ValueError`` where the format of ``path`` holds no such width or height."""
    format_name = format_of(as_place(path))
    most = _MOST_PIXELS.get(format_name, max(size))
    if max(size) > most:
        raise ValueError(
            f"cannot write {path}: the result is {size[0]}x{size[1]} and "
            f"{format_name} holds {most} pixels a side; use .png or .tif"
        )


def check_mask_writable(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`check_writable` would raise for a mask, and for formats that change it."""
    suffix = as_place(path).suffix.lower()
    name = Image.registered_extensions().get(suffix)
    if name in ("JPEG", "MPO", "AVIF", "HEIF"):
        raise ValueError(f"cannot save the mask as {path}: {name} adds noise; use .png")
    check_writable(path, "L")


def check_writable(
    path: str | os.PathLike[str], mode: str, size: tuple[int, int] | None = None
) -> None:
    """Raise what :func:`write_image` would raise for a suffix, before any work is done.

    Args:
        path: Where to.
        mode: L, LA, RGB or RGBA.
        size: Width and height; None where they are not known yet.

    Raises:
        ValueError: The suffix belongs to no known format, or the format cannot hold the mode or
            the size.
    """
    if size is not None:
        check_size(path, size)
    if not supports_mode(path, mode):
        raise ValueError(
            f"cannot write {path}: {as_place(path).suffix} holds no {mode} pixels; "
            "use .png, .webp or .tif"
        )


# --- modes ---------------------------------------------------------------------------------------


def check_range(image: Image.Image) -> None:
    """Refuse gray TIFF files whose numbers Pillow takes for another brightness than they mean.

    Raises:
        ValueError: They have 9 to 15 bits, or 16 that count from white.
    """
    if image.format != "TIFF" or not image.mode.startswith("I"):
        return
    tags = getattr(image, "tag_v2", {})
    if tags.get(262) == 0:
        raise ValueError("its 16-bit gray counts from white; save it with black as 0")
    bits = max(tags.get(258, (16,)))
    if bits < 16:
        raise ValueError(
            f"the image has {bits}-bit gray pixels; save it with 8 or 16 bits per channel"
        )


def standardize(image: Image.Image) -> Image.Image:
    """Turn an image upright (EXIF) and into one of the modes L, LA, RGB, RGBA.

    Palette images become RGB or RGBA, 1-bit and 16-bit gray become L or LA, CMYK, YCbCr and LAB
    become RGB. ``info`` keeps the colour profile as long as it still describes the pixels.

    Raises:
        ValueError: The mode has no known range (32-bit float), or no conversion.
    """
    check_range(image)
    image = upright(image)
    if image.mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _gray16_to_gray8(image)
    if image.mode == "F":
        raise ValueError("the image has 32-bit float pixels; save it with 8 or 16 bits per channel")
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = image.has_transparency_data
    converted = image.convert(("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB"))
    converted.info.pop("transparency", None)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        converted.info.pop("icc_profile", None)  # it describes the old colour space
    return converted


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data raises nearly anything
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; damaged EXIF data is dropped."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raises nearly anything, and the pixels are still good
        kept = image.copy()
        kept.info.pop("exif", None)
        return kept


def _gray16_to_gray8(image: Image.Image) -> Image.Image:
    # Mode "I" (32 bit) is how Pillow holds some 16-bit files, so both share one range.
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    converted = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:  # one of the 65536 values stands for it
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        converted.putalpha(Image.fromarray(alpha))
    converted.info = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif")}
    return converted


# --- arrays and tensors --------------------------------------------------------------------------


def eight_bits(colours: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Levels of uint8 or uint16, of any shape, as uint8; uint8 is returned as it is."""
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def array_to_image(array: npt.NDArray[Any]) -> Image.Image:
    """Wrap a uint8 array ``[H, W]`` or ``[H, W, C]`` (C = 1 gray, 2 gray + alpha, 3, 4).

    Raises:
        ValueError: Another dtype or shape.
    """
    _require_array(array, "photo")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    if array.dtype != np.uint8 or not shaped or 0 in array.shape:
        raise ValueError(
            f"got an image array of shape {list(array.shape)} and dtype {array.dtype}; "
            "give uint8 [H, W], [H, W, 3] or [H, W, 4] with values 0 to 255"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def luma(colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the ITU-R 601 luma of ``[..., 3]``, uint8 or uint16, rounded as Pillow rounds it."""
    weights = np.array([19595, 38470, 7471], np.int64)
    gray: npt.NDArray[Any] = ((colours @ weights + 0x8000) >> 16).astype(colours.dtype)
    return gray


def mask_to_array(mask: Image.Image | npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Turn a mask into bool ``[H, W]``, True = hole.

    A mask of two clear levels is one whatever they are (labels 0 and 3): where both lie on one
    side of the threshold, the brighter is the hole.

    Args:
        mask: An image (white is hole, alpha is ignored), or an array ``[H, W]``: bool, integers
            0/1 or 0 to 255, or floats in [0, 1].

    Raises:
        ValueError: Another shape or dtype.
    """
    if isinstance(mask, Image.Image):
        levels = mask_levels(mask)
        white = 255.0 if levels.dtype == np.uint8 else 65535.0
    else:
        levels = _checked_mask(mask)
        # 0/1 and 0/255 cannot be confused: a 0-to-255 mask that never exceeds 1 has no hole.
        white = 1.0 if levels.dtype.kind in "bf" or levels.max() <= 1 else 255.0
    hole: npt.NDArray[np.bool_] = levels > white * MASK_THRESHOLD
    if (hole.all() or not hole.any()) and levels.dtype.kind in "ui":
        threshold = two_levels(levels)
        return hole if threshold is None else levels > threshold
    return hole


def mask_levels(image: Image.Image) -> npt.NDArray[Any]:
    """Return a mask's brightness, alpha ignored: uint8 ``[H, W]``, or of 0 to 65535, uint16."""
    if image.mode.startswith("I"):
        check_range(image)
        return np.asarray(upright(image)).astype(np.int64).clip(0, 65535).astype(np.uint16)
    plain = standardize(image)
    return np.asarray(plain if plain.mode == "L" else plain.convert("RGB").convert("L"))


def two_levels(levels: npt.NDArray[Any]) -> float | None:
    """Return the middle between an integer array's two clear levels; None where it has others."""
    low, high = int(levels.min()), int(levels.max())
    margin = _LEVEL_SPREAD * (high - low)
    # Labels are two small values exactly; levels further apart may have edges between them.
    if high - low < _FEW_LEVELS:
        clear = low < min(high, _FEW_LEVELS) and bool(((levels == low) | (levels == high)).all())
    else:
        between = (levels > low + margin) & (levels < high - margin)
        clear = bool(between.mean() <= _EDGE_SHARE)
    return (low + high) / 2 if clear else None


def _checked_mask(mask: object) -> npt.NDArray[Any]:
    _require_array(mask, "mask")
    assert isinstance(mask, np.ndarray)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    if mask.ndim != 2 or mask.dtype.kind not in "buif" or mask.size == 0:
        raise ValueError(
            f"got a mask array of shape {list(mask.shape)} and dtype {mask.dtype}; "
            "give [H, W], bool or uint8, with 1 or 255 in the hole"
        )
    return mask


def image_to_tensor(image: Image.Image | npt.NDArray[Any]) -> Tensor:
    """Convert a photo to float32 ``[1, 3, H, W]`` in [0, 1].

    Args:
        image: Any Pillow image (gray is repeated, alpha dropped), or uint8 ``[H, W]``,
            ``[H, W, C]``.

    Raises:
        ValueError: An array of another dtype or shape.
    """
    if not isinstance(image, Image.Image):
        image = array_to_image(image)
    pixels = np.array(standardize(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).contiguous().float() / 255


def tensor_to_image(tensor: Tensor) -> Image.Image:
    """Convert ``[1, 3, H, W]`` or ``[3, H, W]`` in [0, 1] to an RGB image, rounded to nearest.

    Values outside [0, 1] are clipped.

    Raises:
        ValueError: Another shape.
    """
    pixels = tensor[0] if tensor.ndim == 4 and tensor.shape[0] == 1 else tensor
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(
            f"got a tensor of shape {list(tensor.shape)}; give one image, [1, 3, H, W] or [3, H, W]"
        )
    levels = pixels.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def mask_to_tensor(mask: Image.Image | npt.NDArray[Any]) -> Tensor:
    """Convert a mask, as :func:`mask_to_array` takes it, to float32 ``[1, 1, H, W]``, 1 = hole.

    Raises:
        ValueError: An array of another shape or dtype.
    """
    hole = np.ascontiguousarray(mask_to_array(mask))
    return torch.from_numpy(hole).float()[None, None]


def composite(image: Tensor, output: Tensor, mask: Tensor) -> Tensor:
    """Keep the known pixels of ``image`` and take the hole from ``output``.

    Computes ``image * (1 - mask) + output * mask``, but reads neither what lies under the hole nor
    the output elsewhere, where both may be NaN.

    Args:
        image: ``[B, C, H, W]``.
        output: ``[B, C, H, W]``.
        mask: ``[B, 1, H, W]``, 1 = hole.
    """
    known, filled = image.masked_fill(mask >= 1, 0), output.masked_fill(mask <= 0, 0)
    return known * (1 - mask) + filled * mask


# --- errors --------------------------------------------------------------------------------------


def _require_array(value: object, what: str) -> None:
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"got a {what} of type {type(value).__name__}; give a PIL image or a NumPy array"
        )
