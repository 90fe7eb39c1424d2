"""A second way to make old photos, to test with what the network of auto:scratches never saw.

It shares nothing with ``regionnorm.masks.damage``, on whose photos that network is trained: curves
are Béziers, splines and roses rather than walks, strokes are drawn by OpenCV, light is added and
absorbed in linear light, a fold shifts the picture, and grain has several octaves and is strongest
in the middle tones. Only the rule is the same by which a pixel counts as marked: the marks change
it by 16 gray levels of 255 or more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Rng = np.random.Generator
_SCALE = 3  # strokes are drawn so much finer
_BITS = 4  # of a pixel's fraction, for OpenCV


class OldPhoto(NamedTuple):
    """A photo with marks."""

    image: Pixels
    """uint8 ``[H, W, 3]``."""
    marks: npt.NDArray[np.bool_]
    """Where they change it by 16 levels or more, ``[H, W]``."""
    any_change: npt.NDArray[np.bool_]
    """Where they change it by 6 levels or more."""


def old_photo(photo: Pixels, rng: Rng, kinds: list[str]) -> OldPhoto:
    """Age a photo and put each kind of mark on it.

    Args:
        photo: uint8 ``[H, W, 3]``.
        rng: Draws everything.
        kinds: Some of ``MAKERS``' names.
    """
    light = (photo.astype(np.float32) / 255) ** np.float32(2.2)
    light = _print(light, rng)
    marked = light
    for kind in kinds:
        light, marked = MAKERS[kind](light, marked, rng)
    sigma = float(rng.choice([0, 0.4, 0.7, 1.0]))
    if sigma:
        light, marked = (cv2.GaussianBlur(one, (0, 0), sigma) for one in (light, marked))
    low, high = rng.uniform(0, 0.12), rng.uniform(0.82, 1.0)

    def scan(one: Any) -> Any:
        return low + (high - low) * one.clip(0, 1) ** np.float32(1 / 2.2)

    clean, seen = scan(light), scan(marked)
    change = np.abs(seen - clean).max(2) * 255
    pixels = np.rint((seen + _grain(clean, rng)).clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(55, 97))
        coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    return OldPhoto(pixels, change >= 16, change >= 6)


def _print(light: Plane, rng: Rng) -> Plane:
    """A print's colours: black and white, brown, or a faded colour print; darker corners."""
    style = rng.choice(["colour", "gray", "sepia", "faded"], p=[0.25, 0.3, 0.25, 0.2])
    if style in ("gray", "sepia"):
        level = (light @ np.array((0.21, 0.72, 0.07), np.float32))[..., None]
        power = np.array((0.85, 1.0, 1.25) if style == "sepia" else (1, 1, 1), np.float32)
        light = np.power(level, power)
    if style == "faded":
        dyes = rng.uniform(0.45, 1.0, 3).astype(np.float32)
        light = np.power(light.clip(1e-4, 1), dyes)
    if rng.random() < 0.3:
        height, width = light.shape[:2]
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        light = light * (1 - rng.uniform(0.1, 0.5) * (x**2 + y**2) / 2)[..., None]
    return np.asarray(light, np.float32)


def _octaves(rng: Rng, shape: tuple[int, int], cells: list[float]) -> Plane:
    """Noise of several sizes, zero mean, about unit variance."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for cell in cells:
        small = max(2, round(height / cell)), max(2, round(width / cell))
        noise = rng.normal(0, 1, small).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def _grain(clean: Plane, rng: Rng) -> Plane:
    strength = rng.choice([0, rng.uniform(0.005, 0.03)], p=[0.2, 0.8])
    noise = _octaves(rng, clean.shape[:2], [1.0, rng.uniform(1.4, 2.2)])[..., None]
    tone = clean.mean(2, keepdims=True)
    return np.asarray(strength * noise * (0.35 + 2.6 * tone * (1 - tone)), np.float32)


# --- strokes -------------------------------------------------------------------------------------


def _strokes(shape: tuple[int, int], lines: list[tuple[Any, float]], soft: float = 0.0) -> Plane:
    """Cover in [0, 1] of lines, each points ``[n, 2]`` as x, y, and a width."""
    height, width = shape
    canvas = np.zeros((height * _SCALE, width * _SCALE), np.uint8)
    for points, thick in lines:
        fixed = np.rint(points * _SCALE * 2**_BITS).astype(np.int32)
        cv2.polylines(
            canvas, [fixed], False, 255, max(1, round(thick * _SCALE)), cv2.LINE_AA, _BITS
        )
    cover = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)
    return np.asarray(cv2.GaussianBlur(cover, (0, 0), soft) if soft else cover, np.float32)


def _pieces(points: Any, widths: Any) -> list[tuple[Any, float]]:
    """A line of changing width as short lines."""
    return [(points[at : at + 4], float(widths[at])) for at in range(0, len(points) - 1, 3)]


def _bezier(rng: Rng, shape: tuple[int, int]) -> Any:
    height, width = shape
    start = rng.uniform(-0.1, 1.1, 2) * (width, height)
    reach = rng.normal(0, 0.35, 2) * (width, height)
    end = start + reach
    bow = rng.normal(0, rng.choice([0.01, 0.08, 0.3])) * np.array((-reach[1], reach[0]))
    first, second = start + reach / 3 + bow, start + 2 * reach / 3 + bow * rng.normal(1, 0.4)
    t = np.linspace(0, 1, 60)[:, None]
    return (
        (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second
        + t**3 * end
    )  # fmt: skip


def _lay(image: Plane, cover: Plane, rng: Rng, *, bright: float = 0.5) -> Plane:
    """Add light or absorb it: what lies on a print scatters, a hole in a negative shines."""
    cover = cover[..., None]
    if rng.random() < bright:
        glow = np.array((1, rng.uniform(0.9, 1), rng.uniform(0.8, 1)), np.float32)
        if rng.random() < 0.1:
            glow = rng.choice([0.05, 1.0], 3).astype(np.float32)
        strength = np.float32(rng.uniform(0.5, 1.0))
        return np.asarray(1 - (1 - image) * (1 - strength * cover * glow), np.float32)
    density = np.float32(rng.uniform(1.2, 4))
    tint = np.array((1, rng.uniform(0.9, 1.2), rng.uniform(0.9, 1.5)), np.float32)
    return np.asarray(image * np.exp(-density * cover * tint), np.float32)


def _interrupted(cover: Plane, rng: Rng, chance: float = 0.4) -> Plane:
    if rng.random() > chance:
        return cover
    noise = _octaves(rng, cover.shape, [rng.uniform(5, 25)])
    return np.asarray(cover / (1 + np.exp(-6 * (noise + 0.5))), np.float32)


Pair = tuple[Plane, Plane]


def _scratches(light: Plane, marked: Plane, rng: Rng) -> Pair:
    shape = light.shape[:2]
    for _ in range(int(rng.integers(2, 6))):
        points = _bezier(rng, shape)
        thick = float(rng.choice([0.8, 1.2, 2, 3, 4.5], p=[0.2, 0.3, 0.25, 0.15, 0.1]))
        profile = thick * (0.5 + 0.5 * np.abs(np.sin(np.linspace(0, rng.uniform(1.5, 9), 60))))
        lines = _pieces(points, profile) if rng.random() < 0.6 else [(points, thick)]
        cover = _interrupted(_strokes(shape, lines, float(rng.choice([0, 0.5]))), rng)
        marked = _lay(marked, cover, rng, bright=0.65)
    return light, marked


def _film_lines(light: Plane, marked: Plane, rng: Rng) -> Pair:
    """Gaussian profiles down the picture, with a strength that comes and goes."""
    height, width = light.shape[:2]
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)
    for _ in range(int(rng.integers(2, 7))):
        middle = rng.uniform(0, width) + rng.uniform(0, 0.8) * np.sin(y / rng.uniform(15, 80))
        profile = np.exp(-0.5 * ((x - middle[:, None]) / rng.uniform(0.4, 1.1)) ** 2)
        along = np.interp(y, np.linspace(0, height, 9), rng.uniform(0.3, 1, 9))
        if rng.random() < 0.4:
            along[: int(rng.uniform(0, 0.6) * height)] = 0
        cover = (profile * along[:, None]).astype(np.float32)
        marked = _lay(marked, cover, rng, bright=0.6)
    return light, marked


def _dust(light: Plane, marked: Plane, rng: Rng) -> Pair:
    """Specks whose outline is a circle warped by noise."""
    height, width = light.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    count = int(rng.integers(10, 60) * height * width / 256**2)
    for sign in (0.0, 1.0):
        cover = np.zeros((height, width), np.float32)
        warp = _octaves(rng, (height, width), [3.0, 6.0])
        for _ in range(count // 2):
            cx, cy = rng.uniform(0, width), rng.uniform(0, height)
            radius = min(6.0, 0.8 + rng.exponential(1.1))
            side = int(radius * 3) + 3
            rows = slice(max(0, int(cy) - side), int(cy) + side)
            columns = slice(max(0, int(cx) - side), int(cx) + side)
            stretch = rng.uniform(0.6, 1.6)
            distance = np.hypot((x[rows, columns] - cx) * stretch, y[rows, columns] - cy)
            edge = (radius - distance) * 1.8 + 0.6 * warp[rows, columns]
            cover[rows, columns] = np.maximum(cover[rows, columns], edge.clip(0, 1))
        marked = _lay(marked, cover, rng, bright=sign)
    return light, marked


def _hairs(light: Plane, marked: Plane, rng: Rng) -> Pair:
    """Splines through a few points, and parts of roses, which have loops."""
    shape = height, width = light.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        centre, size = rng.random(2) * (width, height), rng.uniform(10, 60)
        if rng.random() < 0.5:
            t = np.linspace(0, rng.uniform(1.5, 5), 120)
            radius = size * np.cos(rng.uniform(0.3, 1.4) * t + rng.uniform(0, 3))
            points = centre + np.stack([radius * np.cos(t), radius * np.sin(t)], 1)
        else:
            knots = centre + np.cumsum(rng.normal(0, size * 0.6, (6, 2)), 0)
            t = np.linspace(0, 5, 120)
            weights = np.exp(-2.0 * (t[:, None] - np.arange(6)) ** 2)
            points = (weights / weights.sum(1, keepdims=True)) @ knots
        cover = _strokes(shape, [(points, rng.uniform(0.8, 2.2))], float(rng.choice([0, 0.5])))
        marked = _lay(marked, cover, rng, bright=0.45)
    return light, marked


def _folds(light: Plane, marked: Plane, rng: Rng) -> Pair:
    """A crack across the paper: the picture is shifted beyond it, its sides catch the light."""
    height, width = light.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = float(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
    offset = rng.uniform(-0.3, 0.3) * min(height, width)
    distance = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle) - offset
    distance += 0.5 * _octaves(rng, (height, width), [20.0])
    shift = rng.normal(0, 1.2, 2).astype(np.float32) * (distance > 0)[..., None]
    slope = rng.uniform(0, 0.12) * np.exp(-np.abs(distance) / 25) * np.sign(distance)
    light, marked = (
        cv2.remap(one, x + shift[..., 0], y + shift[..., 1], cv2.INTER_LINEAR)
        * (1 + slope)[..., None].astype(np.float32)
        for one in (light, marked)
    )
    half = rng.uniform(0.5, 2.0) * (1 + 0.5 * _octaves(rng, (height, width), [2.0, 5.0]))
    crack = (half - np.abs(distance) + 0.5).clip(0, 1).astype(np.float32)
    shadow = np.exp(-0.5 * ((distance - half.mean() - 1) / 0.8) ** 2).astype(np.float32)
    marked = marked * (1 - np.float32(rng.uniform(0.2, 0.6)) * shadow)[..., None]
    return light, _lay(marked, _interrupted(crack, rng), rng, bright=0.85)


def _stains(light: Plane, marked: Plane, rng: Rng) -> Pair:
    """A drop's rim: steep outside, slow inside."""
    height, width = light.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = rng.uniform(0.1, 0.9, 2) * (width, height)
    radius = rng.uniform(15, 90)
    distance = radius - np.hypot(x - centre[0], y - centre[1])
    distance += radius * 0.12 * _octaves(rng, (height, width), [radius * 0.7, radius * 0.3])
    inside = (distance + 0.5).clip(0, 1)
    rim = inside * np.exp(-distance.clip(0) / rng.uniform(1.0, 2.5))
    tint = np.array((0.5, 0.9, 1.4), np.float32) * np.float32(rng.uniform(0.6, 1.6))
    within = np.exp(-rng.uniform(0, 0.08) * inside[..., None] * tint)
    ring = np.exp(-rim[..., None] * tint)
    return np.asarray(light * within, np.float32), np.asarray(marked * within * ring, np.float32)


MAKERS: dict[str, Callable[[Plane, Plane, Rng], Pair]] = {
    "scratches": _scratches,
    "lines": _film_lines,
    "dust": _dust,
    "hairs": _hairs,
    "folds": _folds,
    "stains": _stains,
}
