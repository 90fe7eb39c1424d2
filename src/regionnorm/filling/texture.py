"""Real texture for a network's fill, copied from the known part of the same photo.

A network that was trained for a short time gets colours and edges right and leaves large holes
smooth. Here every patch of the hole is matched with a wholly known patch of the photo, coarse to
fine (PatchMatch, Barnes et al. 2009), and the matches make up a collage of real pixels. From it
the fill gets

- grain, everywhere: fine detail, by 0.6 as strong as the photo has it around the hole; away from
  the hole's border it takes the place of as much of the network's own, which is threads rather
  than grain;
- the whole texture, away from the border and only where the surroundings are one even texture
  (gravel, fur, a lawn), the collage has the fill's colours and is no busier than the surroundings.

Colours, light and edges stay the network's. Needs numba.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm._extras import require
from regionnorm.ops.backend import numba_works

if TYPE_CHECKING:
    from regionnorm.filling.patchmatch import Level, Matches

__all__ = ["STRENGTH", "TEXTURE_BY_DEFAULT", "add_texture", "wants_texture"]

STRENGTH = 1.0
"""The default share of what is copied."""

TEXTURE_BY_DEFAULT = True
"""Whether fills get texture where nobody says yes or no and numba works."""

# The search.
_RADIUS = 3  # of a patch; what the compiled code uses too
_COARSEST = 32  # pixels of the shorter side, about, where the search begins
_MOST_LEVELS = 7
_LEAST_SOURCES = 64  # known patches; with fewer of them only repeated stamps could come out
_STEPS = (1, 2, 4, 1)  # distances of propagation in the passes between two collages
_ROUNDS = 2  # collages of a level
_COLLAGE_LEVELS = 2  # on coarser levels the fill itself is sharp, and matched as it is
_GUIDE_SIGMA, _GUIDE_WEIGHT = 3.0, 5.0  # low band of the fill; weight relative to one pixel's
_COARSE_SIGMA = 2.0
_DISTANCE_WEIGHT = 1e-4  # cost of a squared pixel of distance on the finest level
_REPEAT_WEIGHT = 0.3  # what the first repetition of a source adds to its cost, as a share
_SEARCH_LIMIT = 400_000  # patches; finer levels take over the matches of the level before

# What is copied.
_FINE_SIGMA, _TEXTURE_SIGMA = 1.0, 6.0  # grain and texture end there, in pixels
_FINE_CELL, _TEXTURE_CELL = 4, 16  # pixels; local energy is measured in such squares
_KNOWN_REACH, _HOLE_REACH = 32.0, 4.0  # pixels (sigma): how far energy is averaged
_GRAIN = 0.6  # share of grain, chosen by feature distance on validation photos
_MOST_GAIN = 1.5
_DEEP_SIGMA = 3.0  # pixels from the known part over which copied detail takes the network's place
_EVEN = 0.3  # variance of log energy at which trust in a texture is down to 1 / e
_FAR = 0.5  # the same for the squared error of colours, in units of the texture's energy ...
_LEAST_ERROR = 1e-4  # ... and a hundredth of the range besides
_NO_TRUST, _FULL_TRUST = 0.15, 0.45  # bricks and faces are about below, gravel and lawns above
_LEAST_CELLS = 8  # measured squares; of fewer nobody can say that they are even
_TINY = 1e-7  # energy far below that of 8-bit rounding

_Bool = npt.NDArray[np.bool_]


def wants_texture(choice: bool | None) -> bool:
    """Decide whether fills get texture.

    Args:
        choice: What the user said; None for the default, which is off where numba does not work.

    Raises:
        ImportError: ``choice`` is True and numba is missing; the message says how to install it.
    """
    if choice:
        require("numba", extra="fast")
    if choice is None:
        return TEXTURE_BY_DEFAULT and numba_works()
    return choice


def add_texture(
    image: Tensor,
    fill: Tensor,
    mask: Tensor,
    *,
    strength: float = STRENGTH,
    seed: int = 0,
    threads: int | None = None,
) -> Tensor:
    """Add texture from the known pixels to a fill.

    The same arguments give the same result, whatever the number of threads. A photo in which
    fewer than 64 patches of 7x7 pixels are wholly known keeps its fill as it is. Time grows with
    the hole's area; above some 400,000 pixels of hole the search stops at a coarser level, and
    only copying, which is quick, goes on to the finest.

    Args:
        image: The photo, float ``[B, 3, H, W]`` in [0, 1]. What lies under the hole is not read.
        fill: The network's fill, same shape.
        mask: 0/1 ``[B, 1, H, W]``, 1 = hole.
        strength: Share of the detail, 0 (the fill alone) to 1.
        seed: At least 0; chooses the random places where the search begins.
        threads: None for as many as PyTorch uses.

    Returns:
        float32 ``[B, 3, H, W]`` in [0, 1] on the fill's device: the photo outside the hole, the
        textured fill inside.

    Raises:
        ValueError: A shape does not fit, or ``strength`` or ``seed`` is out of range.
        ImportError: numba is missing; the message is the command that installs it.
    """
    _check(image, fill, mask, strength, seed)
    require("numba", extra="fast")
    count = torch.get_num_threads() if threads is None else threads
    with torch.no_grad():
        hole = mask.to("cpu") > 0.5
        known = image.detach().to("cpu", torch.float32)
        filled = torch.where(hole, fill.detach().to("cpu", torch.float32), known)
        results = [
            _textured(photo, place, strength, seed, count)
            for photo, place in zip(filled, hole[:, 0], strict=True)
        ]
    return torch.stack(results).to(fill.device)


def _check(image: Tensor, fill: Tensor, mask: Tensor, strength: float, seed: int) -> None:
    expected = [image.shape[0], 1, *image.shape[2:]]
    if image.ndim != 4 or image.shape[1] != 3 or fill.shape != image.shape:
        raise ValueError(
            f"image has shape {list(image.shape)} and fill {list(fill.shape)}; "
            "give both as [B, 3, H, W]"
        )
    if list(mask.shape) != expected:
        raise ValueError(f"mask has shape {list(mask.shape)}; this image needs {expected}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; give a number from 0 to 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or more")


def _textured(filled: Tensor, hole: Tensor, strength: float, seed: int, threads: int) -> Tensor:
    """One photo with its fill, float32 ``[3, H, W]``, and the hole, bool ``[H, W]``."""
    if strength == 0 or not hole.any():
        return filled
    rows, columns = _window(hole)
    part, place = filled[:, rows, columns], hole[rows, columns]
    collage = _make_collage(part, place, seed, threads)
    if collage is None:
        return filled
    detail = _detail(part, place, collage) * strength
    result = filled.clone()
    result[:, rows, columns] = torch.where(place, (part + detail).clamp(0, 1), part)
    return result


def _window(hole: Tensor) -> tuple[slice, slice]:
    """The hole and as much around it as its matches may come from."""
    spans = []
    sides = [torch.nonzero(hole.any(dim=1 - dim))[:, 0] for dim in (0, 1)]
    longest = max(int(side[-1] - side[0]) + 1 for side in sides)
    margin = max(64, longest // 2)
    for side in sides:
        spans.append(slice(max(0, int(side[0]) - margin), int(side[-1]) + 1 + margin))
    return spans[0], spans[1]


# --- filters --------------------------------------------------------------------------------------


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of ``[C, H, W]`` up to 3 sigma, the border repeated.

    Shifted sums: every pixel is added up in the same order, whatever the number of threads.
    """
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (shift / sigma) ** 2) for shift in range(-reach, reach + 1)]
    total = sum(weights)
    for dim, padding in ((1, (0, 0, reach, reach)), (2, (reach, reach, 0, 0))):
        padded = F.pad(x[None], padding, mode="replicate")[0]
        x = torch.zeros_like(x)
        for shift, weight in enumerate(weights):
            x.add_(padded.narrow(dim, shift, x.shape[dim]), alpha=weight / total)
    return x


def _halve(filled: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """The next coarser level; a pixel is hole if any of its four is."""
    odd = (0, filled.shape[2] % 2, 0, filled.shape[1] % 2)
    small = F.avg_pool2d(F.pad(filled[None], odd, mode="replicate"), 2)[0]
    holes = F.max_pool2d(hole[None].float(), 2, ceil_mode=True)[0] > 0
    return small, holes


def _dilate(hole: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(hole[None].float(), 2 * radius + 1, stride=1, padding=radius)[0] > 0


# --- the collage ----------------------------------------------------------------------------------


class _Search:
    """What the passes of one level share."""

    def __init__(self, filled: Tensor, hole: Tensor, depth: int, rng: np.random.Generator) -> None:
        self.filled, self.hole, self.depth, self.rng = filled, hole, depth, rng
        self.sources = _source_centres(hole)
        self.places = np.argwhere(self.sources).astype(np.int32)
        targets = np.argwhere(_dilate(hole, _RADIUS).numpy()).astype(np.int32)
        self.rows, self.columns = (np.ascontiguousarray(targets[:, axis]) for axis in (0, 1))
        self.patch_at = np.full(hole.shape, -1, np.int32)
        self.patch_at[self.rows, self.columns] = np.arange(len(targets), dtype=np.int32)
        self.guide = _blur(filled, _GUIDE_SIGMA).permute(1, 2, 0).contiguous().numpy()

    def start(self, coarser: _Search | None, found: Matches | None) -> Matches:
        """Matches to begin with: those of the coarser level, random ones where it has none."""
        from regionnorm.filling.patchmatch import Matches

        random = self.places[self.rng.integers(len(self.places), size=len(self.rows))]
        rows, columns = random[:, 0].copy(), random[:, 1].copy()
        if coarser is not None and found is not None:
            patch = coarser.patch_at[self.rows // 2, self.columns // 2]
            row = found.rows[patch] * 2 + self.rows % 2
            column = found.columns[patch] * 2 + self.columns % 2
            row = np.minimum(row, self.sources.shape[0] - 1)
            column = np.minimum(column, self.sources.shape[1] - 1)
            good = (patch >= 0) & self.sources[row, column]
            rows, columns = np.where(good, row, rows), np.where(good, column, columns)
        return Matches(rows, columns, np.zeros(len(rows), np.float32))

    def paste(self, found: Matches) -> Tensor:
        """Put the centre of its match in the place of every hole pixel."""
        row, column = torch.nonzero(self.hole, as_tuple=True)
        patch = self.patch_at[row.numpy(), column.numpy()]
        pixels = self.filled.clone()
        pixels[:, row, column] = self.filled[:, found.rows[patch], found.columns[patch]]
        return pixels

    def level(self, pixels: Tensor | None) -> Level:
        """Arrays for the compiled passes; ``pixels`` None compares low bands alone."""
        from regionnorm.filling.patchmatch import Level

        if pixels is None:
            current = candidates = _blur(self.filled, _COARSE_SIGMA)
        else:
            current, candidates = pixels, self.filled
        return Level(
            _rows_of_patches(current),
            _rows_of_patches(candidates),
            self.guide,
            np.float32(0 if pixels is None else _GUIDE_WEIGHT),
            np.float32(_DISTANCE_WEIGHT * 4**self.depth),
            self.sources,
            self.rows,
            self.columns,
            self.patch_at,
        )

    def repeats(self, found: Matches) -> npt.NDArray[np.float32]:
        """Factor of a source's cost: above 1 where patches copy it more often than they need to."""
        height, width = self.hole.shape
        uses = np.bincount(found.rows * width + found.columns, minlength=height * width)
        counts = torch.from_numpy(uses.astype(np.float32)).view(1, height, width)
        # The mean over a patch: 1 where a piece of texture is copied once as a whole.
        mean = F.avg_pool2d(counts, 2 * _RADIUS + 1, stride=1, padding=_RADIUS)[0]
        needed = max(1.0, len(self.rows) / len(self.places))
        factor: npt.NDArray[np.float32] = (
            1 + _REPEAT_WEIGHT * (mean / needed - 1).clamp(min=0)
        ).numpy()
        return factor


def _source_centres(hole: Tensor) -> _Bool:
    """Centres of patches that lie wholly in the photo and outside the hole, bool ``[H, W]``."""
    known = F.pad(~hole, (1, 1, 1, 1))  # beyond the border nothing is known
    inside: _Bool = ~_dilate(~known, _RADIUS)[1:-1, 1:-1].numpy()
    return np.ascontiguousarray(inside)


def _rows_of_patches(pixels: Tensor) -> npt.NDArray[np.float32]:
    """``[3, H, W]`` as padded rows of interleaved colours: a patch's row is one run of memory."""
    padded = F.pad(pixels[None], (_RADIUS,) * 4, mode="replicate")[0]
    return padded.permute(1, 2, 0).flatten(1).contiguous().numpy()


def _make_collage(filled: Tensor, hole: Tensor, seed: int, threads: int) -> Tensor | None:
    """Real pixels in the hole, the photo outside, ``[3, H, W]``; None if too little is known."""
    if np.count_nonzero(_source_centres(hole)) < _LEAST_SOURCES:
        return None
    rng = np.random.default_rng(seed)
    levels = [(filled, hole)]
    while len(levels) < _MOST_LEVELS and min(levels[-1][1].shape) >= 2 * _COARSEST:
        levels.append(_halve(*levels[-1]))
    search: _Search | None = None
    found: Matches | None = None
    for depth in reversed(range(len(levels))):
        finer = _Search(*levels[depth], depth, rng)
        if len(finer.places) < _LEAST_SOURCES:
            continue
        found = _match(finer, finer.start(search, found), threads)
        search = finer
    return None if search is None or found is None else search.paste(found)


def _match(search: _Search, found: Matches, threads: int) -> Matches:
    """The passes of one level, from the matches to begin with to the best ones found."""
    from regionnorm.filling.patchmatch import improve, measure

    collage = search.depth < _COLLAGE_LEVELS
    if len(search.rows) > _SEARCH_LIMIT:
        return found
    reach = max(search.hole.shape) // 2
    for number in range(_ROUNDS):
        level = search.level(search.paste(found) if collage else None)
        found = measure(level, found, threads)
        for step in _STEPS:
            found = improve(
                level,
                found,
                search.repeats(found),
                step=step if number == 0 else 1,
                radius=reach if number == 0 else 8,
                seed=int(search.rng.integers(2**32)),
                threads=threads,
            )
    return found


# --- the detail -----------------------------------------------------------------------------------


def _detail(filled: Tensor, hole: Tensor, collage: Tensor) -> Tensor:
    """What to add to the fill, float32 ``[3, H, W]``, 0 outside the hole."""
    # Near the border the fill's own detail is the photo's, continued; deeper it is invention.
    deep = (2 * _blur(hole[None].to(filled.dtype), _DEEP_SIGMA) - 1).clamp(min=0)
    low, collage_low = _blur(filled, _TEXTURE_SIGMA), _blur(collage, _TEXTURE_SIGMA)
    own, copied = filled - low, collage - collage_low
    weight = deep * _texture_weight(own, copied, collage_low - low, hole)
    grain = _GRAIN * _grain(filled, hole, collage, deep)
    return (weight * (copied - own) + (1 - weight) * grain) * hole


def _grain(filled: Tensor, hole: Tensor, collage: Tensor, deep: Tensor) -> Tensor:
    """Fine detail as strong as around the hole, in the place of the fill's own where ``deep``."""
    fine = collage - _blur(collage, _FINE_SIGMA)
    own = filled - _blur(filled, _FINE_SIGMA)
    expected, _ = _surroundings(own, hole, 3 * _FINE_SIGMA, _FINE_CELL)
    gain = _gain(expected, fine, hole, _FINE_CELL).clamp(max=_MOST_GAIN)
    return _enlarge(gain, _FINE_CELL, hole) * fine - deep * own


def _texture_weight(own: Tensor, copied: Tensor, error: Tensor, hole: Tensor) -> Tensor:
    """Where the collage's texture may be trusted, ``[1, H, W]`` from 0 to 1.

    Args:
        own: The photo's and the fill's detail, ``[3, H, W]``.
        copied: The collage's.
        error: How far the collage's colours are from the fill's.
        hole: bool ``[H, W]``.
    """
    expected, spread = _surroundings(own, hole, _TEXTURE_SIGMA, _TEXTURE_CELL)
    even = torch.exp(-spread / _EVEN)
    # A busier collage has copied an edge or an object, such as the tripod's leg beside the lawn.
    calm = _gain(expected, copied, hole, _TEXTURE_CELL).clamp(max=1)
    errors = _hole_energy(error, hole, _TEXTURE_CELL)
    near = torch.exp(-errors / (_FAR * torch.exp(expected) + _LEAST_ERROR))
    trust = (even * calm * near - _NO_TRUST) / (_FULL_TRUST - _NO_TRUST)
    return _enlarge(trust.clamp(0, 1), _TEXTURE_CELL, hole)


def _surroundings(band: Tensor, hole: Tensor, reach: float, cell: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the log energy of a band in the known part around each cell.

    Logarithms, so that one sharp edge does not count for a whole smooth wall. ``reach`` is how
    far the band looks in pixels: what is closer to the hole is left out. The variance is infinite
    where too little is known to tell.
    """
    energy, share = _cells(band, ~_dilate(hole, math.ceil(reach)), cell)
    logs, weight = torch.log(energy + _TINY), (share > 0.5).to(energy.dtype)
    moments = torch.cat([weight, logs * weight, logs.square() * weight])
    total = moments.sum((1, 2), keepdim=True)
    # Deep in a hole, where nothing known is near, the mean of the whole window decides.
    moments = _blur(moments, _KNOWN_REACH / cell) + 1e-3 * total / total[:1].clamp(min=1)
    mean, square = (moments[1:] / moments[:1].clamp(min=1e-9)).unbind()
    spread = (square - mean.square()).clamp(min=0)
    if total[0] < _LEAST_CELLS:
        spread = torch.full_like(spread, torch.inf)
    return mean[None], spread[None]


def _gain(expected: Tensor, copied: Tensor, hole: Tensor, cell: int) -> Tensor:
    """Factor that gives a copied band the expected log energy, for each cell."""
    energy = _hole_energy(copied, hole, cell)
    return torch.exp(0.5 * (expected - torch.log(energy + _TINY)))


def _hole_energy(band: Tensor, hole: Tensor, cell: int) -> Tensor:
    """Mean energy of a band in the hole around each cell, its neighbours outside included."""
    energy, share = _cells(band, hole, cell)
    reach = _HOLE_REACH / cell
    return _blur(energy * share, reach) / (_blur(share, reach) + 1e-6)


def _cells(band: Tensor, where: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Mean energy of a band over the pixels of ``where`` in each cell, and their share of it."""
    weight = where[None].to(band.dtype)
    padding = (0, -where.shape[1] % cell, 0, -where.shape[0] % cell)
    energy = F.avg_pool2d(F.pad(band.square().mean(0, keepdim=True) * weight, padding), cell)
    share = F.avg_pool2d(F.pad(weight, padding), cell)
    return energy / share.clamp(min=1e-6), share


def _enlarge(cells: Tensor, cell: int, hole: Tensor) -> Tensor:
    """Cells ``[1, h, w]`` as pixels ``[1, H, W]``, without steps."""
    size = (cells.shape[1] * cell, cells.shape[2] * cell)
    smooth = F.interpolate(cells[None], size=size, mode="bilinear", align_corners=False)[0]
    return smooth[:, : hole.shape[0], : hole.shape[1]]
