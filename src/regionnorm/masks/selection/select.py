"""Take the object that a rough stroke, a box or a click means."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm._extras import require
from regionnorm.imaging import eight_bits, mask_to_array
from regionnorm.masks.levels import read_levels
from regionnorm.masks.regions import Window, bounding_window
from regionnorm.masks.selection.contours import Numbers, Pieces, Plane, cut, cut_up
from regionnorm.masks.selection.evidence import evidence, stroke_distance
from regionnorm.masks.selection.segmenter import find_segmenter, saliency
from regionnorm.photo import Photo
from regionnorm.stopping import stop_if_asked

__all__ = ["MOST_GROWTH", "select_object"]

Hole = npt.NDArray[np.bool_]
Colours = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

MOST_GROWTH = 1000
"""Pixels by which a selection may grow or shrink."""

_SIDE = 240  # pixels of the copy in which the object is looked for
_MARGIN = 0.5  # around the stroke, in its longer side
_EDGE_SIDE = 1400  # pixels of the copy in which its edge is found
_CLICK = 0.15  # radius of the stroke that a click stands for, in the photo's longer side
_BOX_CORE = 0.75  # of a box's width and height: the oval that is taken for a stroke
_OUTSIDE = 4.0  # radii of the stroke: how far off what lies outside a box is taken to be
_BOX_SLACK = 0.1  # an object may reach so far out of its box
_HOLDS_TOGETHER = 1.0  # what parting two pieces costs, against the evidence of one
_LEAST_PART = 0.1  # parts that hold less of the stroke than this of the main one are left out


def select_object(
    photo: Image.Image | npt.NDArray[np.generic],
    scribble: Image.Image | npt.NDArray[np.generic] | None = None,
    *,
    box: Box | None = None,
    points: Sequence[tuple[float, float]] = (),
    grow: int = 0,
    segmenter: str | os.PathLike[str] | None = "auto",
) -> Hole:
    """Select the object that a rough stroke goes over, that a box holds, or that was clicked.

    A stroke works best: a brush of a bit more than half the object's width, drawn once along it.
    The same input gives the same mask.

    Args:
        photo: An image, turned upright as its EXIF says, or RGB uint8 or uint16 ``[H, W, 3]``.
        scribble: The stroke, of the upright photo's size: an image, read as mask files are, or an
            array ``[H, W]``, bool, integers 0/1 or 0 to 255, or floats in [0, 1].
        box: The object's left, top, right and bottom, in pixels.
        points: Clicks on it, ``(x, y)`` in pixels. Stroke and points may come together.
        grow: Grow the selection by so many pixels; below 0 shrinks it.
        segmenter: An ONNX file of U²-Net, which finds far more objects right; ``auto`` takes the
            one that is installed, if any (:func:`find_segmenter`), None or "" does without.

    Returns:
        bool ``[H, W]``, True where the object is.

    Raises:
        ValueError: Nothing is selected with, something lies outside the photo or is no number, a
            point lies outside the box, or ``grow`` leaves nothing or is above 1000 pixels.
        FileNotFoundError: There is no such segmenter.
        ImportError: OpenCV or scikit-image is missing, or onnxruntime for the segmenter.
    """
    for module in ("cv2", "skimage"):
        require(module, extra="eval")
    (grow,) = _numbers("grow", [grow], 1, "whole pixels", given=grow)
    if abs(grow) > MOST_GROWTH:
        raise ValueError(f"grow is {grow} pixels; give -{MOST_GROWTH} to {MOST_GROWTH}")
    colours = _colours(photo)
    if segmenter == "auto":
        segmenter = find_segmenter()
    network = None if segmenter is None or segmenter == "" else Path(segmenter)
    if network is not None and not network.is_file():
        raise FileNotFoundError(f"there is no file {network} to find objects with; check the path")
    if box is not None:
        left, top, right, bottom = _numbers("the box", box, 4, "left,top,right,bottom in pixels")
        box = left, top, right, bottom
    stroke = _stroke(colours.shape[:2], scribble, box, points)
    within = None if box is None else _inside(colours.shape[:2], box)
    found = _find(colours, stroke, within, network)
    grown = _grow(found, grow)
    if not grown.any():
        raise ValueError(f"nothing is left of the object when it shrinks by {-grow} pixels")
    return grown


# --- what the person gave ------------------------------------------------------------------------


def _stroke(
    shape: tuple[int, ...],
    scribble: Image.Image | npt.NDArray[np.generic] | None,
    box: Box | None,
    points: Sequence[tuple[float, float]],
) -> Hole:
    """What is painted, and what stands for a box and for clicks, bool ``[H, W]``."""
    cv2 = require("cv2", extra="eval")
    height, width = shape[:2]
    stroke = np.zeros((height, width), np.uint8)
    if scribble is not None:
        # As masks from files are read: layers, colours, 16 bits, and labels 0 and 1.
        painted: npt.NDArray[Any] = (
            read_levels(scribble)[0] if isinstance(scribble, Image.Image) else np.asarray(scribble)
        )
        if painted.shape != (height, width):
            raise ValueError(
                f"the scribble is {painted.shape[1]}x{painted.shape[0]} but the photo is "
                f"{width}x{height}; give one of the photo's size"
                if painted.ndim == 2
                else f"the scribble has shape {list(painted.shape)}; give [H, W]"
            )
        stroke |= mask_to_array(painted)
    if box is not None:
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"the box {left},{top},{right},{bottom} is empty or not inside the photo, "
                f"{width}x{height}; give left,top,right,bottom"
            )
        axes = (right - left) * _BOX_CORE / 2, (bottom - top) * _BOX_CORE / 2
        centre = (left + right) // 2, (top + bottom) // 2
        cv2.ellipse(stroke, centre, tuple(max(1, int(axis)) for axis in axes), 0, 0, 360, 1, -1)
    radius = max(2, round(_CLICK * max(height, width))) if not stroke.any() else 2
    for x, y in _clicks(points):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the point {x:g},{y:g} is not on the photo, {width}x{height}")
        if box is not None and not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
            corners = ",".join(str(side) for side in box)
            raise ValueError(f"the point {x:g},{y:g} is outside the box {corners}; give one inside")
        cv2.circle(stroke, (int(x), int(y)), radius, 1, -1)
    if not stroke.any():
        raise ValueError("nothing is painted; give a scribble that is white somewhere, or a box")
    painted_over: Hole = stroke > 0
    return painted_over


def _colours(photo: Image.Image | npt.NDArray[np.generic]) -> Colours:
    if isinstance(photo, Image.Image):
        photo = Photo.from_image(photo).colours()
    colours = np.asarray(photo)
    if colours.dtype == np.uint16:
        colours = eight_bits(colours)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype != np.uint8:
        raise ValueError(
            f"the photo is {colours.dtype} {list(colours.shape)}; give an image, or RGB uint8 "
            "[H, W, 3]"
        )
    return colours


def _clicks(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    try:
        pairs = list(points)
    except TypeError:
        raise ValueError(f"points is {points!r}; give pairs x,y") from None
    clicks = [_finite(pair) for pair in pairs]
    for pair, click in zip(pairs, clicks, strict=True):
        if len(click) != 2:
            raise ValueError(f"a point is {_shown(pair)}; give a pair x,y in pixels")
    return [(click[0], click[1]) for click in clicks]


def _numbers(
    what: str, values: object, count: int, wanted: str, *, given: object = None
) -> list[int]:
    """So many whole numbers."""
    numbers = _finite(values)
    if len(numbers) != count or any(number != round(number) for number in numbers):
        raise ValueError(f"{what} is {_shown(values if given is None else given)}; give {wanted}")
    return [round(number) for number in numbers]


def _finite(values: Any) -> list[float]:
    """Finite numbers, or none if any is something else."""
    try:
        numbers = [] if isinstance(values, str | bytes) else [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:80]


def _inside(shape: tuple[int, ...], box: Box) -> Hole:
    left, top, right, bottom = box
    across, down = (round(_BOX_SLACK * side) for side in (right - left, bottom - top))
    inside = np.zeros(shape[:2], np.bool_)
    inside[max(0, top - down) : bottom + down, max(0, left - across) : right + across] = True
    return inside


def _grow(found: Hole, pixels: int) -> Hole:
    cv2 = require("cv2", extra="eval")
    if pixels == 0 or not found.any():
        return found
    window = bounding_window(found).grow(max(pixels, 0) + 2, *found.shape)
    part = found[window.slices]
    # What touches the photo's border goes on beyond it.
    ground = part if pixels < 0 else ~part
    distance = cv2.distanceTransform(ground.astype(np.uint8), cv2.DIST_L2, 5)
    grown = np.zeros_like(found)
    grown[window.slices] = distance > -pixels if pixels < 0 else distance <= pixels
    return grown


# --- looking for the object ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """The part of the photo around a stroke, small."""

    window: Window
    lab: Plane
    stroke: Hole
    seen: Plane | None


def _find(colours: Colours, stroke: Hole, within: Hole | None, network: Path | None) -> Hole:
    cv2 = require("cv2", extra="eval")
    scene = _look(colours, stroke, network)
    stop_if_asked()
    pieces, distance = cut_up(scene.lab), stroke_distance(scene.stroke)
    if within is not None:
        part = within[scene.window.slices].astype(np.uint8)
        part = cv2.resize(part, distance.shape[::-1], interpolation=cv2.INTER_NEAREST)
        distance = np.where(part > 0, distance, np.float32(_OUTSIDE))
    odds = evidence(pieces, scene.lab, distance, scene.seen)
    stop_if_asked()
    found = _sharpen(colours, scene.window, _decide(pieces, odds, scene.stroke))
    whole = np.zeros(stroke.shape, np.bool_)
    whole[scene.window.slices] = found
    if within is not None:
        whole &= within
    # Where nothing is like an object, the stroke itself is the best that there is.
    return whole if whole.any() else stroke


def _look(colours: Colours, stroke: Hole, network: Path | None) -> _Scene:
    """Cut out and scale what is around a stroke."""
    cv2 = require("cv2", extra="eval")
    window = _around(stroke, _MARGIN)
    part = np.ascontiguousarray(colours[window.slices])
    scale = min(1.5, _SIDE / max(part.shape[:2]))
    size = max(8, round(window.width * scale)), max(8, round(window.height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(part, size, interpolation=way)
    levels = stroke[window.slices].astype(np.uint8) * 255
    covered = cv2.resize(levels, size, interpolation=cv2.INTER_AREA)
    # A stroke that is thinner than a pixel of the small copy must not get lost.
    painted = covered > min(127, int(covered.max()) // 2)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    seen = None if network is None else saliency(small, network)
    return _Scene(window, lab, painted, seen)


def _around(stroke: Hole, margin: float) -> Window:
    bounds = bounding_window(stroke)
    reach = round(margin * max(bounds.height, bounds.width)) + 4
    height, width = stroke.shape
    return Window(
        max(0, bounds.top - reach),
        max(0, bounds.left - reach),
        min(height, bounds.bottom + reach),
        min(width, bounds.right + reach),
    )


def _decide(pieces: Pieces, odds: Numbers, stroke: Hole) -> Hole:
    """The pieces of the object, without what the stroke does not touch, and without gaps."""
    cv2 = require("cv2", extra="eval")
    usual = stroke.size / pieces.count
    weights = _HOLDS_TOGETHER * pieces.border / 5 * np.exp(-pieces.strength)
    chosen = cut(pieces, np.clip(odds, -6, 6) * pieces.area / usual, weights)
    mask = chosen[pieces.labels].astype(np.uint8)
    count, parts = cv2.connectedComponents(mask, connectivity=4)
    touched = np.bincount(parts[stroke], minlength=count)
    touched[0] = 0
    keep = touched > _LEAST_PART * touched.max(initial=1)
    return _without_gaps(keep[parts])


def _without_gaps(mask: Hole) -> Hole:
    """Fill what a mask encloses."""
    cv2 = require("cv2", extra="eval")
    ground = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    _, parts = cv2.connectedComponents(ground, connectivity=4)
    filled: Hole = (parts != parts[0, 0])[1:-1, 1:-1]
    return filled


def _sharpen(colours: Colours, window: Window, small: Hole) -> Hole:
    """Bring a small mask to the window's size, its edge to where the photo's is.

    A guided filter: near the edge, the mask is taken for a linear function of the lightness.
    """
    cv2 = require("cv2", extra="eval")
    part = colours[window.slices]
    scale = min(1.0, _EDGE_SIDE / max(part.shape[:2]))
    size = max(1, round(window.width * scale)), max(1, round(window.height * scale))
    guide = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    guide = cv2.resize(guide, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask = cv2.resize(small.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    reach = 2 * max(1, round(1.5 * size[0] / small.shape[1])) + 1

    def mean(plane: Plane) -> Plane:
        blurred: Plane = cv2.blur(plane, (reach, reach))
        return blurred

    guide_mean, mask_mean = mean(guide), mean(mask)
    variance = mean(guide * guide) - guide_mean**2
    slope = (mean(guide * mask) - guide_mean * mask_mean) / (variance + 1e-3)
    offset = mask_mean - slope * guide_mean
    soft = mean(slope) * guide + mean(offset)
    sharp: Hole = cv2.resize(soft, (window.width, window.height)) > 0.5
    return sharp
