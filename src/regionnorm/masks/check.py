"""Masks from files and rules, looked at before they are used.

A wrong mask ruins a fill without any error: white and black exchanged, JPEG noise, another size.
:func:`check_mask` stops where nothing sensible could come out, and says what looks odd otherwise.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.remote import as_place
from regionnorm.files.whole import decode
from regionnorm.imaging import MASK_THRESHOLD, eight_bits, mask_to_array, standardize, upright
from regionnorm.masks.colour_key import TOLERANCE, find_colour
from regionnorm.masks.levels import looks_like_photo, read_levels
from regionnorm.masks.regions import dilate_disk, dilate_square
from regionnorm.masks.rim import bleeds
from regionnorm.masks.scratches import find_scratches
from regionnorm.masks.soft import cover_of, grow_cover
from regionnorm.masks.text import find_text
from regionnorm.photo import Photo

__all__ = [
    "CheckedMask",
    "MaskOptions",
    "NothingFoundError",
    "check_mask",
    "is_mask_rule",
    "make_mask",
    "mask_size",
    "paint_preview",
]

Hole = npt.NDArray[np.bool_]

_WHITE_SHARE = 0.6  # masks with more hole than this, border included, look inverted
_WHITE_BORDER = 0.9
_MUCH = 0.25  # of a photo; writing, scratches and marks take far less
_FUZZ_SHARE = 1e-4  # of all pixels: gray away from any edge, which no brush leaves
_LOSSY = ("JPEG", "MPO")
_NO_MASK = "looks like a photo, over a third of its pixels are neither dark nor bright"
_TIGHT = (
    "the mask is tight: what it covers seems to go on just outside it and may bleed into the fill; "
    "widen the mask by 2 pixels"
)
_COPY_TOLERANCE, _COPY_SHARE = 12, 0.3  # levels, and share of pixels that equal the photo's
_SHAPE_TOLERANCE = 0.02  # between the width-to-height ratios of photo and mask
_COLOUR_RULE = re.compile(r"color:#?([0-9a-f]{6})(?:~([0-9]{1,3}))?", re.IGNORECASE)


class NothingFoundError(ValueError):
    """A rule was asked for a mask, and the photo holds nothing of what it looks for."""


@dataclass(frozen=True)
class MaskOptions:
    """What to do to a mask before it is used.

    Attributes:
        invert: Take black for hole.
        dilate: Grow the hole by this many pixels.
        fit: Scale a mask of another size to the photo's.
        hard: Fill what is brighter than half, and nothing else; otherwise a gray pixel shows as
            much of the fill as it is bright.
    """

    invert: bool = False
    dilate: int = 0
    fit: bool = False
    hard: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.dilate <= 1000:
            raise ValueError(f"dilate is {self.dilate} pixels; give 0 to 1000")


@dataclass(frozen=True)
class CheckedMask:
    """A mask fit for use.

    Attributes:
        hole: bool ``[H, W]``, neither empty nor full.
        warnings: What looks odd, one line each.
        opaque: Whether the hole is to become visible: it was made of transparent pixels.
        cover: How much of the fill shows, uint8 ``[H, W]``, above 0 in the hole; None: all of it.
    """

    hole: Hole
    warnings: tuple[str, ...] = ()
    opaque: bool = False
    cover: npt.NDArray[np.uint8] | None = None


def is_mask_rule(mask: str | os.PathLike[str]) -> bool:
    """Return whether a mask is a rule: ``alpha``, ``auto:...`` or ``color:...``."""
    text = os.fspath(mask)
    return text == "alpha" or text.startswith(("auto:", "color:"))


def make_mask(
    photo: Photo, mask: str | os.PathLike[str], options: MaskOptions | None = None
) -> CheckedMask:
    """Make and check a photo's mask.

    Args:
        photo: What the mask is for.
        mask: A mask file; or a rule: ``alpha`` takes the pixels that are more transparent than
            not, ``auto:scratches`` what :func:`~regionnorm.masks.scratches.find_scratches` finds
            (``auto:scratches-classical``: without a network), ``auto:text`` what
            :func:`~regionnorm.masks.text.find_text` does,
            ``color:#ff00ff`` the pixels of that colour, to within 24 levels per channel or as
            many as given (``color:#ff00ff~60``), and the rim around them that has its tint.
        options: What to do to the mask.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        NothingFoundError: The photo holds nothing of what the rule looks for.
        ValueError: It is no mask, no known rule, or fails :func:`check_mask`.
        ImportError: The rule is ``auto:text`` and the detector is not installed.
    """
    options = options or MaskOptions()
    text = os.fspath(mask)
    if not is_mask_rule(text):
        (levels, notes), noisy = decode(
            as_place(text), lambda image, _: (_read_file(image, photo), image.format in _LOSSY)
        )
        # JPEG's noise is gray too, and would let what is to go shine through.
        options = replace(options, hard=options.hard or noisy)
        checked = check_mask(levels, photo.size, options, notes=notes)
        if bleeds(eight_bits(photo.colours()), checked.hole):
            return replace(checked, warnings=(*checked.warnings, _TIGHT))
        return checked
    hole, notes = _from_rule(photo, text)
    checked = check_mask(hole, photo.size, options, notes=notes)
    return CheckedMask(checked.hole, checked.warnings, opaque=text == "alpha")


def mask_size(mask: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a mask file, upright.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: It is no image.
    """
    return decode(as_place(os.fspath(mask)), lambda image, _: upright(image).size)


def check_mask(
    mask: Image.Image | npt.NDArray[Any],
    size: tuple[int, int],
    options: MaskOptions | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> CheckedMask:
    """Check a mask against a photo's size, and prepare it.

    Args:
        mask: An image, or an array ``[H, W]``, as :func:`~regionnorm.imaging.mask_to_array` takes.
        size: The upright photo's width and height.
        options: What to do to the mask.
        notes: Warnings so far.

    Raises:
        ValueError: The size is another and ``fit`` is not set, or the hole is empty or full.
    """
    options = options or MaskOptions()
    warnings = list(notes)
    if isinstance(mask, Image.Image):
        mask, more = read_levels(mask)
        warnings += more
    if mask.dtype == np.uint8 and looks_like_photo(mask):
        raise ValueError(f"the mask {_NO_MASK}; were photo and mask exchanged?")
    if mask.shape[:2] != (size[1], size[0]):
        mask = _fit(mask, size, options, warnings)
    hole, cover = mask_to_array(mask), _cover(mask, options)
    warnings += _gray_levels(mask, hole, hard=cover is None)
    if options.invert:
        hole = ~hole
    elif _looks_inverted(hole):
        warnings.append(
            f"{hole.mean():.0%} of the mask is white, its border too: it looks inverted; "
            "white is filled; invert the mask if black should be"
        )
    if not hole.any():
        raise ValueError(_no_hole(mask, options.invert))
    if options.dilate:
        hole = dilate_disk(hole, options.dilate)
        cover = None if cover is None else grow_cover(cover, options.dilate)
    if cover is not None:
        hole = cover > 0
    if hole.all():
        raise ValueError("the mask is white everywhere; leave black what should be kept")
    return CheckedMask(hole, tuple(warnings), cover=cover)


def paint_preview(photo: Photo, hole: Hole) -> Image.Image:
    """Return the photo with its hole in red, RGB: what is about to be filled."""
    shown = eight_bits(photo.colours()).copy()
    shown[hole] = shown[hole] // 3 + np.array([170, 0, 0], np.uint8)
    return Image.fromarray(shown)


# --- files ---------------------------------------------------------------------------------------


def _read_file(image: Image.Image, photo: Photo) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """A mask file's levels; a copy of the photo itself is told from any other photo."""
    levels, notes = read_levels(image)
    if looks_like_photo(levels) and levels.shape == (photo.size[1], photo.size[0]):
        copied = np.asarray(standardize(image).convert("RGB")).astype(np.int16)
        same = abs(copied - eight_bits(photo.colours())).max(2) <= _COPY_TOLERANCE
        if same.mean() > _COPY_SHARE:
            raise ValueError(
                f"the mask is a copy of the photo, {1 - same.mean():.1%} of it changed; save the "
                "difference of the two as the mask"
            )
    return levels, notes


def _no_hole(mask: npt.NDArray[Any], inverted: bool) -> str:
    if inverted:
        return "inverted, the mask is black everywhere; leave black what should be filled"
    if mask.max(initial=0) > 0:
        return (
            f"no pixel of the mask is brighter than 127 of 255, the brightest is {mask.max()}; "
            "paint what should be filled white"
        )
    return "the mask is black everywhere; paint what should be filled white"


def _fit(
    mask: npt.NDArray[Any], size: tuple[int, int], options: MaskOptions, warnings: list[str]
) -> npt.NDArray[np.uint8]:
    height, width = mask.shape[:2]
    if not options.fit:
        turned = " (it lies on its side: was the photo turned since?)" * ((height, width) == size)
        raise ValueError(
            f"the mask is {width}x{height} but the upright photo is {size[0]}x{size[1]}{turned}; "
            "give a mask of the photo's size, or have it scaled"
        )
    if abs(width * size[1] / (height * size[0]) - 1) > _SHAPE_TOLERANCE:
        warnings.append(
            f"the mask is {width}x{height}, another shape than the photo's {size[0]}x{size[1]}; "
            "it is stretched"
        )
    levels = mask if mask.dtype == np.uint8 and mask.max() > 1 else mask_to_array(mask) * 255
    scaled = Image.fromarray(levels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    if _cover(mask, options) is not None:
        return np.asarray(scaled)
    # Its edges are soft from scaling, which says nothing about the file.
    return (np.asarray(scaled) > 255 * MASK_THRESHOLD).astype(np.uint8) * 255


def _cover(mask: npt.NDArray[Any], options: MaskOptions) -> npt.NDArray[np.uint8] | None:
    """How much of the fill each gray pixel of a mask of levels shows."""
    if options.hard or mask.dtype != np.uint8 or mask.max(initial=0) <= 1:
        return None
    if not (mask > 255 * MASK_THRESHOLD).any():  # two dark levels, of which one is the hole
        return None
    return cover_of(255 - mask if options.invert else mask)


def _gray_levels(mask: npt.NDArray[Any], hole: Hole, *, hard: bool) -> list[str]:
    """Say whether a mask of levels has grays elsewhere than along edges, and what they do."""
    if mask.dtype != np.uint8 or mask.max(initial=0) <= 1:
        return []
    edge = dilate_square(hole, 2) & dilate_square(~hole, 2)
    gray = (mask > 0) & (mask < 255)
    if (gray & ~edge).mean() <= _FUZZ_SHARE:
        return []
    share = f"{gray.mean():.1%} of the mask's pixels are neither black nor white"
    if hard:
        return [
            f"{share} (JPEG noise or a soft brush); those above 127 are filled: save masks as PNG, "
            "or widen the mask by 2 pixels"
        ]
    return [f"{share} and show as much of the fill; hard edges would fill those above 127"]


def _looks_inverted(hole: Hole) -> bool:
    border = np.concatenate([hole[0], hole[-1], hole[:, 0], hole[:, -1]])
    return bool(hole.mean() > _WHITE_SHARE and border.mean() > _WHITE_BORDER)


# --- rules ---------------------------------------------------------------------------------------


def _from_rule(photo: Photo, rule: str) -> tuple[Hole, tuple[str, ...]]:
    """What a rule finds, which is something, and what there is to say about it."""
    if rule == "alpha":
        return _from_alpha(photo)
    notes: tuple[str, ...] = ()
    if rule in ("auto:scratches", "auto:scratches-classical"):
        method: Literal["learned", "classical"] = (
            "classical" if rule.endswith("-classical") else "learned"
        )
        hole = _some(find_scratches(photo.colours(), method=method), "scratches were")
    elif rule == "auto:text":
        hole = _some(find_text(photo.colours()), "writing was")
    else:
        hole, notes = _from_colour(photo, rule)
    share = float(hole.mean())
    if share > _MUCH:
        notes += (f"{rule} marks {share:.0%} of the photo; look at what it marks before filling",)
    return hole, notes


def _some(hole: Hole, what: str) -> Hole:
    if not hole.any():
        raise NothingFoundError(f"no {what} found; paint a mask instead")
    return hole


def _from_alpha(photo: Photo) -> tuple[Hole, tuple[str, ...]]:
    alpha = photo.alpha()
    if alpha is None or (alpha > 255 * MASK_THRESHOLD).all():
        raise NothingFoundError("the photo has no transparent pixels to fill; give a mask file")
    partly = int(((alpha > 255 * MASK_THRESHOLD) & (alpha < 255)).sum())
    note = (
        f"{partly} pixels are partly transparent and stay so; to take those at the edge, "
        "widen the mask by 2 pixels"
    )
    return alpha <= 255 * MASK_THRESHOLD, (note,) if partly else ()


def _from_colour(photo: Photo, rule: str) -> tuple[Hole, tuple[str, ...]]:
    match = _COLOUR_RULE.fullmatch(rule)
    if match is None:
        raise ValueError(
            f"mask {rule!r} is no rule that is known; "
            "use alpha, auto:scratches, auto:text, color:#ff00ff, or a file (./name)"
        )
    red, green, blue = (int(match[1][at : at + 2], 16) for at in (0, 2, 4))
    tolerance = TOLERANCE if match[2] is None else int(match[2])
    hole, notes = find_colour(eight_bits(photo.colours()), (red, green, blue), tolerance)
    if not hole.any():
        raise NothingFoundError(
            f"no pixel of the photo is #{match[1].lower()} to within {tolerance} levels; "
            f"allow more with color:#{match[1].lower()}~{min(255, 2 * tolerance + 16)}"
        )
    return hole, notes
