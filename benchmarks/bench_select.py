"""How well a rough stroke, a box or a click selects the object that is meant.

    python benchmarks/bench_select.py FOLDER [--names 100007,...] [--draws 3] [--no-segmenter]
    python benchmarks/bench_select.py FOLDER --fit     the weights in masks/selection/evidence.py

FOLDER holds ``photos/NAME.jpg`` and ``objects/NAME.png``, white = object; holes that an object
encloses count as part of it. The figures in the documentation are of 20 photos of BSDS500's test
set (Arbelaez et al. 2011; for research, so not part of this project), drawn by
``random.Random(0).sample`` of 86 that were chosen by eye, before anything was measured on them,
as those where the largest outline that at least three people drew alike (two others with an IoU
of .85 or more, 1.5 to 40 % of the area, away from the border) is one whole animal, person or
thing:

    105027 108069 130066 164046 187099 188025 196062 20069 226022 247003
    253016 267036 317043 326085 335094 344010 35028 43033 51084 69022

All constants were chosen on 53 photos of its training and validation sets.

Kinds of input, each made from the object's outline and a seed, R being the radius of the largest
circle that fits into it:

* stroke: a round brush, its radius .6 R times 0.8 to 1.2, drawn once along the middle line of the
  object's thick part (where the distance to the outline is above .3 R). The hand shakes by up to
  .2 R every R, and stops up to .4 R too early or goes on up to .4 R too far at both ends. It
  covers two thirds of the object, and a tenth of it lies outside; its own IoU is .59.
* thin: the same with a brush of .15 R.
* click: a point near the middle of that circle, up to .3 R off.
* box: the object's own, each side moved by up to 10 % of the box's width or height.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.morphology import skeletonize

from regionnorm.masks.selection import find_segmenter, select_object
from regionnorm.masks.selection.contours import cut_up
from regionnorm.masks.selection.evidence import clues, stroke_distance
from regionnorm.masks.selection.select import _look

Hole = npt.NDArray[np.bool_]

KINDS = {"stroke": 0.6, "thin": 0.15, "click": 0.0, "box": 0.0}


@dataclass(frozen=True)
class Case:
    """A photo, RGB uint8 ``[H, W, 3]``, and its object, bool ``[H, W]``."""

    name: str
    photo: npt.NDArray[np.uint8]
    object: Hole


def cases(folder: Path, names: list[str] | None) -> Iterator[Case]:
    for path in sorted((folder / "photos").iterdir()):
        if names and path.stem not in names:
            continue
        outline = np.asarray(Image.open(folder / "objects" / f"{path.stem}.png").convert("L")) > 127
        photo = np.asarray(Image.open(path).convert("RGB"))
        yield Case(path.stem, photo, ndimage.binary_fill_holes(outline))


def middle_line(outline: Hole) -> tuple[npt.NDArray[np.float64], float]:
    """The longest way along the skeleton of the thick part, ``[N, 2]`` (x, y), and R."""
    depth = cv2.distanceTransform(np.pad(outline, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    parts, count = ndimage.label(depth > 0.3 * depth.max(), np.ones((3, 3)))
    thick = parts == 1 + np.argmax(ndimage.sum(parts > 0, parts, range(1, count + 1)))
    places = np.argwhere(skeletonize(thick))
    number = {tuple(place): index for index, place in enumerate(places.tolist())}
    pairs = [
        (index, number[down + y, across + x])
        for (down, across), index in number.items()
        for y, x in ((0, 1), (1, 0), (1, 1), (1, -1))
        if (down + y, across + x) in number
    ]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    shape = (len(places), len(places))
    graph = csr_matrix((np.ones(len(first)), (first, second)), shape=shape)

    def farthest(start: int) -> tuple[int, Any]:
        far, before = dijkstra(graph, False, start, return_predecessors=True)
        return int(np.where(np.isfinite(far), far, -1).argmax()), before

    end, before = farthest(farthest(0)[0])
    way = []
    while end >= 0:
        way.append(places[end, ::-1])
        end = int(before[end])
    return np.array(way, np.float64), float(depth.max())


def stroke_over(outline: Hole, rng: np.random.Generator, share: float) -> Hole:
    """A stroke as a person makes it: see above."""
    way, radius = middle_line(outline)
    brush = share * radius * rng.uniform(0.8, 1.2)
    way = ndimage.gaussian_filter1d(way, max(1, 0.3 * radius), axis=0, mode="nearest")
    for _ in range(2):
        way = _another_end(way, rng.uniform(-0.4, 0.4) * radius, radius)[::-1]
    length = float(np.hypot(*np.diff(way, axis=0).T).sum())
    bends = max(2, int(length / max(4, radius)) + 2)
    shakes = rng.uniform(-0.2, 0.2, (bends, 2)) * radius
    along = np.linspace(0, bends - 1, len(way))
    way = way + np.stack([np.interp(along, range(bends), shakes[:, axis]) for axis in (0, 1)], 1)
    drawn = np.zeros(outline.shape, np.uint8)
    points = np.rint(way * 8).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(drawn, [points], False, 1, max(1, round(2 * brush)), cv2.LINE_8, 3)
    for x, y in (way[0], way[-1]):
        cv2.circle(drawn, (round(x), round(y)), max(1, round(brush)), 1, -1)
    return drawn > 0


def _another_end(
    way: npt.NDArray[np.float64], off: float, radius: float
) -> npt.NDArray[np.float64]:
    """Let a way begin later (``off`` below 0) or earlier."""
    if len(way) <= 3:
        return way
    if off < 0:
        return way[min(len(way) // 3, int(-off)) :]
    ahead = way[0] - way[min(len(way) - 1, max(2, int(radius / 2)))]
    return np.vstack([way[0] + ahead / (np.hypot(*ahead) + 1e-9) * off, way])


def given(case: Case, kind: str, seed: int) -> dict[str, Any]:
    """What a person gives, as arguments of ``select_object``."""
    rng = np.random.default_rng(seed)
    if KINDS[kind]:
        return {"scribble": stroke_over(case.object, rng, KINDS[kind])}
    height, width = case.object.shape
    if kind == "click":
        depth = cv2.distanceTransform(case.object.astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        turn, off = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3) * depth.max()
        return {"points": [(float(x + off * np.cos(turn)), float(y + off * np.sin(turn)))]}
    rows, columns = np.nonzero(case.object)
    across, down = np.ptp(columns) + 1, np.ptp(rows) + 1
    off = rng.uniform(-0.1, 0.1, 4) * (across, down, across, down)
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + off
    left, top, right, bottom = np.rint(corners).astype(int).tolist()
    return {"box": (max(0, left), max(0, top), min(width, right), min(height, bottom))}


def overlap(one: Hole, other: Hole) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def measure(folder: Path, names: list[str] | None, draws: int, kinds: list[str], seg: Any) -> None:
    print(f"network: {seg or 'none'}")
    everything = list(cases(folder, names))
    for kind in kinds:
        each: dict[str, list[float]] = {}
        start = resource.getrusage(resource.RUSAGE_SELF)
        for case in everything:
            for seed in range(draws):
                found = select_object(case.photo, **given(case, kind, seed), segmenter=seg)
                each.setdefault(case.name, []).append(overlap(found, case.object))
        end = resource.getrusage(resource.RUSAGE_SELF)
        spent = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
        values = np.array(list(each.values()))
        print(
            f"{kind:7} IoU median {np.median(values):.3f} mean {values.mean():.3f}, quarter below "
            f"{np.percentile(values, 25):.3f}, {np.mean(values >= 0.85):.0%} at .85 or more; "
            f"{len(each)} photos, {draws} draws, {spent / values.size:.2f} s of processor each"
        )
        print("       ", " ".join(f"{name}:{np.mean(found):.2f}" for name, found in each.items()))


def fit(folder: Path, names: list[str] | None, seg: Path | None, draws: int) -> None:
    """Print the weights of the clues, by logistic regression on pieces near the stroke."""
    rows, targets, weights = [], [], []
    for case in cases(folder, names):
        for kind, seed in [("stroke", seed) for seed in range(draws)]:
            stroke = given(case, kind, seed)["scribble"]
            scene = _look(case.photo, stroke, seg)
            pieces, distance = cut_up(scene.lab), stroke_distance(scene.stroke)
            part = case.object[scene.window.slices].astype(np.float32)
            truth = cv2.resize(part, scene.stroke.shape[::-1], interpolation=cv2.INTER_AREA)
            rows.append(clues(pieces, scene.lab, distance, scene.seen))
            targets.append(pieces.mean(truth))
            near = np.exp(-np.maximum(pieces.mean(distance) - 0.5, 0))
            weights.append(pieces.area / pieces.area.sum() * near)
    x, y, w = np.concatenate(rows), np.concatenate(targets), np.concatenate(weights)
    w /= w.sum()
    found = np.zeros(x.shape[1])
    ridge = 1e-3 * np.eye(len(found))
    for _ in range(40):
        share = 1 / (1 + np.exp(-x @ found))
        slope = x.T @ (w * (share - y)) + ridge @ found
        found -= np.linalg.solve((x * (w * share * (1 - share))[:, None]).T @ x + ridge, slope)
    print("with a network:" if seg else "without:", ", ".join(f"{value:.2f}" for value in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", help="those photos only, with commas between")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--no-segmenter", action="store_true")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    names = options.names.split(",") if options.names else None
    network = None if options.no_segmenter else find_segmenter()
    if options.fit:
        fit(options.folder, names, network, options.draws)
    else:
        measure(options.folder, names, options.draws, options.kinds.split(","), network)


if __name__ == "__main__":
    main()
