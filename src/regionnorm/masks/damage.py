"""Photos as an old album has them: faded, grained, scanned, and with marks of which all are known.

For training a network that finds the marks, and for measuring how many it finds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.masks.marks import KINDS, Layer, blurred, draw_marks, smooth_noise

__all__ = ["FAINT", "VISIBLE", "Damaged", "damage_photo"]

Pixels = npt.NDArray[np.uint8]
_Image = npt.NDArray[np.float32]

VISIBLE = 16  # gray levels of 255 by which a mark changes a pixel: from here on it is one to find
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_COVERED = 0.25  # opacity from which a pixel belongs to a mark, whatever it changes
FAINT = 6  # below this it is none; between the two a finder is neither right nor wrong


@dataclass(frozen=True)
class Damaged:
    """A photo with marks, and where they are."""

    image: Pixels
    """What a scanner gives, uint8 ``[H, W, 3]``."""
    change: Pixels
    """Gray levels by which the marks change each pixel's strongest channel, uint8 ``[H, W]``."""
    covered: npt.NDArray[np.bool_]
    """Where a mark lies, seen or not: a white line on a white wall, bool ``[H, W]``."""

    @property
    def marks(self) -> npt.NDArray[np.bool_]:
        """The pixels that are visibly damaged, bool ``[H, W]``."""
        return self.change >= VISIBLE

    @property
    def faint(self) -> npt.NDArray[np.bool_]:
        """The pixels that are hardly damaged, bool ``[H, W]``: soft rims, weak marks."""
        return (self.change >= FAINT) & (self.change < VISIBLE)


def damage_photo(
    photo: Pixels, rng: np.random.Generator, *, kinds: Sequence[str] | None = None
) -> Damaged:
    """Age a photo, put marks on it, and scan it.

    The marks are blurred, grained and compressed along with the photo, so that they are no
    sharper than it is.

    Args:
        photo: uint8 ``[H, W, 3]``.
        rng: Draws everything: the same state gives the same result.
        kinds: Kinds of marks, each of which is drawn; none for an undamaged old photo; None for
            one to four by chance, and for a sixth of the photos none.

    Raises:
        ValueError: A kind is not known.
    """
    height, width = photo.shape[:2]
    if kinds is None:
        kinds = _some_kinds(rng)
    base = _aged(photo.astype(np.float32) / np.float32(255), rng)
    marked = base
    covered = np.zeros((height, width), np.bool_)
    for kind in kinds:
        for layer in draw_marks(kind, height, width, rng):
            marked = _laid(marked, layer)
            if layer.mark:
                covered |= layer.cover > _COVERED
            else:
                base = _laid(base, layer)
    base, marked = _through_lens(base, marked, rng)
    change = np.abs(marked - base).max(2)
    levels = np.rint(change.clip(0, 1) * 255).astype(np.uint8)
    return Damaged(_scanned(marked, rng), levels, covered)


def _some_kinds(rng: np.random.Generator) -> list[str]:
    if rng.random() < 1 / 6:
        return []
    count = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.35, 0.2, 0.1]))
    shares = np.array([3, 1.5, 3, 2, 1.5, 1])
    return [str(kind) for kind in rng.choice(KINDS, count, replace=False, p=shares / shares.sum())]


def _laid(image: _Image, layer: Layer) -> _Image:
    cover = layer.cover[..., None]
    colour = np.array(layer.colour, np.float32)
    return image + cover * ((image * colour if layer.multiply else colour) - image)


def _aged(image: _Image, rng: np.random.Generator) -> _Image:
    """Tone, fading and grain of the print itself."""
    chance = rng.random()
    if chance < 0.45:
        gray = image @ _LUMA
        tint = np.ones(3)
        if chance < 0.25:
            tint = 1 + rng.uniform(0.2, 1) * np.array((0.08, 0.0, -0.18))
        image = gray[..., None] * tint.astype(np.float32)
    if rng.random() < 0.5:
        gain = rng.uniform(0.4, 1.05, 1) + rng.normal(0, 0.03, 3)
        lift = rng.uniform(0, 0.3) + rng.normal(0, 0.02, 3)
        image = image * gain.astype(np.float32) + (lift * (1 - gain)).astype(np.float32)
    if rng.random() < 0.3:
        image = np.power(image.clip(0, 1), np.float32(rng.uniform(0.7, 1.5)))
    if rng.random() < 0.5:
        image = image + _grain(rng, image.shape, rng.uniform(0.004, 0.05), rng.uniform(0, 1.1))
    if rng.random() < 0.15:
        height, width = image.shape[:2]
        patches = smooth_noise(rng, height, width, rng.uniform(20, 100))[..., None]
        image = image * (1 - np.float32(rng.uniform(0, 0.25)) * patches)
    return image.clip(0, 1).astype(np.float32)


def _grain(
    rng: np.random.Generator, shape: tuple[int, ...], strength: float, sigma: float
) -> _Image:
    """Noise of a standard deviation, as coarse as ``sigma``, gray or coloured."""
    channels = 1 if rng.random() < 0.7 else 3
    noise = rng.standard_normal((*shape[:2], channels), np.float32)
    if sigma > 0.35:
        noise = blurred(noise, sigma) * np.float32(2 * math.sqrt(math.pi) * sigma)
    return np.asarray(noise * np.float32(strength), np.float32)


def _through_lens(base: _Image, marked: _Image, rng: np.random.Generator) -> tuple[_Image, _Image]:
    """Blur the photo with and without marks alike, and bend its tones; scanners sharpen, too."""
    if rng.random() < 0.25:
        base, marked = (
            np.repeat((image @ _LUMA)[..., None], 3, axis=2) for image in (base, marked)
        )
    both = np.concatenate([base, marked], 2)
    if rng.random() < 0.3:
        low, high = rng.uniform(0, 0.15), rng.uniform(0.8, 1)
        both = np.power(both.clip(0, 1), np.float32(rng.uniform(0.7, 1.4)))
        both = np.float32(low) + np.float32(high - low) * both
    if rng.random() < 0.6:
        both = blurred(both, rng.uniform(0.3, 1.1))
    if rng.random() < 0.2:
        both = both + np.float32(rng.uniform(0.2, 1.0)) * (both - blurred(both, 1.0))
    both = both.clip(0, 1)
    return both[..., :3], both[..., 3:]


def _scanned(image: _Image, rng: np.random.Generator) -> Pixels:
    """The scanner's noise, and a file's losses."""
    if rng.random() < 0.6:
        image = image + _grain(rng, image.shape, rng.uniform(0.002, 0.02), 0)
    pixels: Pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.5:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(45, 96)))
        pixels = np.array(Image.open(file).convert("RGB"))
    return pixels
