"""Hole masks: seeded generators for training and testing, and folders of mask files.

Every mask is a ``np.bool_`` array ``[height, width]`` in which ``True`` marks the hole. Everything
random comes from the ``numpy.random.Generator`` that is passed in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regionnorm.files.formats import list_images
from regionnorm.files.remote import Place, as_place
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import mask_to_tensor
from regionnorm.masks.drawing import Canvas, Mask, Point, border_point, paint
from regionnorm.masks.levels import read_hole

Interval = tuple[float, float]

INTERVALS: tuple[Interval, ...] = (
    (0.0, 0.1),
    (0.1, 0.2),
    (0.2, 0.3),
    (0.3, 0.4),
    (0.4, 0.5),
    (0.5, 0.6),
)
"""The paper's six shares of hole area; the lower end is excluded, the upper one included."""

MASK_KINDS: tuple[str, ...] = ("free-form", "scratch", "ellipse", "blob", "box", "combined")
"""What the generators can draw; ``interval_mask`` and ``GeneratedMasks`` mix them."""

MIN_SIDE, MAX_SIDE = 16, 16384
_LIST = "masks.json"  # beside written masks
_KIND_WEIGHTS = {
    "free-form": 0.40,
    "scratch": 0.15,
    "ellipse": 0.08,
    "blob": 0.12,
    "box": 0.10,
    "combined": 0.15,
}
# Below one percent a hole is a few pixels; Liu et al.'s first interval starts there, too.
_SMALLEST_DRAWN_SHARE = 0.01
_MOST_SCRATCHED = 0.3
_SCRATCHED_SIDE = 256  # of the photos on which thin masks are scratches


class MaskSampler(Protocol):
    """Anything that draws a mask of a given size from a random generator."""

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        """Return a ``np.bool_`` mask ``[height, width]``, ``True`` in the hole."""
        ...


# --- masks of a given area ----------------------------------------------------------------------


def _grow(mask: Mask, target: int) -> Mask:
    """Add pixels around the hole, ring by ring, until it has ``target`` of them."""
    mask = mask.copy()
    while (missing := target - int(np.count_nonzero(mask))) > 0:
        ring = np.zeros_like(mask)
        ring[1:] |= mask[:-1]
        ring[:-1] |= mask[1:]
        ring[:, 1:] |= mask[:, :-1]
        ring[:, :-1] |= mask[:, 1:]
        places = np.flatnonzero(ring & ~mask)
        mask.reshape(-1)[places[:missing]] = True
    return mask


def touches_border(mask: Mask) -> bool:
    """Say whether a hole reaches the first or last row or column of ``mask`` ``[H, W]``."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ValueError(
            f"mask size {height}x{width}: both sides must be {MIN_SIDE} to {MAX_SIDE} px"
        )


def _check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    unknown = [kind for kind in kinds if kind not in MASK_KINDS]
    if unknown or not kinds:
        raise ValueError(f"mask kinds {list(kinds)}: choose from {', '.join(MASK_KINDS)}")
    return tuple(kinds)


def _pick_kind(kinds: Sequence[str], share: float, rng: np.random.Generator) -> str:
    # Scratches that cover a third of a picture are a hatching that no photo has.
    if share > _MOST_SCRATCHED and len(kinds) > 1:
        kinds = [kind for kind in kinds if kind != "scratch"]
    if len(kinds) == 1:
        return kinds[0]
    edges = np.cumsum([_KIND_WEIGHTS[kind] for kind in kinds])
    place = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return kinds[min(place, len(kinds) - 1)]


def _pixel_range(interval: Interval, pixels: int) -> tuple[int, int]:
    """Return the least and the greatest number of pixels whose share lies in the interval."""
    low, high = interval
    if not 0 <= low < high <= 1:
        raise ValueError(f"mask interval {low:g}-{high:g}: needs 0 <= low < high <= 1")
    least, most = math.floor(low * pixels), math.ceil(high * pixels)
    # Compared as shares, because low * pixels may be rounded across a whole number.
    while least / pixels <= low:
        least += 1
    while most / pixels > high:
        most -= 1
    if least > most:
        raise ValueError(
            f"mask interval {low:g}-{high:g}: no number of pixels out of {pixels} lies in it;"
            " widen the interval or enlarge the mask"
        )
    return least, most


def interval_mask(
    height: int,
    width: int,
    interval: Interval,
    rng: np.random.Generator,
    *,
    touch_border: bool | None = None,
    kinds: Sequence[str] = MASK_KINDS,
) -> Mask:
    """Draw a mask whose hole covers a share of the picture in ``(low, high]``, without exception.

    Args:
        height: rows, at least 16.
        width: columns, at least 16.
        interval: ``(low, high)`` shares of the area, ``0 <= low < high <= 1``.
        rng: where all randomness comes from.
        touch_border: whether the hole reaches the picture's border; ``None`` tosses a coin.
        kinds: which of ``MASK_KINDS`` to choose from.

    Returns:
        ``np.bool_`` ``[height, width]``, ``True`` in the hole.

    Raises:
        ValueError: for a size below 16, an interval that is none or that holds no number of
            pixels, an unknown kind, or a hole too large to keep off the border.
    """
    _check_size(height, width)
    kinds = _check_kinds(kinds)
    least, most = _pixel_range(interval, height * width)
    inner = (height - 2) * (width - 2)
    if touch_border is False:
        _check_off_border(interval, height, width)
    if touch_border is None:
        touch_border = bool(rng.random() < 0.5) or least > inner
    if not touch_border:
        most = min(most, inner)
    target = _draw_target(least, most, height * width, rng)
    kind = _pick_kind(kinds, target / (height * width), rng)
    margin = 0 if touch_border else _margin(height, width, most, rng)
    canvas = Canvas(height - 2 * margin, width - 2 * margin, least, most)
    start = border_point(canvas, rng) if touch_border else None
    paint(canvas, rng, target, kind, start=start, clear=not touch_border)
    return _finish(canvas, least, target, start, margin)


def _draw_target(least: int, most: int, pixels: int, rng: np.random.Generator) -> int:
    floor = min(max(least, math.ceil(_SMALLEST_DRAWN_SHARE * pixels)), most)
    return int(rng.integers(floor, most + 1))


def _margin(height: int, width: int, most: int, rng: np.random.Generator) -> int:
    """Choose how far from the border the hole stays, leaving ample room for it."""
    margin = max(1, round(min(height, width) * float(rng.uniform(0.005, 0.04))))
    while margin > 1 and (height - 2 * margin) * (width - 2 * margin) < 1.3 * most:
        margin -= 1
    return margin


def _finish(canvas: Canvas, least: int, target: int, start: Point | None, margin: int) -> Mask:
    """Bring what the brush left to the interval and to the border, exactly."""
    mask = canvas.array()
    if start is not None and not touches_border(mask):
        # Nothing fitted at the border: start again from one pixel there.
        mask = np.zeros_like(mask)
        mask[int(start[1]), int(start[0])] = True
    if not mask.any():
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    if np.count_nonzero(mask) < least:
        mask = _grow(mask, target)
    return np.pad(mask, margin) if margin else mask


# --- single kinds -------------------------------------------------------------------------------


def _one_kind(height: int, width: int, rng: np.random.Generator, area: Interval, kind: str) -> Mask:
    return interval_mask(height, width, area, rng, kinds=(kind,))


def free_form_mask(
    height: int, width: int, rng: np.random.Generator, *, area: Interval = (0.05, 0.4)
) -> Mask:
    """Draw brush strokes of random width, turn and joints, covering a share in ``area``.

    Returns ``np.bool_`` ``[height, width]``; raises as :func:`interval_mask` does.
    """
    return _one_kind(height, width, rng, area, "free-form")


def scratch_mask(
    height: int, width: int, rng: np.random.Generator, *, area: Interval = (0.01, 0.1)
) -> Mask:
    """Draw thin, long scratches, covering a share in ``area``.

    Returns ``np.bool_`` ``[height, width]``; raises as :func:`interval_mask` does.
    """
    return _one_kind(height, width, rng, area, "scratch")


def ellipse_mask(
    height: int, width: int, rng: np.random.Generator, *, area: Interval = (0.05, 0.4)
) -> Mask:
    """Draw one to four tilted ellipses, covering a share in ``area``.

    Returns ``np.bool_`` ``[height, width]``; raises as :func:`interval_mask` does.
    """
    return _one_kind(height, width, rng, area, "ellipse")


def box_mask(
    height: int, width: int, rng: np.random.Generator, *, area: Interval = (0.05, 0.4)
) -> Mask:
    """Draw one to four boxes, some of them tilted, covering a share in ``area``.

    Returns ``np.bool_`` ``[height, width]``; raises as :func:`interval_mask` does.
    """
    return _one_kind(height, width, rng, area, "box")


def center_square_mask(height: int, width: int) -> Mask:
    """Return the paper's fixed hole: half of each side, centred, a quarter of the area.

    Returns ``np.bool_`` ``[height, width]``; on odd sides the hole is rounded to whole pixels.
    """
    _check_size(height, width)
    tall, wide = height // 2, width // 2
    top, left = (height - tall) // 2, (width - wide) // 2
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[top : top + tall, left : left + wide] = True
    return mask


def _thin_mask(height: int, width: int, rng: np.random.Generator) -> Mask:
    """A window around a pixel of a scratch; beyond the scratched photo's border nothing is hole."""
    scratched = scratch_mask(_SCRATCHED_SIDE, _SCRATCHED_SIDE, rng)
    row, column = rng.choice(np.argwhere(scratched))
    # Where that pixel comes to lie, as far as the window stays inside.
    down, right = rng.integers((height, width))
    top = min(max(0, int(row - down)), max(0, _SCRATCHED_SIDE - height))
    left = min(max(0, int(column - right)), max(0, _SCRATCHED_SIDE - width))
    window = scratched[top : top + height, left : left + width]
    mask = np.zeros((height, width), np.bool_)
    mask[: window.shape[0], : window.shape[1]] = window
    return mask


# --- samplers -----------------------------------------------------------------------------------


class GeneratedMasks:
    """Masks for training: all intervals up to ``max_area`` alike, half touching the border.

    A share ``thin`` of them are windows of a scratched photo of 256 pixels instead, so that
    scratches are 1 to 10 pixels wide whatever size is asked for.
    """

    def __init__(
        self, max_area: float = 0.6, kinds: Sequence[str] = MASK_KINDS, *, thin: float = 0.0
    ) -> None:
        if not 0 < max_area <= 0.95:
            raise ValueError(f"max_area {max_area:g}: must be above 0 and at most 0.95")
        if not 0 <= thin <= 1:
            raise ValueError(f"thin {thin:g}: a share is from 0 to 1")
        self.thin = float(thin)
        self.max_area = float(max_area)
        self.kinds = _check_kinds(kinds)
        count = max(1, round(self.max_area * 10))
        edges = [self.max_area * i / count for i in range(count + 1)]
        self._intervals = list(pairwise(edges))

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        """Return a ``np.bool_`` mask ``[height, width]``, ``True`` in the hole."""
        if self.thin and rng.random() < self.thin:
            return _thin_mask(height, width, rng)
        interval = self._intervals[int(rng.integers(len(self._intervals)))]
        return interval_mask(height, width, interval, rng, kinds=self.kinds)


class CenterSquare:
    """The paper's fixed centre square as a sampler."""

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        """Return the same ``np.bool_`` mask ``[height, width]`` each time."""
        return center_square_mask(height, width)


class MaskFolder:
    """Mask files of a folder, read as `inpaint` reads them: a random one, resized and flipped.

    Raises:
        FileNotFoundError: if the folder holds no image.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_place(path)
        self.files = list_images(self.path)
        if not self.files:
            raise FileNotFoundError(f"{self.path}: no mask images in this folder")

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        """Return a ``np.bool_`` mask ``[height, width]``, passing over files that are damaged.

        Raises:
            ValueError: If none of the files can be read.
        """
        start = int(rng.integers(len(self.files)))
        flip_x, flip_y = rng.random(2) < 0.5
        mask = _resize_nearest(self._first_readable(start), height, width)
        mask = mask[:, ::-1] if flip_x else mask
        mask = mask[::-1] if flip_y else mask
        return np.ascontiguousarray(mask)

    def _first_readable(self, start: int) -> Mask:
        for step in range(len(self.files)):
            with suppress(OSError, ValueError):
                return read_hole(self.files[(start + step) % len(self.files)])
        raise ValueError(f"{self.path}: none of its {len(self.files)} mask images can be read")


def _check_off_border(interval: Interval, height: int, width: int) -> None:
    inner = (height - 2) * (width - 2)
    if _pixel_range(interval, height * width)[0] > inner:
        raise ValueError(
            f"mask interval {interval[0]:g}-{interval[1]:g}: a hole off the border of"
            f" {height}x{width} covers at most {inner / (height * width):.3f}"
        )


def _resize_nearest(mask: Mask, height: int, width: int) -> Mask:
    image = Image.fromarray(mask.astype(np.uint8))
    resized = image.resize((width, height), Image.Resampling.NEAREST)
    hole: Mask = np.asarray(resized) > 0
    return hole


def evaluation_mask(index: int, interval: Interval, size: int, seed: int = 0) -> Mask:
    """Return mask number ``index`` of the fixed test set of an interval.

    Depends on its arguments only (and on how NumPy draws numbers and Pillow shapes), so that
    every run tests on the same masks, one after the other or in any order.
    Masks of even index touch the border, those of odd index do not.

    Returns ``np.bool_`` ``[size, size]``; raises as :func:`interval_mask` does.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"mask index {index}, seed {seed}: both must be 0 or more")
    low, high = (round(edge * 1_000_000) for edge in interval)
    rng = np.random.default_rng((seed, low, high, size, index))
    return interval_mask(size, size, interval, rng, touch_border=index % 2 == 0)


def evaluation_masks(indices: Iterable[int], interval: Interval, size: int) -> Tensor:
    """Several of :func:`evaluation_mask`, as networks take them: float32 ``[N, 1, size, size]``."""
    return torch.cat([mask_to_tensor(evaluation_mask(i, interval, size)) for i in indices])


# --- writing ------------------------------------------------------------------------------------


def _numbered_mask(index: int, interval: Interval | None, size: int, seed: int, kind: str) -> Mask:
    if kind == "center":
        return center_square_mask(size, size)
    rng = np.random.default_rng((seed, index))
    chosen = interval or INTERVALS[index % len(INTERVALS)]
    kinds = MASK_KINDS if kind == "mixed" else (kind,)
    # With all intervals in turn, parity of the index alone would tie the border to the interval.
    round_number = index if interval else index // len(INTERVALS) + index
    return interval_mask(size, size, chosen, rng, touch_border=round_number % 2 == 0, kinds=kinds)


def write_masks(
    out: str | os.PathLike[str],
    *,
    interval: Interval | None = None,
    count: int,
    size: int,
    seed: int = 0,
    kind: str = "mixed",
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write ``count`` square masks as PNG files, and ``masks.json`` with their areas.

    Args:
        out: folder, made if missing; files are ``00000.png`` and so on, 1 bit, white in the hole.
            One that holds images already is refused, unless the same settings wrote them.
        interval: shares of the area, or ``None`` for the six of ``INTERVALS`` in turn.
        count: how many, at least 1.
        size: side in pixels, at least 16.
        seed: the same seed writes the same files.
        kind: one of ``MASK_KINDS``, ``"mixed"`` for all of them, or ``"center"``.
        on_progress: called after each file with the number written and the total.

    Returns:
        The number of files written.

    Raises:
        ValueError: for settings that make no sense, and for a folder with other images.
    """
    folder = as_place(out)
    _check_writing(interval, count, size, seed, kind, folder)
    settings = {"interval": interval, "count": count, "size": size, "seed": seed, "kind": kind}
    _check_free(folder, settings)
    _write_list(folder, settings, [])  # writing that is stopped may go on
    digits = max(5, len(str(count - 1)))
    entries: list[dict[str, Any]] = []
    for index in range(count):
        mask = _numbered_mask(index, interval, size, seed, kind)
        name = f"{index:0{digits}d}.png"
        with atomic_path(folder / name) as temporary:
            Image.fromarray(mask).save(temporary, format="PNG")
        entries.append(
            {
                "file": name,
                "area": round(float(mask.mean()), 6),
                "touches_border": touches_border(mask),
            }
        )
        if on_progress is not None:
            on_progress(index + 1, count)
    _write_list(folder, settings, entries)
    return count


def _write_list(
    folder: Place, settings: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> None:
    with atomic_path(folder / _LIST) as temporary:
        text = json.dumps({"settings": settings, "masks": entries}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def _check_free(folder: Place, settings: Mapping[str, Any]) -> None:
    """Refuse a folder whose images would be replaced, or taken for masks of these settings."""
    if not folder.exists() or not list_images(folder):
        return
    before = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        before = json.loads((folder / _LIST).read_text(encoding="utf-8"))["settings"]
    if before != json.loads(json.dumps(settings)):
        raise ValueError(f"{folder} holds images already; choose an empty folder for the masks")


def _check_writing(
    interval: Interval | None, count: int, size: int, seed: int, kind: str, out: Place
) -> None:
    allowed = (*MASK_KINDS, "mixed", "center")
    if kind not in allowed:
        raise ValueError(f"mask kind {kind!r}: choose from {', '.join(allowed)}")
    if count < 1:
        raise ValueError(f"mask count {count}: must be at least 1")
    if seed < 0:
        raise ValueError(f"mask seed {seed}: must be 0 or more")
    _check_size(size, size)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; name a folder for the masks")
    if interval is None:
        return
    _pixel_range(interval, size * size)
    if count > 1 and kind != "center":
        _check_off_border(interval, size, size)
    share = float(center_square_mask(size, size).mean())
    if kind == "center" and not interval[0] < share <= interval[1]:
        raise ValueError(
            f"mask kind 'center' covers {share:.3f}, outside the interval"
            f" {interval[0]:g}-{interval[1]:g}; leave the interval out"
        )
