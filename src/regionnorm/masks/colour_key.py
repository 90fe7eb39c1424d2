"""Holes by colour: paint of one colour, and the rim where it fades into the photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from regionnorm.masks.regions import bounding_window, dilate_square
from regionnorm.nn.prefill import push_pull

__all__ = ["TOLERANCE", "find_colour"]

Hole = npt.NDArray[np.bool_]
Colours = npt.NDArray[np.uint8]

TOLERANCE = 24
"""Levels per channel between a colour key and a pixel that it takes."""

_REACH = 12  # pixels that a rim is followed; JPEG's blocks of halved colour are 16 wide
_SOFT, _FALL = 0.08, 0.02  # falls of the mean share of paint, a pixel on: the first and the last
_ROUNDS = 4  # in which thin parts are followed
_MIXED = 0.4  # share of paint in a pixel near paint that is some too, as in thin letters
_LEAST_CONTRAST = 40  # levels (distance) between paint and ground; less makes every share large


def find_colour(
    colours: Colours, key: tuple[int, int, int], tolerance: int = TOLERANCE
) -> tuple[Hole, tuple[str, ...]]:
    """Find the pixels of a colour, and those around them that are tinted by it.

    Soft brushes and JPEG mix paint and photo. How far is measured over all pixels at one distance
    from those of the colour, which no texture can mislead: the hole grows as long as they lie, on
    average, less and less on the way from the ground, continued from further out, to the paint.

    Args:
        colours: uint8 ``[H, W, 3]``.
        key: Red, green and blue, 0 to 255.
        tolerance: Levels per channel between the colour and a pixel that is taken.

    Returns:
        bool ``[H, W]``, empty where nothing has the colour, and what there is to say about it.
    """
    wanted = np.array(key, np.int16)
    hole: Hole = np.ones(colours.shape[:2], bool)
    for channel in range(3):
        hole &= abs(colours[:, :, channel].astype(np.int16) - wanted[channel]) <= tolerance
    if not hole.any():
        return hole, ()
    around = bounding_window(hole).grow(3 * _REACH, len(hole), len(hole[0])).slices
    count = int(hole.sum())
    grown, reach = _grow(colours[around], hole[around], wanted)
    if reach == 0:
        return hole, ()
    hole[around] = grown
    note = (
        f"the colour fades over {reach} pixels around the {count} that have it; "
        f"those are taken too, {int(hole.sum()) - count} pixels"
    )
    return hole, (note,)


def _grow(colours: Colours, paint: Hole, key: npt.NDArray[np.int16]) -> tuple[Hole, int]:
    """Grow paint by the width of its rim, which is 0 where its edges are hard."""
    width, found = 0, paint
    for _ in range(_ROUNDS):
        share, mixed = _shares(colours, found, key)
        width = width or _rim(share, found)
        more = found | (dilate_square(found, _REACH) & mixed)
        if width == 0 or np.array_equal(more, found):
            break
        found = more  # from which thin parts may go on
    return dilate_square(found, width), width


def _rim(share: npt.NDArray[np.float32], paint: Hole) -> int:
    """Pixels from the paint over which its mean share falls steeply, as no ground of its own."""
    means, grown = [], paint
    for _ in range(_REACH):
        wider = dilate_square(grown, 1)
        ring, grown = wider & ~grown, wider
        means.append(float(share[ring].mean()) if ring.any() else 0.0)
    falls = -np.diff(means)
    if falls[0] < _SOFT:
        return 0
    return int(np.argmax(np.append(falls, 0.0) < _FALL))


def _shares(
    colours: Colours, paint: Hole, key: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.float32], Hole]:
    """How far each pixel is on the way from the ground to the paint, and which are a mixture."""
    away = torch.from_numpy(dilate_square(paint, _REACH).astype(np.float32))[None, None]
    along, square, total = (np.zeros(paint.shape, np.float32) for _ in range(3))
    for channel in range(3):  # one at a time: a third of the memory
        levels = colours[:, :, channel].astype(np.float32)
        ground = push_pull(torch.from_numpy(levels)[None, None], away)[0, 0].numpy()
        step = key[channel] - ground
        along += (levels - ground) * step
        square += (levels - ground) ** 2
        total += step**2
    share = along / np.maximum(total, np.float32(_LEAST_CONTRAST**2))
    # A mixture of both lies on the line between them.
    beside = square - share * along
    return share, (share > _MIXED) & (beside < 3 * TOLERANCE**2)
