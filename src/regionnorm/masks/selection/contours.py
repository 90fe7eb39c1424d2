"""Where a photo changes, and the small pieces between those places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm._extras import require

__all__ = ["Pieces", "cut", "cut_up"]

Plane = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

_SPACING = 5  # pixels between the seeds of pieces
_REACHES = (3, 7)  # pixels to either side that are compared
_DIRECTIONS = 8
# Of CIELAB as OpenCV scales it: lowest and highest value, bins. Four by four, as filters take them.
_BINS = ((0, 255, 6), (98, 158, 5), (98, 158, 5))
_CAPACITY = 1000  # capacities of the cut are whole numbers


@dataclass(frozen=True)
class Pieces:
    """A picture cut up along its contours.

    Attributes:
        labels: int64 ``[H, W]``: to which of the pieces 0 to ``count - 1`` a pixel belongs.
        area: Pixels of each piece.
        first, second: Pairs of pieces that touch.
        border: Pixels along which they touch.
        strength: How strong the contour between them is; 1 is the picture's median.
    """

    labels: Whole
    area: Numbers
    first: Whole
    second: Whole
    border: Numbers
    strength: Numbers

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.area)

    def mean(self, plane: npt.NDArray[Any]) -> Numbers:
        """A plane's ``[H, W]`` mean in each piece."""
        weights = plane.ravel().astype(np.float64)
        total = np.bincount(self.labels.ravel(), weights=weights, minlength=self.count)
        means: Numbers = total / self.area
        return means

    def matrix(self, weights: Numbers) -> Any:
        """A sparse matrix of a weight per pair, both ways."""
        sparse = require("scipy.sparse", extra="eval")
        rows = np.concatenate([self.first, self.second])
        columns = np.concatenate([self.second, self.first])
        shape = (self.count, self.count)
        return sparse.csr_matrix((np.concatenate([weights, weights]), (rows, columns)), shape=shape)


def cut_up(lab: Plane) -> Pieces:
    """Cut a picture, CIELAB float32 ``[H, W, 3]``, into pieces of about 5x5 pixels."""
    contours = _contours(lab)
    labels = _flood(contours)
    first, second, border, strength = _pairs(labels, contours)
    area = np.bincount(labels.ravel()).astype(np.float64)
    middle = float(np.median(strength)) if len(strength) else 1.0
    return Pieces(labels, area, first, second, border, strength / (middle + 1e-6))


def _contours(lab: Plane) -> Plane:
    """How much the colours differ between the two sides of each pixel, in the worst direction."""
    cv2 = require("cv2", extra="eval")
    bins = _soft_bins(lab)
    height, width = lab.shape[:2]
    side = int(np.ceil(np.hypot(height, width))) + 4
    best = np.zeros((height, width), np.float32)
    for direction in range(_DIRECTIONS):
        # Turned, the two sides are above and below: boxes, which take the same time at any size.
        turn = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), 180 * direction / _DIRECTIONS, 1
        )
        turn[:, 2] += (side - width) / 2, (side - height) / 2
        turned = np.zeros((side, side), np.float32)
        for four in np.split(bins, bins.shape[2] // 4, axis=2):
            part = cv2.warpAffine(
                np.ascontiguousarray(four),
                turn,
                (side, side),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for reach in _REACHES:
                means = cv2.blur(part, (2 * reach + 1, reach))
                above = np.roll(means, (reach + 1) // 2, axis=0)
                below = np.roll(means, -(reach // 2 + 1), axis=0)
                apart = (above - below) ** 2 / (above + below + 1e-3)
                turned += apart.sum(2)
        back = cv2.invertAffineTransform(turn)
        np.maximum(best, cv2.warpAffine(turned, back, (width, height)), out=best)
    return best


def _soft_bins(lab: Plane) -> Plane:
    """Membership of each pixel in bins of lightness and of the two colour axes."""
    planes = []
    for channel, (low, high, count) in enumerate(_BINS):
        place = np.clip((lab[..., channel] - low) / (high - low), 0, 1) * (count - 1)
        planes += [np.maximum(0, 1 - np.abs(place - index)) for index in range(count)]
    bins: Plane = np.stack(planes, axis=-1).astype(np.float32)
    return bins


def _flood(contours: Plane) -> Whole:
    """Number basins that fill from the lowest pixel of each cell of a grid."""
    cv2 = require("cv2", extra="eval")
    watershed = require("skimage.segmentation", extra="eval").watershed
    smooth = cv2.GaussianBlur(contours, (0, 0), 1)
    rows, columns = (max(1, side // _SPACING) for side in smooth.shape)
    cells = smooth[: rows * _SPACING, : columns * _SPACING]
    if cells.shape != (rows * _SPACING, columns * _SPACING):  # smaller than a cell
        return np.zeros(smooth.shape, np.int64)
    cells = cells.reshape(rows, _SPACING, columns, _SPACING).transpose(0, 2, 1, 3)
    lowest = cells.reshape(rows, columns, -1).argmin(2)
    seeds = np.zeros(smooth.shape, np.int32)
    down = np.arange(rows)[:, None] * _SPACING + lowest // _SPACING
    across = np.arange(columns)[None] * _SPACING + lowest % _SPACING
    seeds[down, across] = np.arange(1, rows * columns + 1).reshape(rows, columns)
    labels: Whole = watershed(smooth, seeds).astype(np.int64) - 1
    return labels


def _pairs(labels: Whole, contours: Plane) -> tuple[Whole, Whole, Numbers, Numbers]:
    """Pieces that touch, along how many pixels, and the mean of the contour there."""
    count = int(labels.max()) + 1
    keys, heights = [], []
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        one, other = labels[here].ravel(), labels[there].ravel()
        apart = one != other
        keys.append((np.minimum(one, other) * count + np.maximum(one, other))[apart])
        heights.append(np.maximum(contours[here], contours[there]).ravel()[apart])
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    border = np.bincount(place, minlength=len(pairs)).astype(np.float64)
    total = np.bincount(place, weights=np.concatenate(heights), minlength=len(pairs))
    return pairs // count, pairs % count, border, total / np.maximum(border, 1)


def cut(pieces: Pieces, evidence: Numbers, weights: Numbers) -> npt.NDArray[np.bool_]:
    """Choose the pieces of the object by a minimum cut.

    Args:
        pieces: What to choose from.
        evidence: For each piece, above 0 if it looks like the object, below if not.
        weights: For each pair, what it costs to part the two.

    Returns:
        bool, one for each piece.
    """
    sparse = require("scipy.sparse", extra="eval")
    graphs = require("scipy.sparse.csgraph", extra="eval")
    source, sink, every = pieces.count, pieces.count + 1, np.arange(pieces.count)
    own = evidence > 0
    rows = [np.full(own.sum(), source), every[~own], pieces.first, pieces.second]
    columns = [every[own], np.full((~own).sum(), sink), pieces.second, pieces.first]
    values = [evidence[own], -evidence[~own], weights, weights]
    capacities = np.rint(np.concatenate(values) * _CAPACITY).astype(np.int32)
    shape = (pieces.count + 2, pieces.count + 2)
    graph = sparse.csr_matrix(
        (capacities, (np.concatenate(rows), np.concatenate(columns))), shape=shape
    )
    left = graph - graphs.maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    chosen = np.zeros(pieces.count + 2, np.bool_)
    chosen[graphs.breadth_first_order(left, source, return_predecessors=False)] = True
    result: npt.NDArray[np.bool_] = chosen[: pieces.count]
    return result
