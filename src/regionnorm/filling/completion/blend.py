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

__all__ = ["correction"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]


def correction(pixels: Floats, hole: Place, down: Integers, right: Integers, keep: float) -> Floats:
    """What to add to a collage so that its pieces meet.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``.
        down: int32 ``[H, W]``: rows to what each hole pixel copies; with ``right`` 0 as well,
            the pixel shows what is painted there.
        right: The same, columns.
        keep: The mismatch of colours (L2) at which the correction is down to 1 / e.

    Returns:
        float32 ``[H, W, 3]``, 0 outside the hole.
    """
    height, width = hole.shape
    weights = Laplace(*(np.zeros((height, width), np.float32) for _ in range(3)))
    targets = np.zeros((3, height, width), np.float32)
    _assemble(pixels, hole, down, right, np.float32(keep), *weights, targets)
    return np.stack([solve(weights, target) for target in targets], axis=2)


@jit
def _shown(pixels: Any, hole: Any, down: Any, right: Any, row: Any, column: Any) -> Any:
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
def _assemble(
    pixels: Any,
    hole: Any,
    down: Any,
    right: Any,
    keep: Any,
    to_right: Any,
    to_below: Any,
    anchor: Any,
    targets: Any,
) -> None:
    height, width = hole.shape
    for row in range(height):
        for column in range(width):
            for way in range(2):
                row2, column2 = (row, column + 1) if way == 0 else (row + 1, column)
                if row2 >= height or column2 >= width:
                    continue
                inside, inside2 = hole[row, column], hole[row2, column2]
                if not inside and not inside2:
                    continue
                if inside and inside2:
                    if way == 0:
                        to_right[row, column] = 1
                    else:
                        to_below[row, column] = 1
                elif inside:
                    anchor[row, column] += 1
                else:
                    anchor[row2, column2] += 1
                d, r, d2, r2 = (
                    down[row, column],
                    right[row, column],
                    down[row2, column2],
                    right[row2, column2],
                )
                if inside and inside2 and d == d2 and r == r2:
                    continue
                # What each of the two shows at the other, against what is there: the mismatch.
                red = green = blue = np.float32(0)
                views = 0
                if inside:
                    good, a0, a1, a2 = _shown(pixels, hole, d, r, row2, column2)
                    if good:
                        if inside2:
                            _, b0, b1, b2 = _shown(pixels, hole, d2, r2, row2, column2)
                        else:
                            b0, b1, b2 = (
                                pixels[row2, column2, 0],
                                pixels[row2, column2, 1],
                                pixels[row2, column2, 2],
                            )
                        red, green, blue = red + a0 - b0, green + a1 - b1, blue + a2 - b2
                        views += 1
                if inside2:
                    good, a0, a1, a2 = _shown(pixels, hole, d2, r2, row, column)
                    if good:
                        if inside:
                            _, b0, b1, b2 = _shown(pixels, hole, d, r, row, column)
                        else:
                            b0, b1, b2 = (
                                pixels[row, column, 0],
                                pixels[row, column, 1],
                                pixels[row, column, 2],
                            )
                        red, green, blue = red + b0 - a0, green + b1 - a1, blue + b2 - a2
                        views += 1
                if views == 0:
                    continue
                red, green, blue = red / views, green / views, blue / views
                square = (red * red + green * green + blue * blue) / (keep * keep)
                share = np.exp(-square)
                for channel in range(3):
                    mismatch = red if channel == 0 else (green if channel == 1 else blue)
                    if inside:
                        targets[channel, row, column] -= share * mismatch
                    if inside2:
                        targets[channel, row2, column2] += share * mismatch
