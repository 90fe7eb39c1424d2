"""Fill wide holes with pieces of the same photo, joined with a network's fill.

On a small copy of the photo a graph cut decides what goes where (:mod:`.structure`); the map of
shifts is refined level by level up to the photo (:mod:`.refine`); a correction takes away steps
of brightness between pieces (:mod:`.blend`). Narrow holes stay the network's, which is better
there, but for fine detail (:mod:`.detail`); so do strokes in calm places, and in others what goes
where in them is decided on the photo itself. NumPy and numba are all that is needed; one thread
does the work, so that the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import is_compiled
from regionnorm.filling.completion.atlas import Atlas, View, make_atlas
from regionnorm.filling.completion.blend import correction
from regionnorm.filling.completion.detail import fineness, lookalike, with_detail
from regionnorm.filling.completion.pyramid import (
    blur,
    busyness,
    coarser_hole,
    continued,
    depth_in,
    enlarged,
    halve,
)
from regionnorm.filling.completion.refine import doubled, faded, refine
from regionnorm.filling.completion.seams import move_seams
from regionnorm.filling.completion.structure import Scene, choose_offsets
from regionnorm.filling.completion.vanishing import vanishing_lines
from regionnorm.filling.completion.where import (
    hole_groups,
    stroke_holes,
    stroke_sections,
    wide_holes,
)
from regionnorm.masks.regions import Window, bounding_window, dilate_square
from regionnorm.stopping import stop_if_asked

__all__ = ["METHODS", "Method", "complete", "warm_up"]

_log = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]
Method = Literal["auto", "exemplar"]
METHODS: tuple[str, ...] = get_args(Method)

_WORK = 14_000  # pixels, about, of the copy on which the structure is decided
_VIEWS = (View(mirrored=True, scale=1), View(mirrored=False, scale=0.8))
_MOST_VIEWED = 2_000_000  # pixels of a photo that other views are made of: they take memory
_LEAST_KNOWN = 0.25  # share of that copy that should be known
_MOST_PLACES = 60_000  # pixels of a hole in it, for which fewer may be
_MOST_HALVINGS = 3  # between the level on which texture is measured and the coarsest one
_LOOKED_AT = 200_000  # pixels, at most, of the level on which planes are looked for
_STAIRS = 3  # halvings after which the small copy's pixels show as stairs along seams
_PAINTED = 0.3  # cost of keeping what is painted where seams are moved, on the coarsest level
_KEEP = 0.15  # mismatch of colours beyond which a step between pieces stays
_TONE_KEEP = 0.25  # difference in brightness from the network's at which it is not followed
_TONE_ALIKE = 0.1  # difference from the tone around beyond which a pixel hardly counts in it
_TONE_BLURS = 4  # on half the copy on which the structure is decided
_TONE_FADE = 2  # pixels of that half copy from the border on which a tone fades
_DETAIL = 0.5  # share of the fine detail of what looks alike that narrow holes take
_CALM = 0.04  # fineness of what is around strokes up to which they are the network's
_AROUND = 16  # pixels around a stroke where that is measured
_TILE, _NEAR, _BEYOND = 512, 96, 16  # pixels of a tile, around it, and of those filled as well
_SAMPLE = 200_000  # pixels that say what range the photo has
_LEAST_RANGE = 0.05


def complete(
    image: Pixels,
    mask: Place,
    *,
    network: Pixels | None = None,
    hidden: Place | None = None,
    method: str = "auto",
    seed: int = 0,
) -> Pixels:
    """Fill the hole of a photo.

    Args:
        image: ``[H, W, 3]``: uint8, uint16, or floating point in [0, 1]. What lies under the hole
            is not read.
        mask: bool ``[H, W]``, True = hole.
        network: A network's fill, of the same shape and type; None fills from the photo alone.
        hidden: bool ``[H, W]``, known pixels whose colour means nothing, transparent ones: they
            are not copied from.
        method: ``"auto"`` joins both, ``"exemplar"`` leaves the network's fill aside.
        seed: 0 for the fill that fits best, above 0 for others.

    Returns:
        A new array of ``image``'s shape and type; known pixels are the same. Grey photos stay
        grey, and one colour stays one colour.

    Raises:
        ValueError: A shape or a type does not fit, the method is not known, ``seed`` is negative,
            or all is hole and there is no network's fill.
    """
    _check(image, mask, network, method, seed)
    painted = network if method == "auto" else None
    result: Pixels = image.copy()
    if not mask.any():
        return result
    if mask.all():
        if painted is None:
            raise ValueError("the mask covers the whole image; leave something to copy from")
        result[...] = painted
        return result
    if hidden is None or (hidden | mask).all():
        hidden = np.zeros_like(mask)
    known = image[~(mask | hidden)]
    if (known == known[0]).all():
        result[mask] = known[0]
        return result
    grey = bool((known == known[:, :1]).all())
    low, high = _range(known)
    del known
    canvas = _Canvas(result, hidden & ~mask, low, high)
    wide, strokes = mask, []
    _announce_compiling()
    # What the network filled counts as known beside what is filled with pieces.
    no_source = mask | canvas.veiled
    if painted is not None:
        inside = painted[mask]
        result[mask] = _greyed(inside) if grey else inside
        wide, strokes = wide_holes(mask), _sections(canvas, mask, seed)
        narrow = mask & ~wide
        for section, window in strokes:
            narrow[window.slices] &= ~section
        _detail_narrow(canvas, no_source, narrow)
        no_source &= ~narrow
    for group, near in hole_groups(wide):
        hole, window = _with_known(group, near, no_source)
        unknown = no_source[window.slices]
        pixels = canvas.read(window, unread=None if painted is not None else unknown)
        filled = _completed(pixels, unknown, unknown, painted is not None, seed)
        canvas.write(window, hole, filled[hole[unknown]])
    for section, window in strokes:
        unknown = no_source[window.slices]
        filled = _completed(canvas.read(window), unknown, section, True, seed, stroke=True)
        canvas.write(window, section, filled)
        unknown[section] = False  # the next section of the same stroke meets this one
    return result


def _sections(canvas: _Canvas, mask: Place, seed: int) -> list[tuple[Place, Window]]:
    """The strokes for pieces: those in fine detail, beside which a network's fill looks soft.

    In calm places, skin above all, it is the better one. Pieces are another fill there.
    """
    unknown = mask | canvas.veiled
    found = []
    for section, window in stroke_sections(stroke_holes(mask)):
        known = ~unknown[window.slices]
        around = dilate_square(section, _AROUND)[known]
        if not around.any():
            continue
        if seed > 0 or fineness(canvas.read(window), known)[around].mean() > _CALM:
            found.append((section, window))
    return found


def _detail_narrow(canvas: _Canvas, no_source: Place, narrow: Place) -> None:
    """Add detail to what is painted in narrow holes, tile by tile: they may be anywhere."""
    for tile in _tiles(*narrow.shape):
        if not narrow[tile.slices].any():
            continue
        window = tile.grow(_NEAR, *narrow.shape)
        wanted = _within(window, tile, narrow)
        place = _within(window, tile.grow(_BEYOND, *narrow.shape), narrow)
        pixels = canvas.read(window)
        alike = lookalike(pixels, no_source[window.slices], place)
        filled = with_detail(pixels, alike, place, _DETAIL)
        canvas.write(window, wanted, filled[wanted[place]])


def _tiles(height: int, width: int) -> Iterator[Window]:
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield Window(top, left, min(top + _TILE, height), min(left + _TILE, width))


def _within(window: Window, part: Window, place: Place) -> Place:
    """A place in a part of a window, bool of the window's size."""
    found = np.zeros((window.height, window.width), bool)
    found[part.slices_in(window)] = place[part.slices]
    return found


class _Canvas:
    """A photo that is filled window by window; what is read fills [0, 1] about.

    Args:
        photo: ``[H, W, 3]``, written into.
        veiled: bool ``[H, W]``, pixels whose colour means nothing.
        low: Of the photo's levels in [0, 1], the darkest.
        high: The brightest.
    """

    def __init__(self, photo: Pixels, veiled: Place, low: float, high: float) -> None:
        self.photo, self.veiled = photo, veiled
        levels = np.iinfo(photo.dtype).max if photo.dtype.kind == "u" else 1
        self.scale = np.float32(1 / ((high - low) * levels))
        self.low, self.levels = np.float32(low * levels), levels

    def read(self, window: Window, unread: Place | None = None) -> Floats:
        """The window's pixels, float32 ``[h, w, 3]``; 0 where they are not to be read."""
        pixels = self.photo[window.slices].astype(np.float32)
        pixels *= self.scale
        pixels -= self.low * self.scale
        veiled = self.veiled[window.slices]
        pixels[veiled if unread is None else unread] = 0  # NaN, perhaps
        if veiled.any():
            pixels[veiled] = continued(pixels, ~veiled)[veiled]
        return pixels

    def write(self, window: Window, hole: Place, filled: Floats) -> None:
        """Write the pixels ``[N, 3]`` of a hole of the window."""
        filled = (filled / self.scale + self.low).clip(0, self.levels)
        whole = self.photo.dtype.kind == "u"
        self.photo[window.slices][hole] = np.rint(filled) if whole else filled


def warm_up() -> None:
    """Compile everything that :func:`complete` needs, so that the first photo need not wait."""
    rows, columns = np.indices((96, 96))
    stripes = (columns - 20) / (rows + 40) * 12 % 1 < 0.3  # a plane, and then texture
    photo = np.random.default_rng(0).integers(0, 64, (96, 96, 3), dtype=np.uint8)
    photo[stripes] += 128
    mask = np.zeros((96, 96), bool)
    mask[30:66, 30:66] = True
    complete(photo, mask)
    mask[36:] = False
    complete(photo, mask, network=photo)  # which is too narrow for more than detail
    # Only large photos come to this.
    down, right = np.zeros(mask.shape, np.int32), np.where(mask, np.int32(-36), np.int32(0))
    right[:, 48:] *= -1
    move_seams(photo.astype(np.float32), mask, down, right, painted=None)


@cache
def _announce_compiling() -> None:
    """Say once why the first hole on a machine takes so long."""
    if not is_compiled():
        _log.warning("compiling what fills holes for this processor, once: some 15 seconds")


def _check(image: Pixels, mask: Place, network: Pixels | None, method: str, seed: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image has shape {list(image.shape)}; give [H, W, 3]")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise ValueError(f"image holds {image.dtype}; give uint8, uint16 or floating point")
    if mask.dtype != np.bool_ or mask.shape != image.shape[:2]:
        raise ValueError(
            f"mask holds {mask.dtype} {list(mask.shape)}; this image needs bool "
            f"{list(image.shape[:2])}"
        )
    if network is not None and (network.shape != image.shape or network.dtype != image.dtype):
        raise ValueError(
            f"network holds {network.dtype} {list(network.shape)}; this image needs "
            f"{image.dtype} {list(image.shape)}"
        )
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not known; use {', '.join(METHODS)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more")


def _range(known: Pixels) -> tuple[float, float]:
    """Between which values, in [0, 1], nearly all known pixels lie: dark photos count as others."""
    sample = known[:: -(-len(known) // _SAMPLE)].astype(np.float64)
    if known.dtype.kind == "u":
        sample /= np.iinfo(known.dtype).max
    low, high = np.percentile(sample, [1, 99])
    return float(low), float(max(high, low + _LEAST_RANGE))


def _greyed(pixels: Pixels) -> Pixels:
    """The mean of the channels of ``[N, 3]`` in all three."""
    mean = pixels.astype(np.float64).mean(axis=1, keepdims=True)
    mean = np.rint(mean) if pixels.dtype.kind == "u" else mean
    return np.broadcast_to(mean, pixels.shape).astype(pixels.dtype)


# --- how ------------------------------------------------------------------------------------------


def _completed(
    pixels: Floats, hole: Place, place: Place, painted: bool, seed: int, stroke: bool = False
) -> Floats:
    """Fill a part of a hole in a window, float32 ``[H, W, 3]``, of values that fill [0, 1] about.

    Strokes are as thin as what they cross, so that what goes where is decided on the photo itself.

    Returns:
        float32 ``[N, 3]`` for the pixels of ``place``, row by row.
    """
    if not painted:
        pixels = continued(pixels, ~hole)
    depth = 0 if stroke else _depth(hole)
    views = () if stroke or hole.size > _MOST_VIEWED else _VIEWS
    atlas = make_atlas(pixels, hole, place, views, 2**depth)
    levels = [atlas]
    for _ in range(depth):
        last = levels[-1]
        levels.append(Atlas(*halve(last.pixels, last.missing), coarser_hole(last.place)))
    small = levels[depth]
    width = -(-hole.shape[1] // 2**depth)
    lines = _vanishing_lines(levels, hole.shape[1])
    scene = Scene(
        small.pixels, _busyness(levels), small.missing, small.place, width, painted, lines
    )
    down, right = choose_offsets(scene, seed)
    for level in range(depth, -1, -1):
        stop_if_asked()
        finer, gap, inside = levels.pop()
        if level < depth:
            down, right = doubled(down, inside), doubled(right, inside)
            if depth - level >= _STAIRS:
                price = _PAINTED / 2 ** (depth - level) if painted else None
                move_seams(finer, gap, down, right, painted=price, place=inside)
        sharp = level == 0
        refine(finer, gap, down, right, seed=100 * seed + level, sharp=sharp, place=inside)
    filled = faded(atlas.pixels, atlas.missing, down, right, place=atlas.place)
    stop_if_asked()
    filled += correction(atlas.pixels, atlas.missing, down, right, _KEEP, place=atlas.place)
    del down, right
    if painted:
        stop_if_asked()
        box = bounding_window(place).grow(1, *place.shape).slices
        filled += _toned(pixels[box], filled, place[box], depth + 1)
    return filled


def _with_known(hole: Place, window: Window, unknown: Place) -> tuple[Place, Window]:
    """A group of holes in a window so large that something in it is known."""
    while unknown[window.slices].all():
        larger = window.grow(max(window.height, window.width), *unknown.shape)
        placed = np.zeros((larger.height, larger.width), bool)
        placed[window.slices_in(larger)] = hole
        hole, window = placed, larger
    return hole, window


def _depth(hole: Place) -> int:
    """How often to halve a photo for its structure to be decided on."""
    wanted = max(0, round(math.log(hole.size / _WORK, 4)))
    for depth in range(wanted):
        coarser = coarser_hole(hole)
        known = np.mean(~coarser)
        # A mesh loses what is known between its lines, but a large hole has to become smaller.
        if known == 0 or (known < _LEAST_KNOWN and np.count_nonzero(hole) <= _MOST_PLACES):
            return depth
        hole = coarser
    return wanted


def _toned(pixels: Floats, filled: Floats, hole: Place, halvings: int) -> Floats:
    """What to add to a collage so that it is as bright as what is painted, where they are alike.

    ``filled`` and the result are float32 ``[N, 3]`` for the pixels of the hole, row by row.
    """
    # Brightness alone: colours would be a tinge that gravel, say, never has.
    difference = np.zeros((*hole.shape, 1), np.float32)
    difference[hole] = (pixels[hole] - filled).mean(axis=1, keepdims=True)
    low, _ = _tone(difference, np.ones_like(difference), ~hole, halvings)
    # What is painted has the brightness that most of a pattern has, as of bricks without their
    # joints. So what a pattern has beside it must not count, or the tone would darken the bricks.
    beside = difference - _finer(low, hole.shape)
    weight = np.exp(-np.square(beside / np.float32(_TONE_ALIKE)))
    weight[~hole] = 1
    low, known = _tone(difference, weight, ~hole, halvings)
    low *= np.exp(-np.square(low / np.float32(_TONE_KEEP)))
    # At the border pieces meet what is known: a tone would show there as the hole's outline.
    depth = depth_in(~known, _TONE_FADE + 1)[..., None]
    low *= np.maximum(depth - 1, 0) / np.float32(_TONE_FADE)
    return _finer(low, hole.shape)[hole]


def _tone(difference: Floats, weight: Floats, known: Place, halvings: int) -> tuple[Floats, Place]:
    """The weighted mean of ``[H, W, 1]`` around each pixel of a copy halved so often.

    And where that copy shows anything known.
    """
    both = np.concatenate([difference * weight, weight], axis=2)
    for _ in range(halvings):
        both, known = halve(both, known)
    share = both[..., 1]
    mean = both[..., :1] / np.maximum(share, 1e-4)[..., None]
    return blur(mean, share, _TONE_BLURS), known


def _finer(values: Floats, shape: tuple[int, int]) -> Floats:
    """``[h, w, 1]`` doubled until it has ``shape``, interpolated linearly."""
    shapes = [shape]
    while shapes[-1] != values.shape[:2]:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    for height, width in reversed(shapes[:-1]):
        values = enlarged(enlarged(values).swapaxes(0, 1)).swapaxes(0, 1)[:height, :width]
    return values


def _vanishing_lines(levels: list[Atlas], width: int) -> npt.NDArray[np.float64]:
    """Of the planes of a photo that is ``width`` wide, in pixels of the coarsest level."""
    depth = level = len(levels) - 1
    while level > 0 and len(levels[level - 1].place) * (width >> level - 1) <= _LOOKED_AT:
        level -= 1
    photo = slice(-(-width // 2**level))  # and none of its other views
    lines = vanishing_lines(levels[level].pixels[:, photo], levels[level].missing[:, photo])
    lines[:, :2] *= 2 ** (depth - level)
    return lines


def _busyness(levels: list[Atlas]) -> Floats:
    """Of the photo where it is known on the coarsest level, of what is painted elsewhere."""
    depth = min(len(levels) - 1, _MOST_HALVINGS)
    pixels, hole, _ = levels[-1 - depth]
    known = busyness(pixels, hole, depth)
    painted = busyness(pixels, np.zeros_like(hole), depth)
    return np.where(levels[-1].missing[..., None], painted, known)
