"""What goes where in a hole, decided on a small copy of the photo: a map of shifts.

Pritch, Kav-Venaki and Peleg, "Shift-map image editing" (ICCV 2009): every pixel of the hole takes
one of few offsets, and a graph cut places the seams between them. Copying by large coherent
pieces carries through what patches of a few pixels do not see: rows of windows, stripes, shores.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion import graph_cut, maxflow, offsets, patchmatch
from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.planes import PlaneShift, plane_shifts
from regionnorm.filling.completion.pyramid import blur, clear_of, continued
from regionnorm.filling.completion.surroundings import strangeness
from regionnorm.masks.regions import dilate_square, label_regions
from regionnorm.stopping import stop_if_asked

__all__ = ["Scene", "choose_offsets", "source_centres"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

# The ring around a hole.
_RING = 4  # pixels
_ARCS = 8
_MOST_PARTS = 4  # separate holes of a window that are looked at one by one, the largest ones
_MOST_RING, _MOST_PLANE_RING = 800, 300  # pixels of a ring that are compared
_MOST_DIFFERENCE = 0.8  # what a pixel without a partner counts
_WHOLE_PEAKS, _ARC_PEAKS = 16, 8

# Repetitions of the known part.
_DOMINANT = 40
_FAR = 6  # pixels to a match, at least
_NEAR = 16  # pixels around the hole where matches are counted, at least
_SCANS = 6
_LEAST_SOURCES = 64

_APART = 3  # pixels between offsets

# What a piece costs at a pixel.
_BORDER = 3.0  # weight of what it differs by from the known pixels beside the hole
_BORDER_REACH = 2
_DISTANCE = 0.05  # of an offset as long as the picture
_OTHER_PLANE = 0.03  # of a shift within a plane
_OTHER_VIEW = 0.05  # of a piece that is mirrored or of another size
_EXPECTED = 0.3  # weight of what its blurred colours differ by from what is expected there
_MOST_UNEXPECTED = 0.5
_BLURS = 8
_TEXTURE = 0.1  # weight of what its busyness differs by from what is expected there
_LEAST_BUSY = 0.02
_STRANGE = 1.0  # weight of what it differs by from what is like it around the hole
_MOST_STRANGE = 1.0
_AROUND, _MOST_AROUND = 6, 400  # pixels from the hole that count, and how many in all parts
_ALIKE = 0.05  # share of those that has to be like it
_STRANGE_BUSY = 2.0  # weight of busyness beside colour
_NETWORK, _BLURRED = 1.0, 2.0  # cost of the network's fill, and of what it is too smooth by
_POTTS = 0.1  # of a seam
_ORDERS = 4  # in which the candidates are offered, at most; what they lead to is fused
_MOST_OFFERS = 2_500_000  # of a candidate to a pixel in all orders, but for the first one
_MOST_PRICED, _FEWEST = 16_000_000, 16  # candidates at all pixels, and candidates
_VARIETY = 0.3  # at most, of a candidate that a seed above 0 dislikes


class Scene(NamedTuple):
    """A small copy of a photo, H x W pixels.

    Attributes:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        busyness: float32 ``[H, W, 2]``, see :func:`~.pyramid.busyness`.
        hole: bool ``[H, W]``: what nobody may copy.
        place: bool ``[H, W]``: the part of it that is filled.
        width: Columns of the photo itself; what is further right are other views of it.
        painted: A network's fill is painted in the hole, and not only a smooth continuation.
        lines: float64 ``[K, 3]``: where planes vanish, see :func:`~.vanishing.vanishing_lines`.
    """

    pixels: Floats
    busyness: Floats
    hole: Place
    place: Place
    width: int
    painted: bool
    lines: Doubles


class _Shift(NamedTuple):
    """The same way for all pixels."""

    down: int
    right: int

    def moved(self, rows: Places, columns: Places) -> tuple[Places, Places]:
        """Where pixels are shown from."""
        return rows + self.down, columns + self.right


_Move = _Shift | PlaneShift


def choose_offsets(scene: Scene, seed: int) -> tuple[Integers, Integers]:
    """Choose by how much to shift the photo for each pixel of the hole.

    Returns:
        int32 ``[H, W]`` twice: rows and columns to the known pixel that is shown instead; both 0
        outside the hole, and where what is painted is kept.
    """
    features = np.concatenate([scene.pixels, scene.busyness], axis=2)
    kinds = [
        np.zeros((1, 2), np.int32),
        *_ring_offsets(features, scene.hole, scene.place, scene.width),
    ]
    kinds.append(_repeated_offsets(scene, seed))
    candidates, first = np.unique(np.concatenate(kinds), axis=0, return_index=True)
    candidates = candidates[np.argsort(first)]  # the painted one, and then the best first
    moves: list[_Move] = [_Shift(int(down), int(right)) for down, right in candidates]
    moves += _plane_shifts(scene, features)
    most = max(_FEWEST, _MOST_PRICED // np.count_nonzero(scene.place))  # they take memory
    moves = moves[:most]
    values, costs = _offers(scene, features, moves)
    if seed > 0:  # another opinion of each candidate: else only details would differ
        opinions = np.random.default_rng(seed).random((len(moves), 1), dtype=np.float32)
        costs += np.float32(_VARIETY) * opinions
    neighbours = maxflow.neighbours_of(scene.place)
    chosen = _cheapest(values, costs, neighbours)
    down, right = (np.zeros(scene.hole.shape, np.int32) for _ in range(2))
    rows, columns = np.nonzero(scene.place)
    for number in np.unique(chosen):
        part = chosen == number
        to_rows, to_columns = moves[number].moved(rows[part], columns[part])
        down[rows[part], columns[part]] = to_rows - rows[part]
        right[rows[part], columns[part]] = to_columns - columns[part]
    return down, right


def _cheapest(values: Floats, costs: Floats, neighbours: Integers) -> Integers:
    """The best parts of several choices: each ends where no candidate improves it."""
    best: Integers | None = None
    for turn in range(min(_ORDERS, max(1, _MOST_OFFERS // costs.size))):
        stop_if_asked()
        order = np.arange(len(costs))
        if turn > 0:
            order = np.random.default_rng(turn).permutation(order)
        chosen = graph_cut.choose(values[order], costs[order], neighbours, potts=_POTTS)
        chosen = order[chosen].astype(np.int32)
        if best is not None:
            chosen = graph_cut.fuse(values, costs, neighbours, best, chosen, potts=_POTTS)
        best = chosen
    assert best is not None
    return best


def source_centres(hole: Place) -> Place:
    """Centres of patches that lie wholly in the photo and outside the hole."""
    return clear_of(hole, patchmatch.RADIUS)


# --- candidates -----------------------------------------------------------------------------------


def _ring_offsets(features: Floats, hole: Place, place: Place, width: int) -> list[Integers]:
    """Offsets at which what is around each separate hole meets the same again."""
    found = []
    for part in _largest_parts(place, _MOST_PARTS):
        ring = _ring(part, hole, _RING, _MOST_RING)
        if not ring.any():
            continue
        arc = offsets.arcs_of(ring, _ARCS)
        scores = offsets.ring_match(features, ~hole, ring, arc, _ARCS, _MOST_DIFFERENCE)
        found += _peaks_by_view(offsets.whole_ring(scores, arc), ring, width, _WHOLE_PEAKS)
        for one in scores:
            found += _peaks_by_view(one, ring, width, _ARC_PEAKS)
    return found


def _plane_shifts(scene: Scene, features: Floats) -> list[PlaneShift]:
    """Shifts within planes, for what is around the largest hole."""
    if len(scene.lines) == 0:
        return []
    photo = slice(scene.width)  # its other views are no part of a plane
    (largest,) = _largest_parts(scene.place, 1)
    ring = _ring(largest, scene.hole, _RING, _MOST_PLANE_RING)[:, photo]
    if not ring.any():
        return []
    pixels = np.ascontiguousarray(features[:, photo])
    known = ~scene.hole[:, photo]
    return plane_shifts(pixels, known, largest[:, photo], ring, scene.lines, _MOST_DIFFERENCE)


def _largest_parts(place: Place, most: int) -> list[Place]:
    """The separate parts of a place, the largest first."""
    parts, count = label_regions(place)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return [parts == number + 1 for number in np.argsort(-sizes, kind="stable")[:most]]


def _peaks_by_view(score: Floats, ring: Place, width: int, count: int) -> list[Integers]:
    """The best offsets into the photo, and as many into its other views."""
    kind = functools.partial(offsets.peaks, count=count, apart=_APART, least=_APART)
    columns = ring.shape[1]
    begin = columns - 1 + width - round(np.nonzero(ring)[1].mean())
    inside, beyond = score.copy(), score.copy()
    inside[:, begin:], beyond[:, :begin] = score.max(), score.max()
    return [kind(part) for part in (inside, beyond)]


def _ring(place: Place, hole: Place, reach: int, most: int) -> Place:
    """Known pixels around a place: as many as time allows to compare, evenly chosen."""
    ring = dilate_square(place, reach) & ~hole
    at = np.flatnonzero(ring)
    if len(at) <= most:
        return ring
    thin = np.zeros_like(ring)
    thin.flat[at[:: -(-len(at) // most)]] = True
    return thin


def _repeated_offsets(scene: Scene, seed: int) -> Integers:
    """Offsets at which the known part around the hole repeats itself."""
    hole = scene.hole
    sources = source_centres(hole)
    places = np.argwhere(sources).astype(np.int32)
    side = max(int(np.ptp(axis)) for axis in np.nonzero(scene.place)) + 1
    near = sources & dilate_square(scene.place, max(_NEAR, side // 2))
    patches = patchmatch.patches_at(near, sources)
    rows, columns = patches.rows, patches.columns
    if len(places) < _LEAST_SOURCES or len(rows) == 0:
        return np.zeros((0, 2), np.int32)
    start = places[np.random.default_rng(seed).integers(len(places), size=len(rows))]
    costs = np.zeros(len(rows), np.float32)
    field = patchmatch.Field(start[:, 0] - rows, start[:, 1] - columns, costs)
    flat, _ = patchmatch.padded_rows(scene.pixels)
    source = scene.pixels.reshape(len(scene.pixels), -1)
    patchmatch.measure(flat, source, patches, field)
    too_near = (np.abs(field.down) < _FAR) & (np.abs(field.right) < _FAR)
    costs[too_near] = patchmatch.NO_MATCH
    reach = max(hole.shape)
    patchmatch.improve(flat, source, patches, field, _SCANS, reach, _FAR, seed)
    good = costs < patchmatch.NO_MATCH
    score = offsets.repetitions(field.down[good], field.right[good], hole.shape)
    return offsets.peaks(score, _DOMINANT, apart=_APART, least=_APART)


# --- what they cost -------------------------------------------------------------------------------


def _offers(scene: Scene, features: Floats, moves: list[_Move]) -> tuple[Floats, Floats]:
    """What each candidate shows and costs at each pixel of the hole: ``[K, N, 5]``, ``[K, N]``."""
    hole = scene.hole
    height, width = hole.shape
    rows, columns = np.nonzero(scene.place)
    prices = _Prices(scene, features)
    values = np.empty((len(moves), len(rows), features.shape[2]), np.float32)
    costs = np.full(values.shape[:2], graph_cut.FORBIDDEN, np.float32)
    for number, move in enumerate(moves):
        if isinstance(move, _Shift) and not any(move):
            values[number], costs[number] = features[rows, columns], prices.of_painted()
            continue
        to_rows, to_columns = move.moved(rows, columns)
        inside = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
        at = to_rows.clip(0, height - 1), to_columns.clip(0, width - 1)
        shown = inside & ~hole[at]
        values[number] = features[at]
        costs[number, shown] = prices.of_copied(move, *at)[shown]
    return values, costs


class _Prices:
    """What a piece costs at each of the hole's N pixels, wherever it comes from."""

    def __init__(self, scene: Scene, features: Floats) -> None:
        self.scene = scene
        self.here = rows, columns = np.nonzero(scene.place)
        known = (~scene.hole).astype(np.float32)
        self.all = np.ones_like(known)
        self.low = blur(scene.pixels, known, _BLURS)
        self.busy = blur(scene.busyness, known, _BLURS)
        self.expected = blur(scene.pixels, self.all, _BLURS)[rows, columns]
        further = continued(scene.busyness, ~scene.hole)
        self.busy_there = blur(further, self.all, _BLURS)[rows, columns]
        self.calm = _LEAST_BUSY + self.busy_there.sum(axis=1)
        self.border = _Border(features, scene.hole, scene.place)
        self.strange, self.part = _strange(scene, self.low, self.busy)

    def of_painted(self) -> Floats:
        """What is painted in the hole: dear where it is smoother than the surroundings are."""
        if not self.scene.painted:
            return np.full(len(self.calm), graph_cut.FORBIDDEN / 2, np.float32)
        own = blur(self.scene.busyness, self.all, 2)[self.here].sum(axis=1)
        cost: Floats = _NETWORK + _BLURRED * np.maximum(0, 1 - (own + _LEAST_BUSY) / self.calm)
        return cost

    def of_copied(self, move: _Move, rows: Places, columns: Places) -> Floats:
        """The photo moved, which shows ``rows`` and ``columns`` there."""
        cost = self.border.mismatch(move)
        if isinstance(move, _Shift):
            away = _DISTANCE * math.hypot(*move) / max(len(self.all), self.scene.width)
            cost += np.where(columns < self.scene.width, away, _OTHER_VIEW)
        else:
            cost += _OTHER_PLANE
        _add_looks(
            self.low,
            self.busy,
            self.strange,
            self.part,
            rows,
            columns,
            self.expected,
            self.busy_there,
            self.calm,
            cost,
        )
        return cost


@jit
def _add_looks(
    low: Any,
    busy: Any,
    strange: Any,
    part: Any,
    rows: Any,
    columns: Any,
    expected: Any,
    busy_there: Any,
    calm: Any,
    cost: Any,
) -> None:
    """Add what pixels cost because they do not look as what is expected, or is around, does."""
    for number in range(len(rows)):
        row, column = rows[number], columns[number]
        square = texture = np.float32(0)
        for channel in range(3):
            step = low[row, column, channel] - expected[number, channel]
            square += step * step
        for way in range(2):
            texture += abs(busy[row, column, way] - busy_there[number, way])
        unexpected = min(np.sqrt(square), np.float32(_MOST_UNEXPECTED))
        cost[number] += np.float32(_EXPECTED) * unexpected
        cost[number] += np.float32(_TEXTURE) * min(texture / calm[number], np.float32(1))
        cost[number] += strange[part[number], row, column]


def _strange(scene: Scene, low: Floats, busy: Floats) -> tuple[Floats, Integers]:
    """What each known pixel costs because little around a part of the hole is like it.

    What stands around one of two holes is no reason to copy its like into the other.

    Returns:
        ``[P, H, W]`` for each part, and which part each of the hole's N pixels belongs to.
    """
    looks = np.concatenate([low, np.float32(_STRANGE_BUSY) * busy], axis=2)
    parts = _largest_parts(scene.place, _MOST_PARTS)
    rest = scene.place & ~np.any(parts, axis=0)
    if rest.any():
        parts.append(rest)
    cost = np.empty((len(parts), *scene.hole.shape), np.float32)
    part_at = np.zeros(scene.hole.shape, np.int32)
    for number, part in enumerate(parts):
        part_at[part] = number
        around = _ring(part, scene.hole, _AROUND, _MOST_AROUND // len(parts))
        cost[number] = strangeness(looks, ~scene.hole, around, _ALIKE, _MOST_STRANGE)
    cost *= np.float32(_STRANGE)
    return cost, part_at[scene.place]


class _Border:
    """The known pixels near each pixel of a hole, and what a shifted photo shows in their place."""

    def __init__(self, features: Floats, hole: Place, place: Place) -> None:
        self.features, self.known = features, ~hole
        height, width = hole.shape
        rows, columns = np.nonzero(place)
        self.count = len(rows)
        reach = range(-_BORDER_REACH, _BORDER_REACH + 1)
        steps = [(down, right) for down in reach for right in reach if down or right]
        shares = [1 / (abs(down) + abs(right)) ** 2 for down, right in steps]
        pixels, weights, at_rows, at_columns = [], [], [], []
        for (down, right), share in zip(steps, shares, strict=True):
            row, column = rows + down, columns + right
            good = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            good[good] = self.known[row[good], column[good]]
            pixels.append(np.flatnonzero(good))
            weights.append(np.full(len(pixels[-1]), _BORDER * 4 * share / sum(shares)))
            at_rows.append(row[good])
            at_columns.append(column[good])
        self.pixels = np.concatenate(pixels)
        self.weights = np.concatenate(weights).astype(np.float32)
        self.rows, self.columns = np.concatenate(at_rows), np.concatenate(at_columns)
        self.there = features[self.rows, self.columns]

    def mismatch(self, move: _Move) -> Floats:
        """The weighted sum of differences for each pixel of the hole, float32 ``[N]``."""
        rows, columns = move.moved(self.rows, self.columns)
        total = np.zeros(self.count, np.float32)
        _mismatch(
            self.features,
            self.known,
            self.there,
            rows,
            columns,
            np.float32(_MOST_DIFFERENCE / 2),
            self.pixels,
            self.weights,
            total,
        )
        return total


@jit
def _mismatch(
    features: Any,
    known: Any,
    there: Any,
    rows: Any,
    columns: Any,
    unknown: Any,
    pixels: Any,
    weights: Any,
    total: Any,
) -> None:
    height, width, channels = features.shape
    for number in range(len(rows)):
        row, column = rows[number], columns[number]
        difference = unknown
        if 0 <= row < height and 0 <= column < width and known[row, column]:
            square = np.float32(0)
            for channel in range(channels):
                step = features[row, column, channel] - there[number, channel]
                square += step * step
            difference = np.sqrt(square)
        total[pixels[number]] += weights[number] * difference
