"""Fine detail for what a network paints: from places of the photo that look like it.

A network's fill of a scratch or of letters has the colours and edges that belong there, and is
softer than what is around it. So it is the guide of a search nearby: patches of the photo that are
most like it, known or painted, lend it what they have of detail. Where they fit, errors become
smaller as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion import patchmatch
from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.pyramid import blur
from regionnorm.filling.completion.refine import Search, trust_in
from regionnorm.filling.completion.structure import source_centres
from regionnorm.masks.regions import dilate_square

__all__ = ["fineness", "lookalike", "with_detail"]

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]

_BLURS = 8  # what remains after them is no detail
_REACHES = (48, 4)  # pixels: where the first and the second search begin
_APART = 2  # pixels to a match, at least
_FURTHEST = 128  # pixels to the first match that is tried


def with_detail(pixels: Floats, filled: Floats, hole: Place, share: float) -> Floats:
    """What is painted, with a share of the fine detail of another fill.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        filled: float32 ``[N, 3]``: the other fill of the hole's pixels, row by row.
        hole: bool ``[H, W]``.
        share: How much, in [0, 1].

    Returns:
        float32 ``[N, 3]``.
    """
    difference = np.zeros_like(pixels)
    difference[hole] = filled - pixels[hole]
    low = blur(difference, np.ones(hole.shape, np.float32), _BLURS)
    detailed: Floats = pixels[hole] + np.float32(share) * (difference - low)[hole]
    return detailed


def fineness(pixels: Floats, known: Place) -> Floats:
    """How far known pixels are from their blurred neighbourhood, which is of known ones alone.

    Args:
        pixels: float32 ``[H, W, 3]``, finite.
        known: bool ``[H, W]``.

    Returns:
        float32 ``[N]`` for the known pixels, row by row; the mean over the channels.
    """
    low = blur(pixels, known.astype(np.float32), _BLURS)
    fine: Floats = np.abs(pixels - low)[known].mean(axis=1)
    return fine


def lookalike(pixels: Floats, hole: Place, place: Place) -> Floats:
    """Known pixels in place of painted ones, from where the photo looks as what is painted does.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``: what nobody may copy.
        place: bool ``[H, W]``: the part of it that is wanted.

    Returns:
        float32 ``[N, 3]`` for the pixels of ``place``, row by row; what is painted where the photo
        has no patch that is wholly known.
    """
    sources = source_centres(hole)
    if not sources.any():
        return pixels[place]
    near = dilate_square(place, patchmatch.RADIUS)
    patches = patchmatch.patches_at(near, sources)
    down, right = _nearest(patches.rows, patches.columns, sources, _FURTHEST)
    field = patchmatch.Field(down, right, np.zeros(len(patches.rows), np.float32))
    trust = trust_in(near, place)
    flat, current = patchmatch.padded_rows(pixels)
    down, right = (np.zeros(hole.shape, np.int32) for _ in range(2))
    search = Search(pixels, place, hole, patches, field, trust, flat, current, down, right)
    for turn, reach in enumerate(_REACHES):
        # A mean, by which the second search is guided, and then what is sharp.
        search.turn(reach=reach, apart=_APART, seed=turn, sharp=turn > 0)
    return np.ascontiguousarray(current[place])


@jit
def _nearest(rows: Any, columns: Any, sources: Any, furthest: Any) -> Any:
    """Offsets from pixels to a place near by where there is a source; 0 where none is."""
    down, right = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32)
    for number in range(len(rows)):
        down[number], right[number] = _nearest_to(rows[number], columns[number], sources, furthest)
    return down, right


@jit
def _nearest_to(row: Any, column: Any, sources: Any, furthest: Any) -> Any:
    height, width = sources.shape
    if sources[row, column]:
        return 0, 0
    for reach in range(1, furthest + 1):  # squares around the pixel, each larger than the last
        for step in range(-reach, reach + 1):
            for down, right in ((-reach, step), (reach, step), (step, -reach), (step, reach)):
                i, j = row + down, column + right
                if 0 <= i < height and 0 <= j < width and sources[i, j]:
                    return down, right
    return 0, 0
