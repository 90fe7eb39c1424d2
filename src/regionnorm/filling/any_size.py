"""Any size: fill holes of photos of many megapixels with a network that reaches some 64 pixels.

The network is a function of tensors; photos are 8- or 16-bit arrays. Only what a hole needs is
ever converted, so that time and memory follow the holes and not the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from regionnorm.masks.regions import Window, bounding_window, dilate_square, label_regions
from regionnorm.nn.prefill import push_pull

__all__ = ["STRATEGIES", "Strategy", "check_strategy", "fill_holes"]

Pixels = npt.NDArray[Any]
Hole = npt.NDArray[np.bool_]
Run = Callable[[Tensor, Tensor], Tensor]
Strategy = Literal["auto", "original", "crop", "resize"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

REACH = 64
"""Pixels from the nearest known one up to which a network's fill is relied on at one scale."""

_BAND = 24
"""Pixels along a deep hole's border that are filled anew at each doubling.

Wider bands were tried up to the reach: between two known sides the network draws faint rings into
smooth ground, and PSNR drops by 0.2 to 0.5 dB.
"""

_ONE_PASS = 768 * 768  # pixels that go through the network at once; bounds its memory
_TILE = 512  # side of the tiles of what is larger
_MARGIN = 48  # of a tile: context only, never taken over
_RAMP = 64  # where neighbouring tiles are blended
_CONTEXT = 96  # known pixels around a hole that the network sees, at the coarsest scale
_LEAST = 256  # a window is at least this wide where the photo is: networks train on such crops
_BLOCK = 32  # holes nearer to each other than about two blocks are filled together
_RESIZED = 512  # long side that `resize` scales to at most
_LEAST_SIDE = 16  # networks take no smaller pictures


def check_strategy(name: str) -> None:
    """Raise ``ValueError`` where ``name`` is none of :data:`STRATEGIES`."""
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is not known; use {', '.join(STRATEGIES)}")


def fill_holes(
    run: Run,
    pixels: Pixels,
    hole: Hole,
    *,
    strategy: str = "auto",
    feather: int = 0,
    hidden: Hole | None = None,
) -> Pixels:
    """Fill the hole of a photo of any size.

    ``original`` gives the network the whole photo at once, ``resize`` a copy of at most 512 px,
    whose fill is enlarged. ``crop`` cuts out each group of holes with its surroundings. There, a
    hole that is deeper than :data:`REACH` is filled from coarse to fine: first in a copy small
    enough for the network to reach its middle, then at each doubling a band along its border is
    filled anew, between the known pixels and the enlarged fill. ``auto`` does the same, and fills
    groups together wherever one window around them is no larger than theirs are.

    Args:
        run: The network: image ``[1, 3, h, w]`` in [0, 1] and mask ``[1, 1, h, w]``, 1 = hole, to
            image; it gets zeros in the hole.
        pixels: uint8 or uint16 ``[H, W, 3]``.
        hole: bool ``[H, W]``, neither empty nor full.
        strategy: One of :data:`STRATEGIES`.
        feather: Pixels inside the hole over which a difference in colour at its border fades.
        hidden: bool ``[H, W]``: known pixels whose colour means nothing, transparent ones; the
            network sees a smooth continuation of the others in their place.

    Returns:
        A copy of ``pixels`` with the hole filled; all other pixels are the same.

    Raises:
        ValueError: The strategy is not known.
    """
    check_strategy(strategy)
    result: Pixels = pixels.copy()
    for window, own in _parts(hole, strategy):
        photo, inside = pixels[window.slices], hole[window.slices]
        if hidden is not None:
            photo = _without_hidden(photo, inside, hidden[window.slices])
        if strategy == "original":
            filled = _pass(run, photo, inside, feather, one_pass=True)
        elif strategy == "resize":
            filled = _coarse(run, photo, inside, _halvings(max(hole.shape)), feather)
        else:
            filled = _coarse_to_fine(run, photo, inside, _levels(inside, own), feather)
        # Only what this window is for: another window sees its own hole with more around it.
        result[window.slices][own] = filled[own]
    return result


def _without_hidden(pixels: Pixels, hole: Hole, hidden: Hole) -> Pixels:
    """Continue the visible known pixels smoothly into the hidden ones.

    Args:
        pixels: uint8 or uint16 ``[H, W, 3]``.
        hole: bool ``[H, W]``; not read, and left as it is.
        hidden: bool ``[H, W]``.
    """
    hidden = hidden & ~hole
    if not hidden.any() or (hidden | hole).all():
        return pixels
    most = np.iinfo(pixels.dtype).max
    mask = torch.from_numpy((hidden | hole).astype(np.float32))[None, None]
    pixels = pixels.copy()
    for channel in range(3):  # one at a time: a third of the memory
        plane = torch.from_numpy(pixels[:, :, channel].astype(np.float32))[None, None]
        smooth = push_pull(plane / most, mask)[0, 0].numpy()
        pixels[hidden, channel] = _to_levels(smooth[hidden], pixels.dtype)
    return pixels


# --- windows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Holes that are filled together: a window, its halvings, and the numbers of its blocks."""

    window: Window
    levels: int
    numbers: tuple[int, ...]


def _parts(hole: Hole, strategy: str) -> Iterator[tuple[Window, Hole]]:
    """Windows to fill, and which pixels of each it is for, bool of the window's size."""
    height, width = hole.shape
    if strategy in ("original", "resize"):
        yield Window(0, 0, height, width), hole
        return
    padded = np.pad(hole, ((0, -height % _BLOCK), (0, -width % _BLOCK)))
    rows, columns = padded.shape[0] // _BLOCK, padded.shape[1] // _BLOCK
    blocks = np.asarray(padded.reshape(rows, _BLOCK, columns, _BLOCK).any((1, 3)))
    labels, count = label_regions(dilate_square(blocks, 1))
    groups = [_group(hole, labels, number) for number in range(1, count + 1)]
    for group in _joined(groups) if strategy == "auto" else groups:
        yield group.window, _own(hole, labels, group.numbers, group.window)


def _group(hole: Hole, labels: npt.NDArray[np.int32], number: int) -> _Group:
    """One group of holes, with as much around it as its depth asks for."""
    height, width = hole.shape
    blocks = bounding_window(labels == number)
    area = Window(*(_BLOCK * side for side in _corners(blocks)))
    area = _overlap(area, Window(0, 0, height, width))
    exact = bounding_window(_own(hole, labels, (number,), area))
    box = Window(*(a + b for a, b in zip(_corners(exact), 2 * _corners(area)[:2], strict=True)))
    around = box.grow(1, height, width)
    levels = _levels(hole[around.slices], _own(hole, labels, (number,), around))
    window = box.grow(_CONTEXT << levels, height, width, at_least=_LEAST)
    return _Group(window, levels, (number,))


def _own(
    hole: Hole, labels: npt.NDArray[np.int32], numbers: tuple[int, ...], window: Window
) -> Hole:
    """The pixels of some groups of blocks inside a window."""
    top, left = window.top // _BLOCK, window.left // _BLOCK
    near = labels[top : -(-window.bottom // _BLOCK), left : -(-window.right // _BLOCK)]
    rows = np.arange(window.top, window.bottom) // _BLOCK - top
    columns = np.arange(window.left, window.right) // _BLOCK - left
    return hole[window.slices] & np.isin(near, numbers)[np.ix_(rows, columns)]


def _joined(groups: list[_Group]) -> list[_Group]:
    """Join shallow groups as long as one window is no larger than the two that it stands for."""
    deep = [group for group in groups if group.levels > 0]
    left = [group for group in groups if group.levels == 0]
    done: list[_Group] = []
    while left:
        group = left.pop()
        if not left:
            done.append(group)
            break
        boxes = np.array([_corners(other.window) for other in left])
        corners = np.array(_corners(group.window))
        hulls = np.hstack([np.minimum(boxes, corners)[:, :2], np.maximum(boxes, corners)[:, 2:]])
        areas, both = _areas(hulls), _areas(boxes) + group.window.height * group.window.width
        gain = np.where(areas <= _ONE_PASS, both - areas, -1)
        best = int(gain.argmax())
        if gain[best] < 0:
            done.append(group)
            continue
        other = left.pop(best)
        # Back among the others: it may now meet one that was too far for either.
        left.append(_Group(Window(*hulls[best].tolist()), 0, group.numbers + other.numbers))
    return deep + done


def _areas(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    areas: npt.NDArray[Any] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _corners(window: Window) -> tuple[int, int, int, int]:
    return window.top, window.left, window.bottom, window.right


def _levels(hole: Hole, own: Hole) -> int:
    """Halvings after which every pixel of ``own`` is within reach of a known one."""
    known = ~hole
    if not known.any():
        return _halvings(max(hole.shape))
    grown, radius, levels = dilate_square(known, REACH), REACH, 0
    while not grown[own].all():
        grown = dilate_square(grown, radius)
        radius, levels = 2 * radius, levels + 1
    return levels


def _halvings(side: int) -> int:
    return max(0, (-(-side // _RESIZED) - 1).bit_length())


# --- scales --------------------------------------------------------------------------------------


def _coarse(run: Run, pixels: Pixels, hole: Hole, levels: int, feather: int) -> Pixels:
    """Fill a copy halved ``levels`` times, and enlarge the fill."""
    small, gap = pixels, hole
    for _ in range(levels):
        small, gap = _halve(small, gap)
    filled = _pass(run, small, gap, feather) if gap.any() else small
    return _enlarge(filled, hole.shape, levels) if levels else filled


def _coarse_to_fine(run: Run, pixels: Pixels, hole: Hole, levels: int, feather: int) -> Pixels:
    if levels == 0:
        return _pass(run, pixels, hole, feather)
    small, gap = _halve(pixels, hole)
    filled = _coarse_to_fine(run, small, gap, levels - 1, feather)
    guide = np.where(hole[:, :, None], _enlarge(filled, hole.shape, 1), pixels)
    band = hole & dilate_square(~hole, _BAND)
    if not band.any():  # nothing is known
        return guide
    # The enlarged fill stands as known behind the band, so that both of its sides fit. What is
    # around is as wide as a coarse copy needs it; here a band needs less.
    height, width = hole.shape
    near = bounding_window(band).grow(_CONTEXT, height, width, at_least=_LEAST).slices
    guide[near] = _pass(run, guide[near], band[near], feather)
    return guide


def _halve(pixels: Pixels, hole: Hole) -> tuple[Pixels, Hole]:
    """Halve both sides: the mean of what is known in each block of four; hole where nothing is."""
    height, width = hole.shape
    padding = ((0, height % 2), (0, width % 2))
    pixels = np.pad(pixels, (*padding, (0, 0)), mode="edge")
    known = ~np.pad(hole, padding, mode="edge")
    total = np.zeros((known.shape[0] // 2, known.shape[1] // 2, 3), np.uint32)
    count = np.zeros(total.shape[:2], np.uint32)
    for row in (0, 1):
        for column in (0, 1):
            part = known[row::2, column::2]
            total += pixels[row::2, column::2] * part[:, :, None]
            count += part
    share = np.maximum(count, 1)[:, :, None]
    return ((total + share // 2) // share).astype(pixels.dtype), count == 0


def _enlarge(pixels: Pixels, shape: tuple[int, ...], doublings: int) -> Pixels:
    """Undo so many halvings of an array of ``shape`` (height, width), bicubic."""
    size, factor = (shape[1], shape[0]), 2**doublings
    # Halving rounds odd sides up, so the copy may stand for a little more than the original.
    box = (0, 0, size[0] / factor, size[1] / factor)
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=box)
        return np.asarray(image)
    channels = []
    for channel in range(3):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32))
        values = np.asarray(plane.resize(size, Image.Resampling.BICUBIC, box=box))
        channels.append(np.rint(values).clip(0, 65535).astype(pixels.dtype))
    return np.stack(channels, axis=2)


# --- the network ---------------------------------------------------------------------------------


def _pass(run: Run, pixels: Pixels, hole: Hole, feather: int, *, one_pass: bool = False) -> Pixels:
    """Fill a hole at one scale: at once if it is small enough, in blended tiles otherwise."""
    if one_pass or hole.size <= _ONE_PASS:
        filled = _to_levels(_run_once(run, pixels, hole, feather), pixels.dtype)
        return np.where(hole[:, :, None], filled, pixels)
    box = bounding_window(hole)
    total = np.zeros((box.height, box.width, 3), np.float32)
    weight = np.zeros((box.height, box.width, 1), np.float32)
    for tile, share in _tiles(box, *hole.shape):
        inside = hole[tile.slices]
        if not inside[share > 0].any():
            continue
        filled = _run_once(run, pixels[tile.slices], inside, feather)
        here = _overlap(tile, box)
        at, from_ = here.slices_in(box), here.slices_in(tile)
        total[at] += filled[from_] * share[from_][:, :, None]
        weight[at] += share[from_][:, :, None]
    result: Pixels = pixels.copy()
    inside = hole[box.slices]
    levels = _to_levels(total[inside] / np.maximum(weight[inside], 1e-6), pixels.dtype)
    result[box.slices][inside] = levels
    return result


def _tiles(box: Window, height: int, width: int) -> list[tuple[Window, npt.NDArray[np.float32]]]:
    """Tiles that cover a window, each with the weight of its pixels, float32 ``[h, w]``."""
    tiles = []
    for top, bottom, down in _spans(box.top, box.bottom, height):
        for left, right, across in _spans(box.left, box.right, width):
            tiles.append((Window(top, left, bottom, right), np.outer(down, across)))
    return tiles


def _spans(low: int, high: int, limit: int) -> list[tuple[int, int, npt.NDArray[np.float32]]]:
    """Overlapping spans that cover ``low`` to ``high`` along one axis, with their weights."""
    start, stop = max(0, low - _MARGIN), min(limit, high + _MARGIN)
    step = _TILE - 2 * _MARGIN - _RAMP
    count = max(1, -(-(stop - start - _TILE) // step) + 1)
    spans = []
    for index in range(count):
        first = max(0, min(start + index * step, limit - _TILE))
        last = min(limit, first + _TILE)
        position = np.arange(first, last) + 0.5
        # Zero in the margin, a ramp to one behind it; the photo's own border has neither.
        rise = (position - first - _MARGIN) / _RAMP if first > 0 else np.ones(last - first)
        fall = (last - position - _MARGIN) / _RAMP if last < limit else np.ones(last - first)
        weights = np.minimum(rise, fall).clip(0, 1).astype(np.float32)
        spans.append((first, last, weights))
    return spans


def _overlap(first: Window, second: Window) -> Window:
    return Window(
        max(first.top, second.top),
        max(first.left, second.left),
        min(first.bottom, second.bottom),
        min(first.right, second.right),
    )


def _run_once(run: Run, pixels: Pixels, hole: Hole, feather: int) -> npt.NDArray[np.float32]:
    """Run the network on one array; float32 ``[H, W, 3]`` in [0, 1]."""
    height, width = hole.shape
    padding = ((0, max(0, _LEAST_SIDE - height)), (0, max(0, _LEAST_SIDE - width)))
    if any(after for _, after in padding):
        pixels = np.pad(pixels, (*padding, (0, 0)), mode="symmetric")
        hole = np.pad(hole, padding, mode="symmetric")
    mask = torch.from_numpy(hole.astype(np.float32))[None, None]
    scaled = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)
    # Zeros in the hole: the result may not depend on what the hole covers.
    image = scaled.permute(2, 0, 1)[None].contiguous() * (1 - mask)
    output = run(image, mask)
    if feather > 0:
        output = _match_border(image, output, mask, feather)
    return output[0].permute(1, 2, 0)[:height, :width].numpy()


def _match_border(image: Tensor, output: Tensor, mask: Tensor, feather: int) -> Tensor:
    """Shift the fill's colours so that they meet the known ones, less and less further inside.

    The network's error on the known pixels is continued smoothly into the hole, as in membrane
    interpolation (Perez et al., Poisson Image Editing, 2003), and fades within ``feather`` px.
    """
    error = push_pull((image - output) * (1 - mask), mask)
    fade, known = torch.zeros_like(mask), 1 - mask
    for step in range(feather):
        known = F.max_pool2d(known, 3, stride=1, padding=1)
        fade = torch.maximum(fade, known * (1 - (step + 1) / (feather + 1)))
    return (output + error * fade * mask).clamp(0, 1)


def _to_levels(values: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Pixels:
    most = np.iinfo(dtype).max
    levels: Pixels = np.rint(values.clip(0, 1) * most).astype(dtype)
    return levels
