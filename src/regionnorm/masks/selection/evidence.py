"""What speaks for a piece of the picture to be part of the object that a stroke goes over."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm._extras import require
from regionnorm.masks.regions import bounding_window
from regionnorm.masks.selection.contours import Numbers, Pieces, Plane

__all__ = ["evidence", "stroke_distance"]

Hole = npt.NDArray[np.bool_]

# Log-odds of being object by the distance to the stroke's edge, in radii of the stroke: people
# paint the inside of things, and about two thirds of their width.
_DISTANCES = (-1, -0.6, -0.2, 0.2, 0.6, 1, 2, 4)
_ODDS = (5, 4, 2.2, 0.3, -0.7, -1.7, -2.9, -4)
_LINE, _LINE_REACH = 0.1, 0.24  # a stroke of a smaller radius is a line; what it stands for
_COLOURS = ((0, 256, 10), (78, 178, 14), (78, 178, 14))  # lowest, highest, bins of CIELAB
_STEPS = 12  # of what spreads from piece to piece
_FAR = 2.2  # radii from which on a piece is taken for background to begin with


def stroke_distance(stroke: Hole) -> Plane:
    """Distance to a stroke's edge in radii of the stroke, below 0 inside; float32 ``[H, W]``.

    A line stands for something wider: outside, its radius is a share of its length.
    """
    cv2 = require("cv2", extra="eval")
    inside = cv2.distanceTransform(np.pad(stroke, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~stroke).astype(np.uint8), cv2.DIST_L2, 5)
    bounds = bounding_window(stroke)
    radius, length = float(inside.max()), max(bounds.height, bounds.width)
    reach = _LINE_REACH * length if radius < _LINE * length else radius
    distance: Plane = outside / reach - inside / radius
    return distance


def evidence(pieces: Pieces, lab: Plane, distance: Plane, seen: Plane | None) -> Numbers:
    """Log-odds of each piece to be part of the object.

    Args:
        pieces: The picture's pieces.
        lab: The picture, CIELAB ``[H, W, 3]``.
        distance: What :func:`stroke_distance` says.
        seen: How much each pixel looks like part of an object, if a network has been asked.
    """
    columns = clues(pieces, lab, distance, seen)
    odds: Numbers = columns @ np.array(_WEIGHTS if seen is None else _WEIGHTS_SEEN)
    return odds


def clues(pieces: Pieces, lab: Plane, distance: Plane, seen: Plane | None) -> Numbers:
    """What :func:`evidence` weighs, one row for each piece."""
    odds = np.interp(distance, _DISTANCES, _ODDS)
    prior, far_off = pieces.mean(odds), pieces.mean(distance)
    share = 1 / (1 + np.exp(-odds))
    core, outside = _seeds(pieces, far_off)
    steps = np.minimum(pieces.strength, 4) + 0.1
    near, away = _shortest(pieces, steps, core), _shortest(pieces, steps, outside)
    low, high = _passes(pieces, core), _passes(pieces, outside)
    columns = [
        prior,
        np.minimum(far_off, 3),
        # Ways that cross fewer and weaker contours, in all and at the worst place.
        np.log((away + 0.5) / (near + 0.5)),
        np.minimum(near, 20) / 10,
        np.log((high + 0.2) / (low + 0.2)),
        np.minimum(low, 5) / 2,
        pieces.mean(_colour_odds(lab, share)),
        _logit(_spread(pieces, pieces.mean(share))),
        np.ones(pieces.count),
    ]
    if seen is not None:
        columns.append(_logit(pieces.mean(seen), 0.03))
    return np.stack(columns, axis=1)


def _logit(share: Numbers, least: float = 0.02) -> Numbers:
    odds: Numbers = np.log((share + least) / (1 - share + least))
    return odds


def _seeds(pieces: Pieces, far_off: Numbers) -> tuple[Hole, Hole]:
    """Pieces that are surely part of the object, and pieces that are surely not."""
    core = far_off < -0.5
    if not core.any():
        core = far_off <= far_off.min() + 0.1
    rim = np.zeros(pieces.count, np.bool_)
    for line in (pieces.labels[0], pieces.labels[-1], pieces.labels[:, 0], pieces.labels[:, -1]):
        rim[line] = True
    outside = (far_off > _FAR) | (rim & (far_off > 1))
    if not outside.any():
        outside = far_off >= far_off.max() - 0.2
    return core, outside


def _shortest(pieces: Pieces, steps: Numbers, seeds: Hole) -> Numbers:
    """The length of the shortest way from seeds to each piece."""
    graphs = require("scipy.sparse.csgraph", extra="eval")
    lengths: Numbers = graphs.dijkstra(
        pieces.matrix(steps), indices=np.flatnonzero(seeds), min_only=True
    )
    return lengths


def _passes(pieces: Pieces, seeds: Hole) -> Numbers:
    """The strongest contour on the way from seeds to each piece that has the weakest such."""
    sparse = require("scipy.sparse", extra="eval")
    graphs = require("scipy.sparse.csgraph", extra="eval")
    root, found = pieces.count, np.flatnonzero(seeds)
    rows = np.concatenate([pieces.first, np.full(len(found), root)])
    columns = np.concatenate([pieces.second, found])
    heights = np.concatenate([pieces.strength + 1e-3, np.full(len(found), 1e-6)])
    graph = sparse.csr_matrix((heights, (rows, columns)), shape=(root + 1, root + 1))
    # In the minimum spanning tree each way is the one whose highest step is lowest.
    tree = graphs.minimum_spanning_tree(graph)
    order, parents = graphs.breadth_first_order(tree, root, directed=False)
    both: Any = (tree + tree.T).tocsr()
    steps = np.zeros(root + 1)
    steps[order[1:]] = np.asarray(both[parents[order[1:]], order[1:]]).ravel()
    highest = np.zeros(root + 1)
    for piece in order[1:]:
        highest[piece] = max(highest[parents[piece]], steps[piece])
    return highest[:root]


def _colour_odds(lab: Plane, share: Numbers) -> Numbers:
    """Log-odds of each pixel's colour, by how often it is seen inside and outside the stroke."""
    cv2 = require("cv2", extra="eval")
    flat = np.zeros(lab.shape[:2], np.int64)
    shape = tuple(count for *_, count in _COLOURS)
    for channel, (low, high, count) in enumerate(_COLOURS):
        place = np.clip((lab[..., channel] - low) / (high - low) * count, 0, count - 1)
        flat = flat * count + place.astype(np.int64)
    counts = []
    for weights in (share, 1 - share):
        found = np.bincount(flat.ravel(), weights=weights.ravel(), minlength=int(np.prod(shape)))
        smooth = found.reshape(shape)
        for _ in range(3):  # neighbouring colours are nearly the same: along each axis in turn
            folded = smooth.reshape(shape[0], -1)
            folded = cv2.GaussianBlur(folded, (1, 7), sigmaX=0, sigmaY=0.8)
            smooth = np.moveaxis(folded.reshape(shape), 0, -1)
            shape = smooth.shape
        counts.append(smooth / smooth.sum())
    odds = np.log(counts[0] + 3e-4) - np.log(counts[1] + 3e-4)
    seen: Numbers = np.clip(odds, -3, 3).ravel()[flat]
    return seen


def _spread(pieces: Pieces, share: Numbers) -> Numbers:
    """Shares that flow to neighbours, less over stronger contours."""
    weights = pieces.matrix(pieces.border * np.exp(-pieces.strength))
    total = np.asarray(weights.sum(axis=1)).ravel() + 1e-3
    flowing: Numbers = share.copy()
    for _ in range(_STEPS):
        flowing = 0.3 * share + 0.7 * (weights @ flowing + 1e-3 * flowing) / total
    return flowing


# Fitted by logistic regression on outlines that people drew, none of them of the photos that the
# figures in the documentation are of: benchmarks/bench_select.py --fit.
_WEIGHTS = (-0.23, 0.04, 0.56, 0.89, 1.07, -0.10, 1.44, 1.12, -1.04)
_WEIGHTS_SEEN = (-0.02, -0.30, 0.06, 0.66, 0.58, -0.29, 0.61, 0.81, -0.40, 0.57)
