"""Find scratches and dust on scanned photos by morphology: no network, and more that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from regionnorm.imaging import luma
from regionnorm.masks.regions import dilate_disk, dilate_square, label_regions

__all__ = ["find_by_morphology", "opened"]

Hole = npt.NDArray[np.bool_]

_LONG_SIDE = 1600  # larger photos are looked at in a copy of this size
_DIRECTIONS = 24
_CONTRAST = 4.0  # to the mean of the marks around: texture is full of them
_LEAST_CONTRAST = 24.0  # gray levels


def find_by_morphology(colours: npt.NDArray[Any], sensitivity: float) -> Hole:
    """Find thin bright or dark lines, and specks of dust.

    The black and the white top-hat transform leave what is narrower than a hundredth of the photo
    and differs in brightness from both of its sides. Of that, lines are kept where they go on in
    one direction, and specks where they are small, strong and alone; fine texture, where all of
    it is full of such marks, is not. Real thin lines (wires, twigs, strokes of writing) look the
    same: look at the result before it is filled.

    Args:
        colours: RGB ``[H, W, 3]``, uint8 or uint16.
        sensitivity: Above 0; above 1 finds fainter marks, and more that are none.

    Returns:
        bool ``[H, W]``; marks with a pixel or two around them.
    """
    height, width = colours.shape[:2]
    gray = luma(colours).astype(np.float32) * (255 / np.iinfo(colours.dtype).max)
    scale = min(1.0, _LONG_SIDE / max(height, width))
    image = Image.fromarray(gray)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BOX)
    found = _find(np.array(image), sensitivity)
    if scale < 1:
        enlarged = Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST)
        found = np.asarray(enlarged)
    return found


def _find(gray: npt.NDArray[np.float32], sensitivity: float) -> Hole:
    side = max(gray.shape)
    reach = max(3, side // 160)  # half of the widest mark
    length = max(15, side // 16)
    plane = torch.from_numpy(gray)[None, None]
    found = np.zeros(gray.shape, bool)
    for sign in (1, -1):
        hat = sign * plane - opened(sign * plane, reach)
        around = _box_mean(hat, 5 * reach)
        threshold = torch.clamp(_CONTRAST * around, min=_LEAST_CONTRAST) / sensitivity
        # What lies on an edge of the scene differs from one side to the other; a mark does not.
        ground = sign * plane - hat
        step = _highest(ground, 2) + _highest(-ground, 2)
        strong = ((hat > threshold) & (hat > step))[0, 0].numpy()
        weak = (hat > threshold / 2)[0, 0].numpy()
        lines = _lines(strong, length)
        found |= weak & dilate_square(lines, 2)
        rest = strong & ~dilate_square(lines, 3)
        dust = _dust(rest, (hat / threshold)[0, 0].numpy(), reach)
        found |= weak & dilate_square(dust, 1)
    return dilate_disk(found, 1)


def opened(plane: Tensor, reach: int) -> Tensor:
    """Grayscale opening by a square of side ``2 * reach + 1``."""
    return _highest(-_highest(-plane, reach), reach)


def _highest(plane: Tensor, reach: int) -> Tensor:
    side = 2 * reach + 1
    rows = F.max_pool2d(plane, (1, side), stride=1, padding=(0, reach))
    return F.max_pool2d(rows, (side, 1), stride=1, padding=(reach, 0))


def _box_mean(plane: Tensor, reach: int) -> Tensor:
    side = 2 * reach + 1
    rows = F.avg_pool2d(plane, (1, side), 1, (0, reach), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (reach, 0), count_include_pad=False)


def _lines(marks: Hole, length: int) -> Hole:
    """Keep marks that go on for ``length`` pixels in one direction, and in that one only."""
    rows, columns = np.nonzero(marks)
    near = np.pad(dilate_square(marks, 1), length)
    offsets = np.arange(length) - length // 2
    shares = np.empty((_DIRECTIONS, len(rows)), np.float32)
    for direction in range(_DIRECTIONS):
        angle = np.pi * direction / _DIRECTIONS
        down = np.rint(offsets * np.sin(angle)).astype(np.intp)
        across = np.rint(offsets * np.cos(angle)).astype(np.intp)
        total = np.zeros(len(rows), np.int32)
        for dy, dx in zip(down, across, strict=True):
            total += near[rows + length + dy, columns + length + dx]
        shares[direction] = total / length
    best = shares.argmax(0)
    along = shares[best, np.arange(len(rows))]
    # Across a line there is only its width; in texture there are marks in every direction.
    across_it = shares[(best + _DIRECTIONS // 2) % _DIRECTIONS, np.arange(len(rows))]
    lines = np.zeros_like(marks)
    keep = (along >= 0.95) & (across_it <= 0.4) & (np.median(shares, axis=0) <= 0.6)
    lines[rows[keep], columns[keep]] = True
    return lines


def _dust(marks: Hole, strength: npt.NDArray[np.float32], reach: int) -> Hole:
    """Keep regions that are small, strong and alone."""
    labels, count = label_regions(marks)
    if count == 0:
        return marks
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count + 1)
    peak = np.zeros(count + 1, np.float32)
    np.maximum.at(peak, flat, strength.ravel())
    density = _box_mean(torch.from_numpy(marks.astype(np.float32))[None, None], 6 * reach)
    crowd = np.zeros(count + 1, np.float32)
    np.maximum.at(crowd, flat, density[0, 0].numpy().ravel())
    window = (12 * reach + 1) ** 2
    keep = (area >= 4) & (area <= (2 * reach + 1) ** 2) & (peak > 1.5)
    keep &= crowd * window < 3 * area
    keep[0] = False
    return keep[labels]
