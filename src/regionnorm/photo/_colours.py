"""From a photo's own mode to RGB, and from RGB into the hole of a photo in its own mode."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.imaging import luma

__all__ = ["fill", "to_rgb"]

Pixels = npt.NDArray[Any]
Hole = npt.NDArray[np.bool_]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; CMYK by its own colour profile where it has a sound one."""
    if image.mode == "CMYK":
        return _convert_cmyk(image, image.info.get("icc_profile"), "RGB")
    if image.mode == "RGBa":
        return image.convert("RGBA").convert("RGB")
    if image.mode == "P":
        return image.convert("RGBA").convert("RGB") if _bytes_alpha(image) else image.convert("RGB")
    return image.convert("RGB")


def fill(
    image: Image.Image,
    colours: Pixels,
    hole: Hole,
    *,
    key: int | tuple[int, ...] | None = None,
    opaque: bool = False,
) -> Image.Image:
    """Put RGB ``[H, W, 3]`` into the hole of an image of any mode of :class:`~.photo.Photo`.

    A choice on the stored values themselves: arithmetic could change known pixels by rounding.

    Args:
        image: The photo.
        colours: RGB, uint8, or uint16 for 16-bit modes.
        hole: bool ``[H, W]``.
        key: The value that stands for transparency, which the fill must not take.
        opaque: Make the hole visible where there is an alpha channel or a palette with one.
    """
    new = colours[hole]
    if image.mode == "P":
        return _fill_palette(image, new, hole, opaque=opaque)
    values = np.array(image)
    if image.mode == "RGBa":
        values[hole, 3] = 255 if opaque else values[hole, 3]
        share = values[hole, 3:].astype(np.uint16)
        values[hole, :3] = (new * share + 127) // 255
        return Image.frombytes("RGBa", image.size, values.tobytes())
    if image.mode == "1":
        values[hole] = luma(new) > 127 if key is None else not key  # the other one shows
    elif image.mode in ("L", "I;16", "I"):
        values[hole] = _avoid(luma(new), key)
    elif image.mode == "LA":
        values[hole, 0] = luma(new)
    elif image.mode in ("RGB", "RGBA"):
        values[hole, :3] = _avoid(new, key)
    else:
        values[hole] = _from_rgb(new, image)
    if opaque and image.mode in ("LA", "RGBA"):
        values[hole, -1] = 255
    if image.mode in ("CMYK", "LAB"):
        return Image.frombytes(image.mode, image.size, np.ascontiguousarray(values).tobytes())
    return Image.fromarray(values)


def _avoid(values: Pixels, key: int | tuple[int, ...] | None) -> Pixels:
    """Move values that equal the transparent one by a single level."""
    if key is None:
        return values
    same = values == np.asarray(key)
    same = same.all(-1) if values.ndim == 2 else same
    values = values.copy()
    if same.any():
        last = values[same] if values.ndim == 1 else values[same, -1]
        moved = np.where(last > 0, last - 1, 1).astype(values.dtype)
        if values.ndim == 1:
            values[same] = moved
        else:
            values[same, -1] = moved
    return values


def _from_rgb(colours: Pixels, like: Image.Image) -> Pixels:
    """Convert N RGB values to the mode of an image, by its profile."""
    strip = Image.fromarray(colours[None])
    values: Pixels
    if like.mode == "CMYK":
        values = np.asarray(_convert_cmyk(strip, like.info.get("icc_profile"), "CMYK"))[0]
    else:
        values = np.asarray(strip.convert(like.mode))[0]
    return values


def _convert_cmyk(image: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    if profile:
        from PIL import ImageCms  # few photos are CMYK; every start would wait for it

        try:
            press = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            screen = ImageCms.createProfile("sRGB")
            start, end = (press, screen) if mode == "RGB" else (screen, press)
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            converted = ImageCms.profileToProfile(
                image, start, end, renderingIntent=intent, outputMode=mode
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a profile of another colour space, or none at all: the plain conversion is left
    return image.convert(mode)


# --- palettes ------------------------------------------------------------------------------------


def _bytes_alpha(image: Image.Image) -> bool:
    return isinstance(image.info.get("transparency"), bytes)


def _entry_alpha(image: Image.Image, count: int) -> npt.NDArray[np.uint8]:
    """Alpha of each palette entry."""
    alpha = np.full(count, 255, np.uint8)
    given = image.info.get("transparency")
    if isinstance(given, bytes):
        listed = np.frombuffer(given, np.uint8)[:count]
        alpha[: len(listed)] = listed
    elif isinstance(given, int) and given < count:
        alpha[given] = 0
    return alpha


def _fill_palette(image: Image.Image, colours: Pixels, hole: Hole, *, opaque: bool) -> Image.Image:
    """Fill with the palette's own colours, and with new ones where it has entries to spare."""
    indices = np.array(image)
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    entries = np.zeros((256, 3), np.uint8)
    entries[: len(palette)] = palette
    alpha = _entry_alpha(image, 256)
    visible = np.ones(len(colours), bool) if opaque else alpha[indices[hole]] > 0
    # Hidden pixels of the hole stay as they are, like those of photos with an alpha channel.
    at = hole.copy()
    at[hole] = visible
    used = np.zeros(256, bool)
    used[np.unique(indices[~at])] = True
    usable = alpha == 255
    usable[len(palette) :] = False
    spare = np.flatnonzero(~used & (alpha == 255))
    wanted = _main_colours(colours[visible], len(spare))
    entries[spare[: len(wanted)]] = wanted
    usable[spare[: len(wanted)]] = True
    choices = np.flatnonzero(usable)
    if len(choices):
        indices[at] = choices[_nearest(colours[visible], entries[choices])]
    filled = Image.fromarray(indices)  # mode L, until it gets a palette
    last = max(len(palette), int(choices.max(initial=0)) + 1)
    filled.putpalette(entries[:last].tobytes(), "RGB")
    return filled


def _main_colours(colours: Pixels, count: int) -> Pixels:
    if count == 0 or len(colours) == 0:
        return np.zeros((0, 3), np.uint8)
    strip = Image.fromarray(colours[None]).quantize(count, Image.Quantize.MEDIANCUT)
    found = np.array(strip.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return found[: len(strip.getcolors(256) or ())]


def _nearest(colours: Pixels, entries: Pixels) -> npt.NDArray[np.intp]:
    """The nearest entry of each colour, to within two levels, which bounds the work."""
    coarse = colours >> 2
    keys = coarse.astype(np.uint32) @ np.array([4096, 64, 1], np.uint32)
    names, back = np.unique(keys, return_inverse=True)
    values = np.stack([names >> 12, names >> 6 & 63, names & 63], 1).astype(np.int32) * 4 + 2
    nearest = np.empty(len(names), np.intp)
    for start in range(0, len(names), 4096):
        part = values[start : start + 4096]
        distance = ((part[:, None] - entries[None].astype(np.int32)) ** 2).sum(2)
        nearest[start : start + 4096] = distance.argmin(1)
    return nearest[back]
