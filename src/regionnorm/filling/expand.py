"""Photos beyond their border: a larger canvas, whose new part is the hole."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from regionnorm.masks.check import (
    CheckedMask,
    MaskOptions,
    NothingFoundError,
    is_mask_rule,
    make_mask,
    mask_size,
)
from regionnorm.photo import Photo

__all__ = ["Margins", "expand_photo", "make_hole"]

Hole = npt.NDArray[np.bool_]

_MOST = 1.0  # of a photo's side that each margin may add: there is no more to copy from
_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
_AMOUNT = re.compile(rf"{_NUMBER}%?")
_PART = re.compile(rf"(left|top|right|bottom|all)=({_NUMBER})(px|%|)")


@dataclass(frozen=True)
class Margins:
    """What to add on each side, in pixels, or in per cent of the photo's width or height.

    Attributes:
        left: For instance ``"200"`` or ``"10%"``.
        top: The same.
        right: The same.
        bottom: The same.
    """

    left: str = "0"
    top: str = "0"
    right: str = "0"
    bottom: str = "0"

    def __post_init__(self) -> None:
        for side in fields(self):
            value = str(getattr(self, side.name))
            if _AMOUNT.fullmatch(value) is None:
                raise ValueError(
                    f"{side.name} is {value!r}; give pixels or per cent, such as '200' or '10%'"
                )
            object.__setattr__(self, side.name, value)

    @classmethod
    def parse(cls, text: str) -> Margins:
        """Read ``left=200,top=10%``; ``all=`` stands for the four sides.

        Raises:
            ValueError: It is nothing of the kind.
        """
        given: dict[str, str] = {}
        for part in text.replace(" ", "").split(","):
            match = _PART.fullmatch(part)
            sides = [] if match is None else [match[1]]
            if sides == ["all"]:
                sides = [field.name for field in fields(cls)]
            if match is None or not given.keys().isdisjoint(sides):
                raise ValueError(
                    f"expand is {text!r}; give sides once each, in pixels or per cent: "
                    "left=200,top=10%, or all=15%"
                )
            given |= dict.fromkeys(sides, match[2] + match[3].removesuffix("px"))
        if not any(float(value.removesuffix("%")) for value in given.values()):
            raise ValueError(f"expand is {text!r} and adds nothing; give a side, as left=10%")
        return cls(**given)

    def pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels for a photo of this width and height.

        Raises:
            ValueError: Nothing is added, or more than the photo's own size on a side.
        """
        amounts = []
        for side, length in zip(fields(self), (*size, *size), strict=True):
            value = getattr(self, side.name)
            share = float(value.removesuffix("%"))
            amount = round(share / 100 * length) if value.endswith("%") else round(share)
            if amount > _MOST * length:
                raise ValueError(
                    f"expand adds {amount} pixels at the {side.name} of a photo of "
                    f"{size[0]}x{size[1]}; give at most {int(_MOST * length)}, and more in a "
                    "second step"
                )
            amounts.append(amount)
        if not any(amounts):
            raise ValueError("expand adds nothing; give a side, for instance left=10%")
        left, top, right, bottom = amounts
        return left, top, right, bottom


def expand_photo(photo: Photo, margins: Margins) -> tuple[Photo, Hole]:
    """Put a photo on a larger canvas.

    Args:
        photo: Of any mode and depth; its pixels stay as they are stored.
        margins: What to add.

    Returns:
        The larger photo, opaque in what is new, and what is new: bool ``[H, W]``.

    Raises:
        ValueError: As :meth:`Margins.pixels`.
    """
    left, top, right, bottom = margins.pixels(photo.size)
    width, height = photo.size
    new = np.ones((height + top + bottom, width + left + right), np.bool_)
    new[top : top + height, left : left + width] = False
    return photo.on_canvas(left, top, right, bottom), new


def make_hole(
    photo: Photo,
    mask: str | os.PathLike[str] | None,
    options: MaskOptions,
    margins: Margins | None,
) -> tuple[Photo, CheckedMask]:
    """Put a photo on its canvas, and say all of what is to be filled.

    Args:
        photo: What to fill.
        mask: A file or a rule, as :func:`~regionnorm.masks.check.make_mask` takes them, of the
            photo's size or the canvas's; None with margins alone.
        options: What to do to the mask.
        margins: What to add on each side. Where a rule finds nothing, that is all of the hole.

    Raises:
        OSError: As ``make_mask``.
        ValueError: As ``make_mask`` and :meth:`Margins.pixels`.
    """
    if margins is None:
        assert mask is not None
        return photo, make_mask(photo, mask, options)
    wide, new = expand_photo(photo, margins)
    if mask is None:
        return wide, CheckedMask(new)
    if not is_mask_rule(mask) and mask_size(mask) == wide.size:
        return wide, _joined(make_mask(wide, mask, options), new)
    try:
        checked = make_mask(photo, mask, options)
    except NothingFoundError as error:
        found = str(error).partition(";")[0]
        return wide, CheckedMask(new, (f"{found}; only what is new is filled",))
    hole, cover = new.copy(), None
    hole[~new] = checked.hole.ravel()
    if checked.cover is not None:
        cover = np.full(new.shape, 255, np.uint8)
        cover[~new] = checked.cover.ravel()
    return wide, replace(checked, hole=hole, cover=cover)


def _joined(checked: CheckedMask, new: npt.NDArray[np.bool_]) -> CheckedMask:
    """A mask of the larger canvas, as ``save_mask`` writes them, and all that is new."""
    cover = None if checked.cover is None else np.where(new, np.uint8(255), checked.cover)
    return replace(checked, hole=checked.hole | new, cover=cover)
