"""Find writing laid over photos: subtitles, date stamps, captions, watermarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.imaging import eight_bits
from regionnorm.masks.letters import find_letters
from regionnorm.masks.lines import find_lines

__all__ = ["find_text"]


def find_text(colours: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Find letters, with their outlines and shadows.

    A text detector finds lines; in each the letters are told from what is behind them, or where
    that cannot be done the line is taken whole. Signs in the scene are writing, too: look at the
    result before it is filled.

    Args:
        colours: RGB ``[H, W, 3]``, uint8 or uint16.

    Returns:
        bool ``[H, W]``; letters with a few pixels around them.

    Raises:
        ImportError: The detector is not installed; the message is the command that installs it.
    """
    pixels = eight_bits(colours)
    found = np.zeros(pixels.shape[:2], np.bool_)
    for line in find_lines(pixels):
        found[line.window.slices] |= find_letters(pixels[line.window.slices], line)
    return found
