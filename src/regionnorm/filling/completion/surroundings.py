"""How strange a pixel would look in a hole: whether what surrounds the hole knows its like.

An eye fits into a cheek as far as its rim goes, and the second bird of a photo into any sky. What
a person expects in a hole is what stands around it; so what occurs nowhere there costs more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit

__all__ = ["strangeness"]

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def strangeness(looks: Floats, known: Place, ring: Place, share: float, most: float) -> Floats:
    """Compare each pixel with those of a ring.

    A share of them has to be like it, and not one alone: the tip of a wing at the hole's border
    is no reason for a bird.

    Args:
        looks: float32 ``[H, W, C]``; what is not known is not read.
        known: bool ``[H, W]``.
        ring: bool ``[H, W]``, known pixels around a hole.
        share: Which part of the ring, in (0, 1].
        most: The largest value.

    Returns:
        float32 ``[H, W]``: the difference (L2 over channels) to the ring's pixel that is more
        different than this share of them, ``most`` at most; 0 where nothing is known, and
        everywhere without a ring.
    """
    there = looks[ring]
    if len(there) == 0:
        return np.zeros(known.shape, np.float32)
    count = max(1, round(share * len(there)))
    return np.asarray(_differences(looks, known, there, count, np.float32(most)))


@jit
def _differences(looks: Any, known: Any, there: Any, count: Any, most: Any) -> Any:
    height, width, channels = looks.shape
    result = np.zeros((height, width), np.float32)
    least = np.empty(count, np.float32)  # squares of the smallest differences, in order
    for row in range(height):
        for column in range(width):
            if not known[row, column]:
                continue
            least[:] = most * most
            for pixel in range(len(there)):
                square = np.float32(0)
                for channel in range(channels):
                    difference = looks[row, column, channel] - there[pixel, channel]
                    square += difference * difference
                at = count - 1
                if square >= least[at]:
                    continue
                while at > 0 and least[at - 1] > square:
                    least[at] = least[at - 1]
                    at -= 1
                least[at] = square
            result[row, column] = np.sqrt(least[count - 1])
    return result
