"""The drawing behind the mask generators: a canvas that counts, brush strokes and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]

_MAX_SHAPES = 60


class Canvas:
    """A picture of the hole that never grows beyond ``most`` pixels.

    Counting pixels is the slow part, so the canvas keeps an upper bound of the count, and counts
    only when that bound says that something may have happened.
    """

    def __init__(self, height: int, width: int, least: int, most: int) -> None:
        self.height = height
        self.width = width
        self.short = min(height, width)
        self._least = least
        self._most = most
        self._image = Image.new("L", (width, height))
        self._draw = ImageDraw.Draw(self._image)
        self._bound = 0.0
        self.refused = False

    @property
    def empty(self) -> bool:
        """Whether nothing has been drawn yet."""
        return self._bound == 0

    def array(self) -> Mask:
        """What has been drawn, as bool ``[H, W]``."""
        return _pixels(self._image) > 0

    def done(self, target: int) -> bool:
        """Say whether the hole has ``target`` pixels, or is full as far as the brush can tell."""
        if self._bound < (self._least if self.refused else target):
            return False
        self._bound = float(np.count_nonzero(_pixels(self._image)))
        return self._bound >= target or (self.refused and self._bound >= self._least)

    def paint(self, at_most: float, shape: Callable[[ImageDraw.ImageDraw], None]) -> bool:
        """Draw a shape of ``at_most`` pixels; where that is too much, undo it, return False."""
        if self._bound + at_most <= self._most:
            self._bound += at_most
            shape(self._draw)
            return True
        before = self._image.copy()
        shape(self._draw)
        count = int(np.count_nonzero(_pixels(self._image)))
        if count <= self._most:
            self._bound = float(count)
            return True
        self._image.paste(before)
        self.refused = True
        return False

    def dab(self, start: Point, end: Point, width_start: float, width_end: float) -> bool:
        """Draw a stretch of a stroke: round ends, and between them the width changes evenly."""
        (x0, y0), (x1, y1) = start, end
        width = max(width_start, width_end)
        length = math.hypot(x1 - x0, y1 - y0)

        def shape(draw: ImageDraw.ImageDraw) -> None:
            if width < 2.5:
                draw.line((x0, y0, x1, y1), fill=255, width=max(1, round(width)))
                return
            r0, r1 = width_start / 2, width_end / 2
            if length > 0:
                across, along = (y0 - y1) / length, (x1 - x0) / length
                near = (x0 + across * r0, y0 + along * r0, x0 - across * r0, y0 - along * r0)
                far = (x1 - across * r1, y1 - along * r1, x1 + across * r1, y1 + along * r1)
                draw.polygon(near + far, fill=255)
            draw.ellipse((x0 - r0, y0 - r0, x0 + r0, y0 + r0), fill=255)
            draw.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill=255)

        return self.paint((length + width + 3) * (width + 3), shape)

    def polygon(self, points: npt.NDArray[np.float64]) -> bool:
        """Fill a polygon, ``points`` ``[n, 2]`` as x, y."""
        extent = np.ptp(points, axis=0) + 2
        flat = points.ravel().tolist()
        return self.paint(float(extent.prod()), lambda draw: draw.polygon(flat, fill=255))


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(image.height, image.width)


# --- shapes -------------------------------------------------------------------------------------


def _fold(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Mirror ``values`` at ``low`` and ``high`` until they lie between, as light in a tube."""
    span = high - low
    if span <= 0:
        return np.full_like(values, (low + high) / 2)
    return low + span - np.abs((values - low) % (2 * span) - span)


def border_point(canvas: Canvas, rng: np.random.Generator) -> Point:
    """A point on one of the four borders."""
    side = rng.integers(4)
    x, y = int(rng.integers(canvas.width)), int(rng.integers(canvas.height))
    if side < 2:
        return float(x), float(0 if side == 0 else canvas.height - 1)
    return float(0 if side == 2 else canvas.width - 1), float(y)


def _free_point(canvas: Canvas, rng: np.random.Generator, inset: float) -> Point:
    x, y = rng.random(2).tolist()
    room_x, room_y = (max(side - 1 - 2 * inset, 0.0) for side in (canvas.width, canvas.height))
    left, top = (canvas.width - 1 - room_x) / 2, (canvas.height - 1 - room_y) / 2
    return left + x * room_x, top + y * room_y


@dataclass(frozen=True)
class _Hand:
    """How a stroke is drawn: lengths in pixels, ``turn`` in radians per joint."""

    width: float
    length: float
    joints: int
    turn: float
    bounce: bool
    """Turn back at the edge of the canvas, rather than end there."""


def _stroke(
    canvas: Canvas,
    rng: np.random.Generator,
    target: int,
    hand: _Hand,
    start: Point | None,
    clear: bool,
) -> None:
    """Draw a stroke until it ends or the hole is large enough.

    It begins at ``start`` or anywhere; ``clear`` keeps its whole width inside the canvas.
    """
    inset = hand.width * 0.6 if clear else 0.0
    here = start if start and canvas.empty else _free_point(canvas, rng, inset)
    # The heading does a random walk whose steps resemble each other, which makes bends.
    turns = rng.normal(0.0, hand.turn, hand.joints + 1)
    headings = rng.uniform(0, 2 * math.pi) + np.cumsum(0.7 * turns[1:] + 0.7 * turns[:-1])
    steps = hand.length / hand.joints * rng.uniform(0.6, 1.4, hand.joints)
    xs = here[0] + np.cumsum(steps * np.cos(headings))
    ys = here[1] + np.cumsum(steps * np.sin(headings))
    right, bottom = canvas.width - 1 - inset, canvas.height - 1 - inset
    count = hand.joints
    if hand.bounce:
        xs, ys = _fold(xs, inset, right), _fold(ys, inset, bottom)
    else:
        outside = (xs < inset) | (xs > right) | (ys < inset) | (ys > bottom)
        # A stroke may run off the canvas, where it is clipped; one to be kept clear ends before.
        count = int(np.argmax(outside)) + (not clear) if outside.any() else count
    widths = (hand.width * rng.uniform(0.8, 1.2, hand.joints + 1)).tolist()
    path = [here, *zip(xs.tolist(), ys.tolist(), strict=True)][: count + 1]
    for i in range(len(path) - 1):
        if not canvas.dab(path[i], path[i + 1], widths[i], widths[i + 1]) or canvas.done(target):
            return


def _paint_strokes(
    canvas: Canvas, rng: np.random.Generator, target: int, *, start: Point | None, clear: bool
) -> None:
    """Cover ``target`` pixels with a few bent strokes of a brush as wide as that takes."""
    short = canvas.short
    strokes = int(rng.integers(1, 7))
    ideal = 1.4 * target / (strokes * short) * float(rng.uniform(0.6, 1.4))
    width = min(max(ideal, 0.03 * short), 0.22 * short)
    # From gentle bends to a zigzag, for all strokes of a mask alike: it is one hand's work.
    turn = float(rng.uniform(0.15, 0.9))
    for _ in range(_MAX_SHAPES):
        hand = _Hand(
            width=max(1.0, width * float(rng.uniform(0.7, 1.3))),
            length=short * float(rng.uniform(0.4, 1.6)),
            joints=int(rng.integers(6, 15)),
            turn=turn,
            bounce=clear,
        )
        _stroke(canvas, rng, target, hand, start, clear)
        if canvas.done(target):
            return
        # Finer where the last stroke was one too many, or else a little bolder, to get done.
        width *= 0.8 if canvas.refused else 1.03


def _paint_scratches(
    canvas: Canvas, rng: np.random.Generator, target: int, *, start: Point | None, clear: bool
) -> None:
    """Cover ``target`` pixels with thin, nearly straight strokes, as on an old print."""
    # As thin as at most some forty of them allow.
    thick = max(canvas.short * float(rng.uniform(0.006, 0.025)), target / (18 * canvas.short))
    for _ in range(_MAX_SHAPES):
        hand = _Hand(
            width=max(1.0, thick * float(rng.uniform(0.5, 1.5))),
            length=max(canvas.height, canvas.width) * float(rng.uniform(0.3, 1.3)),
            joints=int(rng.integers(4, 9)),
            turn=float(rng.uniform(0.02, 0.2)),
            bounce=False,
        )
        _stroke(canvas, rng, target, hand, start, clear)
        if canvas.done(target):
            return
        thick *= 1.02


def _outline(kind: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a closed outline ``[n, 2]`` of about unit area, of random shape and direction."""
    aspect = math.exp(float(rng.uniform(-0.6, 0.6)))
    if kind == "box":
        points = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        angle = 0.0 if rng.random() < 0.7 else float(rng.uniform(0, math.pi))
    else:
        angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
        radius = np.ones_like(angles)
        if kind == "blob":
            for wave in range(2, 6):
                size, phase = rng.uniform(0, 0.5 / wave), rng.uniform(0, 2 * math.pi)
                radius += size * np.cos(wave * angles + phase)
        points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
        points /= math.sqrt(math.pi)
        angle = float(rng.uniform(0, math.pi))
    points = points * (math.sqrt(aspect), 1 / math.sqrt(aspect))
    cos, sin = math.cos(angle), math.sin(angle)
    turned: npt.NDArray[np.float64] = points @ np.array([(cos, sin), (-sin, cos)])
    return turned


def _paint_shapes(
    canvas: Canvas,
    rng: np.random.Generator,
    target: int,
    *,
    kind: str,
    start: Point | None,
    clear: bool,
) -> None:
    """Cover ``target`` pixels with one to a few filled shapes."""
    count = int(rng.integers(1, 5))
    part = target / count
    for _ in range(_MAX_SHAPES // 2):
        points = _outline(kind, rng) * math.sqrt(part * float(rng.uniform(0.6, 1.5)))
        if clear:
            # A shape that must not be cut at the edge has to fit first.
            span = np.ptp(points, axis=0)
            points *= min(1.0, float(np.min((canvas.width - 2, canvas.height - 2) / span)))
        if start is None or not canvas.empty:
            reach = np.abs(points).max(axis=0) if clear else np.zeros(2)
            room = np.maximum((canvas.width - 1, canvas.height - 1) - 2 * reach, 0)
            centre = reach + rng.random(2) * room
        else:
            centre = np.array(start)
        if not canvas.polygon(points + centre):
            part *= 0.6
        if canvas.done(target) or part < 4:
            return


def paint(
    canvas: Canvas,
    rng: np.random.Generator,
    target: int,
    kind: str,
    *,
    start: Point | None,
    clear: bool,
) -> None:
    """Cover ``target`` pixels of an empty canvas with holes of a kind.

    The first begins at ``start``, if given; ``clear`` keeps all of them uncut by the edge.
    """
    if kind == "combined":
        first = str(rng.choice(["box", "ellipse", "blob"]))
        share = max(1, int(target * rng.uniform(0.3, 0.8)))
        _paint_shapes(canvas, rng, share, kind=first, start=start, clear=clear)
        kind = "free-form"
    if kind in ("ellipse", "blob", "box"):
        _paint_shapes(canvas, rng, target, kind=kind, start=start, clear=clear)
    elif kind == "scratch":
        _paint_scratches(canvas, rng, target, start=start, clear=clear)
    if kind == "free-form" or not canvas.done(target):
        _paint_strokes(canvas, rng, target, start=start, clear=clear)
