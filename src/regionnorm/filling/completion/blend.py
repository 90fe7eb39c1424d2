"""Even out brightness between copied pieces, but keep the edges that a seam shows.

Perez, Gangnet and Blake, "Poisson image editing" (SIGGRAPH 2003): a smooth correction inside the
hole takes away what neighbouring pieces differ by where they meet. Where they differ much, one
does not continue the other, and a correction would smear colours over the hole: there the step
stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.multigrid import Laplace, solve
from regionnorm.masks.regions import bounding_window

__all__ = ["correction", "shown"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]


def correction(
    pixels: Floats,
    hole: Place,
    down: Integers,
    right: Integers,
    keep: float,
    *,
    place: Place | None = None,
) -> Floats:
    """What to add to a collage so that its pieces meet.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``: what nobody may copy.
        down: int32 ``[H, W]``: rows to what each hole pixel copies; with ``right`` 0 as well,
            the pixel shows what is painted there.
        right: The same, columns.
        keep: The mismatch of colours (L2) at which the correction is down to 1 / e.
        place: bool ``[H, W]``: the part of the hole that is filled; None for all.

    Returns:
        float32 ``[N, 3]`` for the pixels of the place, row by row.
    """
    place = hole if place is None else place
    box = bounding_window(place).grow(1, *hole.shape)
    weights = Laplace(*(np.zeros((box.height, box.width), np.float32) for _ in range(3)))
    targets = np.zeros((3, box.height, box.width), np.float32)
    corner = (box.top, box.left)
    _assemble(pixels, place, hole, down, right, np.float32(keep), corner, *weights, targets)
    inside = place[box.slices]
    return np.stack([solve(weights, target)[inside] for target in targets], axis=1)


@jit
def shown(pixels: Any, hole: Any, down: Any, right: Any, row: Any, column: Any) -> Any:
    """Whether a piece with this offset shows anything at a pixel, and what."""
    height, width = hole.shape
    nothing = np.float32(0)
    if down == 0 and right == 0:
        pixel = pixels[row, column]
        return True, pixel[0], pixel[1], pixel[2]
    row, column = row + down, column + right
    if not (0 <= row < height and 0 <= column < width) or hole[row, column]:
        return False, nothing, nothing, nothing
    pixel = pixels[row, column]
    return True, pixel[0], pixel[1], pixel[2]


@jit
def _mismatch(
    pixels: Any,
    place: Any,
    hole: Any,
    down: Any,
    right: Any,
    row: Any,
    column: Any,
    row2: Any,
    column2: Any,
) -> Any:
    """What the piece at one pixel shows more than the piece at its neighbour, at both places."""
    red = green = blue = views = np.float32(0)
    offset = down[row, column], right[row, column]
    offset2 = down[row2, column2], right[row2, column2]
    if offset[0] == offset2[0] and offset[1] == offset2[1]:
        return red, green, blue
    for view in range(2):
        # Only a piece of the hole can be asked what it would show at its neighbour.
        if not (place[row2, column2] if view == 0 else place[row, column]):
            continue
        asked_row, asked_column = (row, column) if view == 0 else (row2, column2)
        good, r, g, b = shown(pixels, hole, offset[0], offset[1], asked_row, asked_column)
        good2, r2, g2, b2 = shown(pixels, hole, offset2[0], offset2[1], asked_row, asked_column)
        if good and good2:
            red, green, blue, views = red + r - r2, green + g - g2, blue + b - b2, views + 1
    share = np.float32(1) / max(views, np.float32(1))
    return red * share, green * share, blue * share


@jit
def _assemble(
    pixels: Any,
    place: Any,
    hole: Any,
    down: Any,
    right: Any,
    keep: Any,
    corner: Any,
    to_right: Any,
    to_below: Any,
    anchor: Any,
    targets: Any,
) -> None:
    """Write weights and targets of the window that begins at ``corner``."""
    top, left = corner
    height, width = anchor.shape
    for y in range(height):
        for x in range(width):
            for way in range(2):
                y2, x2 = (y, x + 1) if way == 0 else (y + 1, x)
                if y2 >= height or x2 >= width:
                    continue
                row, column, row2, column2 = top + y, left + x, top + y2, left + x2
                inside, inside2 = place[row, column], place[row2, column2]
                if not inside and not inside2:
                    continue
                if (hole[row, column] and not inside) or (hole[row2, column2] and not inside2):
                    continue  # nothing to meet
                if not inside2:
                    anchor[y, x] += np.float32(1)
                elif not inside:
                    anchor[y2, x2] += np.float32(1)
                elif way == 0:
                    to_right[y, x] = 1
                else:
                    to_below[y, x] = 1
                mismatch = _mismatch(pixels, place, hole, down, right, row, column, row2, column2)
                square = mismatch[0] ** 2 + mismatch[1] ** 2 + mismatch[2] ** 2
                share = np.exp(-square / (keep * keep))
                for channel in range(3):
                    if inside:
                        targets[channel, y, x] -= share * mismatch[channel]
                    if inside2:
                        targets[channel, y2, x2] += share * mismatch[channel]
