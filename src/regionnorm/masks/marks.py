"""The marks that time leaves on a print or a film: where each covers it, drawn by chance.

All are drawn four times finer than the photo and averaged, so that a line of 0.7 pixels is as faint
as such a line is. Lengths are in pixels of the photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["KINDS", "Layer", "blurred", "draw_marks", "smooth_noise"]

Plane = npt.NDArray[np.float32]
_Points = npt.NDArray[np.float64]

_FINE = 4
_STEP = 4.0  # between the joints of a line


class Layer(NamedTuple):
    """One thing that lies on a photo."""

    cover: Plane
    """Opacity ``[H, W]`` in [0, 1]."""
    colour: tuple[float, float, float]
    """RGB in [0, 1]."""
    mark: bool = True
    """Whether it is damage to be found; shading along a fold and tints of stains are not."""
    multiply: bool = False
    """Whether the colour dyes what is below, as ink does, rather than cover it, as paint does."""


class _Sheet:
    """A drawing four times as fine as the photo."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = Image.new("L", (width * _FINE, height * _FINE))
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: _Points, widths: npt.NDArray[np.float64]) -> None:
        """A line through points ``[n, 2]`` as x, y, with a width at each."""
        fine = points * _FINE
        thick = np.maximum(1, np.rint(widths * _FINE)).astype(int)
        if (thick == thick[0]).all():
            self.draw.line(fine.ravel().tolist(), fill=255, width=int(thick[0]), joint="curve")
            return
        for (x0, y0), (x1, y1), wide in zip(
            fine[:-1].tolist(), fine[1:].tolist(), thick[1:].tolist(), strict=True
        ):
            self.draw.line((x0, y0, x1, y1), fill=255, width=wide)
            if wide > 4:
                r = wide / 2 - 0.5
                self.draw.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=255)

    def polygon(self, points: _Points) -> None:
        """A filled polygon."""
        self.draw.polygon((points * _FINE).ravel().tolist(), fill=255)

    def cover(self) -> Plane:
        """What has been drawn, float32 ``[H, W]`` in [0, 1]."""
        small = np.asarray(self.image.reduce(_FINE), np.float32)
        cover: Plane = small / np.float32(255)
        return cover


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Plane:
    """Noise in [0, 1] that changes over about ``cell`` pixels, float32 ``[H, W]``."""
    rows, columns = (max(2, math.ceil(side / cell) + 1) for side in (height, width))
    coarse = Image.fromarray(rng.random((rows, columns), np.float32))
    fine = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine).clip(0, 1)


def blurred(planes: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """A Gaussian blur of ``[H, W, ...]`` over its first two axes."""
    reach = max(1, math.ceil(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        length = planes.shape[axis]
        padding = [(0, 0)] * planes.ndim
        padding[axis] = (reach, reach)
        padded = np.pad(planes, padding, mode="edge")
        total = np.zeros_like(planes)
        for place, tap in enumerate(taps):
            at = [slice(None)] * planes.ndim
            at[axis] = slice(place, place + length)
            total += tap * padded[tuple(at)]
        planes = total
    return planes


# --- lines ----------------------------------------------------------------------------------------


def _walk(
    rng: np.random.Generator, start: _Points, heading: float, length: float, bend: float
) -> _Points:
    """A path ``[n, 2]`` whose heading drifts: ``bend`` is its spread in radians over 100 px."""
    count = max(2, math.ceil(length / _STEP))
    turns = rng.normal(0, bend * math.sqrt(_STEP / 100), count)
    # Turns that resemble those before make a bow rather than a tremble.
    turns = 0.5 * turns + 0.5 * np.convolve(turns, np.ones(8) / math.sqrt(8))[:count]
    headings = heading + np.cumsum(turns)
    steps = np.stack([np.cos(headings), np.sin(headings)], 1) * _STEP
    path: _Points = np.concatenate([start[None], start + np.cumsum(steps, 0)])
    return path


def _anywhere(rng: np.random.Generator, height: int, width: int) -> _Points:
    point: _Points = rng.random(2) * (width, height)
    return point


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(math.log(low), math.log(max(low, high)))))


def _taper(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """The width along a line as shares of its widest place."""
    t = np.linspace(0, 1, count)
    kind = rng.integers(4)
    if kind == 0:
        return np.ones(count)
    if kind == 1:
        return np.asarray(0.25 + 0.75 * np.sin(np.pi * t) ** 0.7)
    if kind == 2:
        return np.asarray(1 - 0.8 * (t if rng.random() < 0.5 else 1 - t))
    rough = 1 + 0.35 * rng.normal(0, 1, count)
    return np.asarray(rough.clip(0.3, 1.6))


def _count(rng: np.random.Generator, low: int, high: int, side: int) -> int:
    """How many marks: more of them on a larger photo."""
    return max(1, round(int(rng.integers(low, high + 1)) * side / 128))


def _tone(rng: np.random.Generator, *, coloured: float = 0.12) -> tuple[float, float, float]:
    """Bright, dark or coloured, as emulsion, paper and dirt are."""
    chance = rng.random()
    if chance < coloured:
        # A scratch through some layers of a colour film only.
        r, g, b = rng.choice([0.05, 0.5, 0.95], 3)
        return float(r), float(g), float(b)
    level = rng.uniform(0.65, 1.0) if chance < 0.6 else rng.uniform(0.0, 0.3)
    r, g, b = (level + rng.normal(0, 0.03, 3)).clip(0, 1)
    return float(r), float(g), float(b)


def _worn(rng: np.random.Generator, cover: Plane, chance: float) -> Plane:
    """Break a mark and let its strength waver."""
    height, width = cover.shape
    if rng.random() < chance:
        noise = smooth_noise(rng, height, width, _between(rng, 4, 30))
        gap = rng.uniform(0.2, 0.5)
        cover = cover * ((noise - gap) * 8 + 0.5).clip(0, 1)
    if rng.random() < 0.5:
        cover = cover * (0.6 + 0.4 * smooth_noise(rng, height, width, _between(rng, 8, 60)))
    return cover


def _scratches(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    layers = []
    side = max(height, width)
    for _ in range(_count(rng, 1, 2, side)):
        sheet = _Sheet(height, width)
        together = rng.random() < 0.3
        heading = rng.uniform(0, 2 * math.pi)
        thick = _between(rng, 0.7, 6)
        bend = _between(rng, 0.01, 0.8)
        for _ in range(int(rng.integers(1, 4))):
            length = _between(rng, 12, 1.4 * side)
            angle = heading + rng.normal(0, 0.08) if together else rng.uniform(0, 2 * math.pi)
            path = _walk(rng, _anywhere(rng, height, width), angle, length, bend)
            wide = thick * rng.uniform(0.6, 1.2) * _taper(rng, len(path))
            sheet.line(path, np.maximum(wide, 0.6))
        cover = _worn(rng, sheet.cover(), 0.3)
        colour = _tone(rng)
        if rng.random() < 0.15 and thick > 1.2:
            # Pushed up along its sides, the coating throws a thin shadow or shines.
            rim = blurred(cover, rng.uniform(0.8, 1.6)) - np.float32(0.6) * cover
            level = float(rng.random() < 0.5)
            layers.append(Layer(rim.clip(0, 1) * rng.uniform(0.3, 0.7), (level,) * 3))
        dyed = colour[0] < 0.35 and rng.random() < 0.3
        layers.append(Layer(cover * rng.uniform(0.4, 1.0), colour, multiply=dyed))
    return layers


def _film_lines(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    """Lines along a film's run: parallel, nearly straight, often through the whole picture."""
    layers = []
    across = rng.random() < 0.25
    tall, wide = (width, height) if across else (height, width)
    for _ in range(int(rng.integers(1, 3))):
        sheet = _Sheet(tall, wide)
        tilt = rng.normal(0, 0.01)
        for _ in range(_count(rng, 1, 3, wide)):
            x, top = rng.uniform(0, wide), 0.0
            length = tall + 8.0
            if rng.random() < 0.35:
                top, length = rng.uniform(0, 0.7) * tall, rng.uniform(0.3, 1.0) * tall
            path = _walk(rng, np.array((x, top - 4)), math.pi / 2 + tilt, length, 0.01)
            sway = rng.normal(0, 0.25) * np.sin(np.arange(len(path)) / rng.uniform(3, 12))
            path[:, 0] += sway
            sheet.line(path, np.full(len(path), _between(rng, 0.7, 2.5)))
        cover = _worn(rng, sheet.cover(), 0.25) * np.float32(rng.uniform(0.3, 1.0))
        layers.append(Layer(np.ascontiguousarray(cover.T) if across else cover, _tone(rng)))
    return layers


def _speck(rng: np.random.Generator, centre: _Points, radius: float) -> _Points:
    """The outline of a grain of dust ``[n, 2]``."""
    angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    radii = radius * (1 + rng.uniform(0, 0.35) * rng.normal(0, 1, len(angles)))
    outline = np.stack([np.cos(angles), np.sin(angles)], 1) * np.maximum(radii, 0.3)[:, None]
    outline[:, 0] *= _between(rng, 1, 2)
    turn = rng.uniform(0, math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    turned: _Points = outline @ np.array([(cos, sin), (-sin, cos)]) + centre
    return turned


def _dust(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    layers = []
    largest = _between(rng, 1.2, 6)
    area = height * width / 128**2
    for _ in range(int(rng.integers(1, 3))):
        sheet = _Sheet(height, width)
        for _ in range(max(1, round(_between(rng, 2, 30) * area))):
            place = _anywhere(rng, height, width)
            if rng.random() < 0.15:
                # A fibre: short and bent.
                angle = rng.uniform(0, 2 * math.pi)
                path = _walk(rng, place, angle, _between(rng, 5, 20), 4.0)
                sheet.line(path, np.full(len(path), _between(rng, 0.7, 1.8)))
            else:
                sheet.polygon(_speck(rng, place, _between(rng, 0.6, largest)))
        cover = sheet.cover()
        if rng.random() < 0.6:
            cover = blurred(cover, rng.uniform(0.3, 1.1))
        layers.append(Layer(cover * rng.uniform(0.5, 1.0), _tone(rng, coloured=0.06)))
    return layers


def _hairs(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    sheet = _Sheet(height, width)
    for _ in range(_count(rng, 1, 2, max(height, width))):
        length = _between(rng, 30, 260)
        count = max(8, math.ceil(length / 2))
        t = np.linspace(0, 1, count)
        # Curvature that swings makes bows and, where it is strong, loops.
        bows = rng.normal(0, _between(rng, 1, 9))
        swing = rng.normal(0, 4) * np.sin(rng.uniform(2, 14) * t + rng.uniform(0, 6.3))
        headings = rng.uniform(0, 2 * math.pi) + bows * t + swing * t * (1 - t) * 2
        steps = np.stack([np.cos(headings), np.sin(headings)], 1) * (length / count)
        path = _anywhere(rng, height, width) + np.cumsum(steps, 0)
        sheet.line(path, np.full(count, _between(rng, 0.7, 2.6)))
    cover = sheet.cover()
    if rng.random() < 0.4:
        cover = blurred(cover, rng.uniform(0.3, 0.9))
    return [Layer(_worn(rng, cover, 0.1) * rng.uniform(0.5, 1.0), _tone(rng, coloured=0.03))]


def _folds(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    """A crease: torn paper along a line, a shadow beside it, and another light on one side."""
    layers = []
    side = max(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(1, 3))):
        angle = rng.choice([0, math.pi / 2]) + rng.normal(0, 0.12)
        if rng.random() < 0.4:
            angle = rng.uniform(0, math.pi)
        middle = _anywhere(rng, height, width)
        along = np.array((math.cos(angle), math.sin(angle)))
        normal = np.array((-along[1], along[0]))
        start = middle - along * side * rng.uniform(0.2, 1.2)
        path = _walk(rng, start, angle, side * rng.uniform(0.6, 2.4), 0.04)
        path += rng.normal(0, rng.uniform(0.1, 0.7), (len(path), 1)) * normal
        thick = _between(rng, 0.8, 5)
        shade = ((x - middle[0]) * normal[0] + (y - middle[1]) * normal[1]) / rng.uniform(8, 50)
        light = np.where(shade > 0, np.exp(-np.abs(shade)), 0).astype(np.float32)
        level = float(rng.random() < 0.4)
        layers.append(Layer(light * rng.uniform(0.0, 0.16), (level,) * 3, mark=False))
        pair = rng.random() < 0.6
        if pair:
            beside = _Sheet(height, width)
            beside.line(path + normal * (thick * 0.6 + 0.7), np.full(len(path), thick))
            cover = _worn(rng, beside.cover(), 0.2)
            layers.append(Layer(cover * rng.uniform(0.25, 0.7), _tone(rng, coloured=0)))
        core = _Sheet(height, width)
        rough = (1 + 0.5 * rng.normal(0, 1, len(path))).clip(0.2, 2.2)
        core.line(path, np.maximum(thick * rough, 0.6))
        cover = core.cover()
        torn = smooth_noise(rng, height, width, 2.5)
        cover = cover * ((torn - rng.uniform(0, 0.35)) * 6).clip(0, 1)
        paper = rng.uniform(0.75, 1) if pair or rng.random() < 0.7 else rng.uniform(0, 0.2)
        tint = paper * np.array((1, 1 - rng.uniform(0, 0.05), 1 - rng.uniform(0, 0.15)))
        r, g, b = tint.tolist()
        layers.append(Layer(_worn(rng, cover, 0.3) * rng.uniform(0.5, 1.0), (r, g, b)))
    return layers


def _stains(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    """Where a drop dried: a rim of what it carried, and a faint tint within."""
    layers = []
    for _ in range(int(rng.integers(1, 3))):
        radius = _between(rng, 8, 0.5 * max(height, width))
        angles = np.linspace(0, 2 * math.pi, 72)
        radii = np.ones_like(angles)
        for wave in range(2, 9):
            radii += rng.uniform(0, 0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3))
        outline = np.stack([np.cos(angles), np.sin(angles)], 1) * (radius * radii)[:, None]
        outline += _anywhere(rng, height, width)
        inside, rim = _Sheet(height, width), _Sheet(height, width)
        inside.polygon(outline)
        wide = _between(rng, 1.0, 5) * (1 + 0.3 * rng.normal(0, 1, len(outline))).clip(0.4, 1.8)
        rim.line(outline, wide)
        dark = rng.uniform(0, 0.45) * np.array((1, rng.uniform(0.6, 1), rng.uniform(0.2, 1)))
        r, g, b = dark.tolist()
        soft = blurred(rim.cover(), rng.uniform(0.4, 1.0))
        within = inside.cover() * rng.uniform(0, 0.12)
        layers.append(Layer(within, (r, g, b), mark=False, multiply=True))
        cover = _worn(rng, soft, 0.4) * rng.uniform(0.35, 0.9)
        layers.append(Layer(cover, (r, g, b), multiply=rng.random() < 0.7))
    return layers


_DRAWN: dict[str, Callable[[np.random.Generator, int, int], list[Layer]]] = {
    "scratches": _scratches,
    "lines": _film_lines,
    "dust": _dust,
    "hairs": _hairs,
    "folds": _folds,
    "stains": _stains,
}

KINDS = tuple(_DRAWN)
"""Kinds of marks that :func:`draw_marks` knows."""


def draw_marks(kind: str, height: int, width: int, rng: np.random.Generator) -> list[Layer]:
    """Draw what time leaves on a photo of a size, the lowest layer first.

    Args:
        kind: One of :data:`KINDS`: ``"scratches"``, ``"lines"`` (along a film's run), ``"dust"``,
            ``"hairs"``, ``"folds"``, or ``"stains"`` (of which the rim is the mark).
        height: Of the photo.
        width: Of the photo.
        rng: Draws everything.

    Raises:
        ValueError: The kind is not known.
    """
    if kind not in _DRAWN:
        raise ValueError(f"kind {kind!r} is not known; choose from {', '.join(KINDS)}")
    return _DRAWN[kind](rng, height, width)
