"""Which pixels of a mask file are meant: brightness, strokes on transparency, colours, labels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.remote import as_place
from regionnorm.files.whole import decode
from regionnorm.imaging import MASK_THRESHOLD, mask_levels, standardize, two_levels

__all__ = ["looks_like_photo", "read_hole", "read_levels"]

Levels = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]

_DARK, _BRIGHT = 64, 191  # a mask's pixels are darker or brighter than these, but for edges
_PHOTO_SHARE = 1 / 3  # of pixels between, above which it is no mask
_COLOURED = 64  # levels between a pixel's channels from which on it counts as coloured
_COLOURED_SHARE = 0.001
_NOISE = 0.15 * 255  # from two clear levels
_FEW, _FLAT = 8, 1e-3  # levels that somebody chose at most, and the share of pixels of each


def read_levels(image: Image.Image) -> tuple[Levels, tuple[str, ...]]:
    """Read a mask's levels, above 127 = hole.

    Args:
        image: Of any mode.

    Returns:
        uint8 ``[H, W]``, and what is odd about it, a line each.

    Raises:
        ValueError: It is a photo with a transparent part.
    """
    upright = standardize(image)
    if upright.mode in ("LA", "RGBA"):
        alpha = np.asarray(upright.getchannel("A"))
        if alpha.min() != alpha.max() and _are_strokes(upright, alpha):
            return alpha, ("the mask is a layer; its opaque pixels are taken for white",)
    if upright.mode in ("RGB", "RGBA"):
        colours = np.asarray(upright.convert("RGB"))
        spread = colours.max(2) - colours.min(2)
        if (spread > _COLOURED).mean() > _COLOURED_SHARE:
            return _from_colours(np.asarray(upright.convert("RGB").convert("L")), spread)
    return _spread_out(mask_levels(image))


def read_hole(path: str | os.PathLike[str], *, refuse_photos: bool = False) -> Hole:
    """Read a mask file as bool ``[H, W]``, True = hole, whatever in it stands for the hole.

    Args:
        path: The file.
        refuse_photos: Look whether it is a photo, too.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged, too large, or a photo with a transparent
            part, or with ``refuse_photos`` any.
    """

    def convert(image: Image.Image, _: object) -> Hole:
        levels = read_levels(image)[0]
        if refuse_photos and looks_like_photo(levels):
            raise ValueError("it looks like a photo, not like a mask")
        hole: Hole = levels > 127
        return hole

    return decode(as_place(path), convert)


def looks_like_photo(levels: npt.NDArray[Any]) -> bool:
    """Whether over a third of uint8 ``[H, W]`` is gray, neither dark nor bright."""
    if ((levels >= _DARK) & (levels <= _BRIGHT)).mean() <= _PHOTO_SHARE:
        return False
    return two_levels(levels) is None and not _has_few_levels(levels)


def _are_strokes(image: Image.Image, alpha: Levels) -> bool:
    """Whether a layer's opaque pixels are strokes, and not a picture or a mask of their own."""
    opaque = alpha > 255 * MASK_THRESHOLD
    if not opaque.any():
        return True
    colours = np.asarray(image.convert("RGB"))[opaque]
    # A brush has a few colours, whatever they are; a photo has thousands.
    _, counts = np.unique((colours >> 5).astype(np.uint16) @ [64, 8, 1], return_counts=True)
    if np.sort(counts)[-6:].sum() < 0.95 * len(colours):
        raise ValueError(
            "the mask is a photo with transparent pixels; save those white and the others black, "
            "or have the photo's own transparent pixels filled"
        )
    gray = np.asarray(image.convert("RGB").convert("L"))[opaque]
    neutral = np.ptp(colours, axis=1) <= _COLOURED
    return not ((gray[neutral] < _DARK).any() and (gray[neutral] > _BRIGHT).any())


def _from_colours(gray: Levels, spread: Levels) -> tuple[Levels, tuple[str, ...]]:
    """Coloured strokes on one neutral ground are the hole; of anything else, what is bright."""
    coloured = spread > _COLOURED
    ground = gray[~coloured]
    if ground.size and np.ptp(np.percentile(ground, (2, 98))) < _COLOURED:
        border = np.concatenate([side for edge in (coloured, coloured.T) for side in edge[[0, -1]]])
        # White on a coloured ground is a mask as usual.
        if np.median(ground) <= 255 * MASK_THRESHOLD or border.mean() < 0.5:
            note = "the mask has strokes of a colour; they are taken for white"
            return (coloured * 255).astype(np.uint8), (note,)
    levels, notes = _spread_out(gray)
    note = "the mask is in colour; its brightness above 127 of 255 is the hole"
    return levels, notes or (note,)


def _spread_out(levels: npt.NDArray[Any]) -> tuple[Levels, tuple[str, ...]]:
    """Bring levels to 0 to 255; a few that lie on one side of the threshold are spread out."""
    most = np.iinfo(levels.dtype).max if levels.dtype in (np.uint8, np.uint16) else 65535
    hole = levels > most * MASK_THRESHOLD
    low, high = int(levels.min()), int(levels.max())
    one_sided = hole.all() or not hole.any()
    few = one_sided and low < high and _has_few_levels(levels)
    if not few and (not one_sided or two_levels(levels) is None):
        return (levels if most == 255 else levels // 257).astype(np.uint8), ()
    # What lies between, an edge or a level of its own, shows as much of the fill.
    spread = np.rint((levels.astype(np.float64) - low) * (255 / (high - low)))
    count = len(np.unique(levels)) if few else 2
    if not few:  # noise about the two is not meant
        spread[spread < _NOISE] = 0
        spread[spread > 255 - _NOISE] = 255
    named = "two levels," if count == 2 else f"{count} levels, from"
    joined = "and" if count == 2 else "to"
    note = (
        f"the mask has {named} {low} {joined} {high} of {most}; "
        f"the {'brighter' if count == 2 else 'brightest'} is taken for white"
    )
    return spread.astype(np.uint8), (note,)


def _has_few_levels(levels: npt.NDArray[Any]) -> bool:
    """Whether somebody chose them: three at least, each more than edges have."""
    values, counts = np.unique(levels, return_counts=True)
    return 2 < len(values) <= _FEW and bool(counts.min() > _FLAT * levels.size)
