"""Find scratches, dust, hairs and folds on scanned photos with a small network."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from regionnorm.checkpoints.finder import Finder, load_finder, packaged_finder
from regionnorm.imaging import eight_bits
from regionnorm.masks.morphology import find_by_morphology
from regionnorm.masks.regions import dilate_disk, label_regions, overlapping_spans
from regionnorm.models.scratch_net import logits_of_views
from regionnorm.stopping import stop_if_asked

__all__ = ["find_scratches", "mark_probability"]

Hole = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]

_MOST_PIXELS = 4_000_000  # larger photos are looked at in a copy of this size
_TILE = 768
_OVERLAP = 96
_LEAST_AREA = 4  # pixels of a region; smaller ones are grain
_SURE = 0.85  # how likely the likeliest pixel of a region has to be a mark: a mark's ends may fade


def find_scratches(
    colours: npt.NDArray[Any],
    *,
    sensitivity: float = 1.0,
    method: Literal["learned", "classical"] = "learned",
) -> Hole:
    """Find what time left on a photo: scratches, film lines, dust, hairs, folds, rims of stains.

    A network of 0.77 million parameters, which has learned on drawn marks, says for each pixel
    how likely it is damaged. On photos as soft as scans it misses a tenth of them, and a tenth
    of what it takes are edges of the picture; on small sharp photos it misses a third, and a
    quarter is none: look at the result before it is filled. Photos of more than four
    megapixels are looked at in a copy of that size, in tiles: time and memory for any size are
    bounded.

    Args:
        colours: RGB ``[H, W, 3]``, uint8 or uint16.
        sensitivity: Above 1 finds fainter marks, and more that are none.
        method: ``"classical"`` finds thin lines and specks by morphology, which takes wires and
            twigs as well. It is used, too, where the package came without the network's weights.

    Returns:
        bool ``[H, W]``; marks with a pixel or so around them, so that their soft edges are within.

    Raises:
        ValueError: ``sensitivity`` is not above 0, or the method is not known.
    """
    if not sensitivity > 0:
        raise ValueError(f"sensitivity is {sensitivity}; give a number above 0, such as 1")
    if method not in ("learned", "classical"):
        raise ValueError(f"method is {method!r}; choose learned or classical")
    if method == "classical" or not packaged_finder().is_file():
        return find_by_morphology(colours, sensitivity)
    height, width = colours.shape[:2]
    finder = _packaged()
    least, sure = (_at(sensitivity, likely) for likely in (finder.threshold, _SURE))
    found = _marks(mark_probability(finder, _viewed(colours)), least, sure)
    if found.shape != (height, width):
        enlarged = Image.fromarray(found.astype(np.uint8) * 255)
        # Straight between the centres: the edges of enlarged marks have no steps.
        found = np.asarray(enlarged.resize((width, height), Image.Resampling.BILINEAR)) > 127
    return found


@cache
def _packaged() -> Finder:
    return load_finder()


def _viewed(colours: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The photo, or a smaller copy, in eight bits."""
    pixels = eight_bits(colours)
    height, width = pixels.shape[:2]
    scale = math.sqrt(_MOST_PIXELS / (height * width))
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
    return np.asarray(small)


def mark_probability(finder: Finder, pixels: npt.NDArray[np.uint8]) -> Plane:
    """How likely each pixel is damaged, by the network, tile by tile.

    Args:
        finder: The network.
        pixels: RGB uint8 ``[H, W, 3]``.

    Returns:
        float32 ``[H, W]`` in [0, 1].
    """
    height, width = pixels.shape[:2]
    total = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for top, bottom in overlapping_spans(height, _TILE, _OVERLAP):
        for left, right in overlapping_spans(width, _TILE, _OVERLAP):
            stop_if_asked()
            part = _of_tile(finder, pixels[top:bottom, left:right])
            # Tiles fade into each other: each has seen other surroundings.
            weight = np.minimum.outer(_ramp(bottom - top), _ramp(right - left))
            total[top:bottom, left:right] += weight * part
            weights[top:bottom, left:right] += weight
    return total / weights


def _ramp(length: int) -> Plane:
    place = np.arange(length, dtype=np.float32) + 1
    return np.minimum(np.minimum(place, place[::-1]) / _OVERLAP, 1)


def _of_tile(finder: Finder, pixels: npt.NDArray[np.uint8]) -> Plane:
    height, width = pixels.shape[:2]
    # A copy: a photo's pixels may be read-only, of which PyTorch warns.
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    stride = finder.network.stride
    image = F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")
    with torch.inference_mode():
        logits = logits_of_views(finder.network, image)
        return torch.sigmoid(logits)[0, 0, :height, :width].numpy()


def _at(sensitivity: float, likely: float) -> float:
    """A probability whose odds are divided by the sensitivity."""
    odds = likely / (1 - likely) / sensitivity
    return odds / (1 + odds)


def _marks(likely: Plane, least: float, sure: float) -> Hole:
    """Regions that are large and sure enough, grown by a pixel: a mark's soft edge belongs to it.

    What is likely all along but sure nowhere is an edge of the picture more often than a mark
    (two thresholds: Canny, PAMI 1986).
    """
    labels, count = label_regions(likely > least)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= _LEAST_AREA
    certain = np.zeros_like(keep)
    certain[labels[likely > sure]] = True
    keep &= certain
    keep[0] = False
    return dilate_disk(keep[labels], 1)
