"""Soft masks: gray says how much of the fill shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.masks.regions import dilate_disk

__all__ = ["blend", "cover_of", "grow_cover"]

Cover = npt.NDArray[np.uint8]

_NEARLY = 8  # levels from black and from white that are taken for them: what an export rounds


def cover_of(levels: npt.NDArray[np.uint8]) -> Cover | None:
    """How much of a fill shows at each pixel, by a mask's gray levels.

    Args:
        levels: uint8 ``[H, W]``, 255 = all of the fill.

    Returns:
        uint8 ``[H, W]``, 0 = the photo's own pixel, 255 = all fill; None where the mask is black
        and white alone, or has no black: then what is dark is meant to be kept.
    """
    inner = levels.astype(np.int16)
    inner[inner <= _NEARLY] = 0
    inner[inner >= 255 - _NEARLY] = 255
    if ((inner == 0) | (inner == 255)).all() or inner.all():
        return None
    return inner.astype(np.uint8)


def grow_cover(cover: Cover, radius: int) -> Cover:
    """Grow a soft mask: what shows more than half of the fill shows all of it, and so around it."""
    return np.where(dilate_disk(cover > 127, radius), np.uint8(255), cover)


def blend(photo: npt.NDArray[Any], fill: npt.NDArray[Any], cover: Cover) -> npt.NDArray[Any]:
    """The photo's colours with as much of the fill as the cover says, rounded.

    Args:
        photo: ``[H, W, 3]``, uint8 or uint16.
        fill: The same.
        cover: uint8 ``[H, W]``.
    """
    share = cover[:, :, None].astype(np.float32) / 255
    return np.rint(photo * (1 - share) + fill * share).astype(photo.dtype)
