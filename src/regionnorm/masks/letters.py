"""Letters' own pixels within a line of writing: strokes, outlines and shadows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from regionnorm.masks.lines import Line
from regionnorm.masks.morphology import opened
from regionnorm.masks.regions import dilate_disk
from regionnorm.nn.prefill import push_pull

__all__ = ["find_letters"]

Hole = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

_LETTERS = 72  # pixels: higher ones are looked at in a copy in which they are as high
_STROKE = 0.17  # of a line's height: half of the widest stroke with its outline
_AROUND = 0.2  # of a line's height, beyond it, where letters' ends are followed
_ALONG = (
    1.2  # of a line's height, before and behind it, where letters of its colours are looked for
)
_SHARE = 0.25  # of a line's strongest contrast that a pixel of a letter has at least
_LEAST_CONTRAST = 9.0  # levels
_FEW, _MANY = 0.04, 0.8  # of a line's area: with less or more marked, letters cannot be told
_BINS = 16  # levels of each channel that are told apart
_OWN, _SURELY = 0.3, 0.65  # how far a colour is the letters' rather than the ground's
_RIM, _MOST_RIM = 0.06, 3  # of a line's height that letters are grown by, and pixels at most
_OUTSTANDING = 0.6  # of the strongest contrast: then the colour does not matter


def find_letters(pixels: Pixels, line: Line) -> Hole:
    """Tell letters from what is behind them.

    What is narrower than a stroke and stands out from both of its sides, brighter or darker, and
    from the ground as it goes on from around the line, is a letter's where its colour is rare
    beside the line. A line in which that is hardly anything or nearly everything is taken whole.

    Args:
        pixels: RGB uint8 ``[H, W, 3]``, the window of the line.
        line: Where it is.

    Returns:
        bool ``[H, W]``; letters with one to three pixels around them.
    """
    scale = min(1.0, _LETTERS / line.height)
    height, width = line.inside.shape
    inside = line.inside
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        inside = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    found = _found(pixels, inside.astype(np.bool_), line.height * scale)
    if scale < 1:
        enlarged = Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST)
        found = dilate_disk(np.asarray(enlarged).astype(np.bool_), 1)
    return found


def _found(pixels: Pixels, inside: Hole, height: float) -> Hole:
    near = dilate_disk(inside, max(1, round(_AROUND * height)))
    contrast = _contrast(pixels, near, max(2, round(_STROKE * height)))
    strong = float(np.percentile(contrast[inside], 92)) if inside.any() else 0.0
    if strong < _LEAST_CONTRAST:
        return inside
    marked = contrast > max(_LEAST_CONTRAST, _SHARE * strong)
    own = _ownness(pixels, inside & (contrast > 0.6 * strong), near)
    letters = marked & near & ((own > _OWN) | (contrast > _OUTSTANDING * strong))
    further = _shifted(near, round(_ALONG * height)) & ~near
    letters |= marked & further & (own > _SURELY)
    if not _FEW <= letters[inside].mean() <= _MANY:
        return inside
    return dilate_disk(letters, min(_MOST_RIM, max(1, round(height * _RIM))))


def _contrast(pixels: Pixels, near: Hole, reach: int) -> Plane:
    """By how many levels a pixel stands out, in the channel in which it does most."""
    plane = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    ground = None if near.all() else push_pull(plane, torch.from_numpy(near)[None, None].float())
    strength = torch.zeros(pixels.shape[:2])
    for sign in (1.0, -1.0):
        hat = sign * plane - opened(sign * plane, reach)
        if ground is not None:
            hat = torch.minimum(hat, (sign * (plane - ground)).clamp(min=0))
        strength = torch.maximum(strength, hat[0].amax(0))
    found: Plane = strength.numpy()
    return found


def _ownness(pixels: Pixels, strong: Hole, near: Hole) -> Plane:
    """How far each pixel's colour is one of the strong ones' rather than of what is around."""
    bins = (pixels // (256 // _BINS)).astype(np.intp) @ [_BINS * _BINS, _BINS, 1]
    shares = []
    for where in (strong, ~near):
        counts = np.bincount(bins[where], minlength=_BINS**3).astype(np.float32)
        cube = torch.from_numpy(counts / max(1.0, counts.sum())).view(1, 1, _BINS, _BINS, _BINS)
        shares.append(F.avg_pool3d(cube, 3, 1, 1).flatten().numpy())
    letters, ground = shares
    own: Plane = (letters / (letters + ground + 1e-9))[bins]
    return own


def _shifted(near: Hole, length: int) -> Hole:
    """A region and what lies up to so far before and behind it, along its direction."""
    rows, columns = np.nonzero(near)
    _, axes = np.linalg.eigh(np.cov(np.stack([rows, columns]).astype(np.float64)))
    result: Hole = near.copy()
    for step in range(-length, length + 1, 2):
        down, across = (round(float(part) * step) for part in axes[:, 1])
        y, x = rows + down, columns + across
        here = (y >= 0) & (y < near.shape[0]) & (x >= 0) & (x < near.shape[1])
        result[y[here], x[here]] = True
    return result
