"""Complete a photo: draft."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion import blend, graph_cut, maxflow, offsets, patchmatch
from regionnorm.masks.regions import dilate_square, label_regions

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]

P = dict(
    work=14000, ring=4, arcs=8, whole_peaks=8, arc_peaks=4, dominant=40, apart=3, least=3,
    most=0.35, grad=1.0, potts=0.03, band=3.0, distance=0.05, keep=0.15, net_cost=None,
    rounds=2, radius=4, sweeps=3, pull=0.0, pull_most=0.5, pull_sigma=2, pull_grad=0.0, net_slope=0.5, recut=False, refine=True, poisson=True, bandr=2,
)
TIMES: dict[str, float] = {}


class tick:
    def __init__(self, name): self.name = name
    def __enter__(self): self.t = time.process_time()
    def __exit__(self, *a): TIMES[self.name] = TIMES.get(self.name, 0) + time.process_time() - self.t


def halve(pixels: Floats, hole: Place) -> tuple[Floats, Place]:
    """The next coarser level: the mean of four; hole where any of the four is."""
    height, width = hole.shape
    padding = ((0, height % 2), (0, width % 2))
    pixels = np.pad(pixels, (*padding, (0, 0)), mode="edge")
    hole = np.pad(hole, padding, mode="edge")
    small = (pixels[::2, ::2] + pixels[1::2, ::2] + pixels[::2, 1::2] + pixels[1::2, 1::2]) / np.float32(4)
    return small, hole[::2, ::2] | hole[1::2, ::2] | hole[::2, 1::2] | hole[1::2, 1::2]


def busyness(pixels: Floats, hole: Place, levels: int) -> Floats:
    """Mean absolute differences of luminance across and down, [h, w, 2] at the structure level."""
    grey = pixels.mean(2)
    fine = np.zeros((*grey.shape, 2), np.float32)
    fine[:, :-1, 0] = np.abs(np.diff(grey, axis=1))
    fine[:-1, :, 1] = np.abs(np.diff(grey, axis=0))
    near = dilate_square(hole, 1)
    fine[near] = 0
    weight = (~near).astype(np.float32)[..., None]
    both = np.concatenate([fine, weight], axis=2)
    none = np.zeros_like(hole)
    for _ in range(levels):
        both, none = halve(both, none)
    # average 3x3
    p = np.pad(both, ((1, 1), (1, 1), (0, 0)))
    p = p[:-2] + p[1:-1] + p[2:]
    p = p[:, :-2] + p[:, 1:-1] + p[:, 2:]
    return p[..., :2] / np.maximum(p[..., 2:], 1e-3)


def structure(pixels, hole, features, network, seed):
    """Offsets for the hole's pixels at the structure level."""
    height, width = hole.shape
    known = ~hole
    with tick("ring"):
        labels = [np.zeros((1, 2), np.int32)]
        regions, count = label_regions(hole)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
        for number in np.argsort(-sizes, kind="stable")[:4]:
            part = regions == number + 1
            ring = dilate_square(part, P["ring"]) & known
            rows = np.flatnonzero(ring)
            if len(rows) > 800:
                keep = rows[:: -(-len(rows) // 800)]
                ring = np.zeros_like(ring); ring.flat[keep] = True
            if not ring.any():
                continue
            arc = offsets.arcs_of(ring, P["arcs"])
            score = offsets.ring_match(features, known, ring, arc, P["arcs"], P["most"])
            share = np.bincount(arc, minlength=P["arcs"]).astype(np.float32) / len(arc)
            whole = np.tensordot(share, score, 1)
            labels.append(offsets.peaks(whole, P["whole_peaks"], apart=P["apart"], least=P["least"]))
            for one in score:
                labels.append(offsets.peaks(one, P["arc_peaks"], apart=P["apart"], least=P["least"]))
    with tick("dominant"):
        sources = ~dilate_square(np.pad(hole, 1, constant_values=True), patchmatch.RADIUS)[1:-1, 1:-1]
        side = max(np.ptp(np.nonzero(hole)[0]), np.ptp(np.nonzero(hole)[1])) + 1
        near = sources & dilate_square(hole, max(16, int(side // 2)))
        rows, columns = (a.astype(np.int32) for a in np.nonzero(near))
        places = np.argwhere(sources).astype(np.int32)
        if len(rows) and len(places) > 64:
            rng = np.random.default_rng(seed)
            start = places[rng.integers(len(places), size=len(rows))]
            number_at = np.full(hole.shape, -1, np.int32); number_at[rows, columns] = np.arange(len(rows))
            patches = patchmatch.Patches(rows, columns, number_at, sources)
            down, right = start[:, 0] - rows, start[:, 1] - columns
            bad = (abs(down) < 6) & (abs(right) < 6)
            field = patchmatch.Field(down.astype(np.int32), right.astype(np.int32), np.zeros(len(rows), np.float32))
            flat = patchmatch.padded_rows(pixels)
            patchmatch.measure(flat, flat, patches, field)
            field.costs[bad] = 1e30
            patchmatch.improve(flat, flat, patches, field, 6, max(hole.shape), 6, seed + 1)
            good = field.costs < 1e29
            labels.append(offsets.peaks(offsets.repetitions(field.down[good], field.right[good], hole.shape), P["dominant"], apart=P["apart"], least=P["least"]))
    _, first = np.unique(np.concatenate(labels), axis=0, return_index=True)
    offs = np.concatenate(labels)[np.sort(first)]
    with tick("cut"):
        chosen = cut(pixels, hole, features, network, offs)
    return offs, chosen


def fill_smooth(x, known):
    """Push-pull continuation of the known into the unknown, [H, W, C]."""
    w = known.astype(np.float32)[..., None]
    if known.all() or max(known.shape) <= 1:
        return x
    h, wd = known.shape
    pad = ((0, h % 2), (0, wd % 2), (0, 0))
    a, b = np.pad(x * w, pad), np.pad(w, pad)
    f = lambda q: q[::2, ::2] + q[1::2, ::2] + q[::2, 1::2] + q[1::2, 1::2]
    sa, sb = f(a), f(b)
    small = fill_smooth(sa / np.maximum(sb, 1e-6), sb[..., 0] > 0)
    p = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
    # bilinear
    even = lambda q: np.stack([0.25 * q[:-2] + 0.75 * q[1:-1], 0.75 * q[1:-1] + 0.25 * q[2:]], 1).reshape(-1, *q.shape[1:])
    up = even(p)
    up = even(up.transpose(1, 0, 2)).transpose(1, 0, 2)
    return np.where(w > 0, x, up[:h, :wd]).astype(np.float32)


def smooth(x, weight, times):
    """Normalised binomial blur, [H, W, C]."""
    x = np.concatenate([x * weight[..., None], weight[..., None]], 2).astype(np.float32)
    for _ in range(times):
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        x = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
        x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    return x[..., :-1] / np.maximum(x[..., -1:], 1e-4)


def cut(pixels, hole, features, network, offs, start=None, sweeps=None):
    height, width = hole.shape
    rows, columns = np.nonzero(hole)
    values = np.zeros((len(offs), len(rows), features.shape[2]), np.float32)
    costs = np.zeros((len(offs), len(rows)), np.float32)
    known = ~hole
    r = P["bandr"]
    weights = []
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            if (dy, dx) != (0, 0):
                weights.append((dy, dx, 1.0 / (abs(dy) + abs(dx)) ** 2))
    norm = sum(w for *_, w in weights) / 4
    size = max(hole.shape)
    fp = np.pad(features, ((r, r), (r, r), (0, 0)))
    kp = np.pad(known, r)
    times = 2 * P["pull_sigma"] ** 2
    low = smooth(features[..., :3], known, times)
    want = smooth(network[..., :3], np.ones_like(known), times)[rows, columns]
    if P["pull_grad"]:
        glow = smooth(features[..., 3:], known, times)
        gwant = fill_smooth(features[..., 3:], known)
        gwant = smooth(gwant, np.ones_like(known), times)[rows, columns]
    for k, (down, right) in enumerate(offs):
        if k == 0:
            values[0] = network[rows, columns]
            if P["net_cost"] is None:
                costs[0] = graph_cut.FORBIDDEN / 2
            else:
                expected = smooth(fill_smooth(features[..., 3:], known), np.ones_like(known), 2)[rows, columns].sum(1)
                own = smooth(network[..., 3:], np.ones_like(known), 2)[rows, columns].sum(1)
                costs[0] = P["net_cost"] + P["net_slope"] * np.maximum(0, expected - own) / (0.02 * P["grad"] + expected)
            continue
        y, x = rows + down, columns + right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        yc, xc = y.clip(0, height - 1), x.clip(0, width - 1)
        ok = inside & known[yc, xc]
        values[k] = np.where(ok[:, None], features[yc, xc], 0)
        costs[k] = np.where(ok, P["distance"] * math.hypot(down, right) / size, graph_cut.FORBIDDEN)
        if P["pull"]:
            d = np.sqrt(((low[yc, xc] - want) ** 2).sum(1))
            costs[k] += np.where(ok, P["pull"] * np.minimum(d, P["pull_most"]), 0)
        if P["pull_grad"]:
            d = np.abs(glow[yc, xc] - gwant).sum(1) / (0.02 * P["grad"] + np.abs(gwant).sum(1))
            costs[k] += np.where(ok, P["pull_grad"] * np.minimum(d, 1.0), 0)
        for dy, dx, w in weights:
            nk = kp[rows + dy + r, columns + dx + r]
            idx = np.flatnonzero(nk & ok)
            a = fp[rows[idx] + dy + r, columns[idx] + dx + r]
            py, px = y[idx] + dy + r, x[idx] + dx + r
            b = fp[py, px]
            d = np.sqrt(((a - b) ** 2).sum(1))
            d = np.where(kp[py, px], d, 0.5 * P["most"])
            costs[k, idx] += (P["band"] * w / norm) * d
    neighbours = maxflow.neighbours_of(hole)
    return graph_cut.choose(values, costs.astype(np.float32), neighbours, potts=P["potts"], sweeps=sweeps or P["sweeps"], start=start)


def depth_of(hole: Place) -> Floats:
    """Chebyshev distance to the known."""
    depth = np.zeros(hole.shape, np.float32)
    left = hole.copy()
    n = 0
    while left.any() and n < 64:
        n += 1
        depth[left] = n
        left = ~dilate_square(~left, 1)
    return depth


def spread(down, right, hole, radius):
    """Give known pixels near the hole an offset of the nearest hole pixel."""
    have = hole.copy()
    for _ in range(radius):
        new = dilate_square(have, 1) & ~have
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            sh = np.zeros_like(have)
            ys, yt = slice(max(0, dy), hole.shape[0] + min(0, dy)), slice(max(0, -dy), hole.shape[0] + min(0, -dy))
            xs, xt = slice(max(0, dx), hole.shape[1] + min(0, dx)), slice(max(0, -dx), hole.shape[1] + min(0, -dx))
            sh[yt, xt] = have[ys, xs]
            take = new & sh
            td = np.zeros_like(down); td[yt, xt] = down[ys, xs]
            tr = np.zeros_like(right); tr[yt, xt] = right[ys, xs]
            down[take] = td[take]; right[take] = tr[take]
            new &= ~take
            have = have | take
    return down, right


def paste(pixels, hole, down, right, painted):
    result = pixels.copy()
    rows, columns = np.nonzero(hole)
    y, x = rows + down[rows, columns], columns + right[rows, columns]
    y, x = y.clip(0, hole.shape[0] - 1), x.clip(0, hole.shape[1] - 1)
    result[rows, columns] = pixels[y, x]
    own = (down[rows, columns] == 0) & (right[rows, columns] == 0)
    result[rows[own], columns[own]] = painted[rows[own], columns[own]]
    return result


def refine(pixels, hole, down, right, painted, seed, last):
    own = hole & (down == 0) & (right == 0)
    todo = hole & ~own
    if not todo.any():
        return down, right
    fixed_down, fixed_right = down.copy(), right.copy()
    down, right = spread(down.copy(), right.copy(), todo, patchmatch.RADIUS)
    target = dilate_square(todo, patchmatch.RADIUS) & ~own
    sources = ~dilate_square(np.pad(hole, 1, constant_values=True), patchmatch.RADIUS)[1:-1, 1:-1]
    if not sources.any():
        return fixed_down, fixed_right
    rows, columns = (a.astype(np.int32) for a in np.nonzero(target))
    number_at = np.full(hole.shape, -1, np.int32); number_at[rows, columns] = np.arange(len(rows), dtype=np.int32)
    patches = patchmatch.Patches(rows, columns, number_at, sources)
    field = patchmatch.Field(down[rows, columns].copy(), right[rows, columns].copy(), np.zeros(len(rows), np.float32))
    current = paste(pixels, hole, fixed_down, fixed_right, painted)
    source = patchmatch.padded_rows(pixels)
    trust = (1.2 ** -depth_of(hole)[rows, columns]).astype(np.float32)
    od, orr = fixed_down.copy(), fixed_right.copy()
    for turn in range(P["rounds"]):
        flat = patchmatch.padded_rows(current)
        with tick("pm"):
            patchmatch.measure(flat, source, patches, field)
            patchmatch.improve(flat, source, patches, field, 2, P["radius"], 0, seed + turn)
        costs = field.costs[field.costs < 1e29]
        scale = np.float32(max(np.percentile(costs, 75), 1e-4)) if len(costs) else np.float32(1)
        with tick("vote"):
            patchmatch.vote(pixels, todo, patches, field, trust, scale, last and turn == P["rounds"] - 1 or P.get("always_best", False), current, od, orr)
    return od, orr


def recut(pixels, hole, down, right, painted, level, image, full):
    both = np.stack([down[hole], right[hole]], 1)
    offs, start, count = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-count)
    rank = np.empty(len(offs), int); rank[order] = np.arange(len(offs))
    offs = offs[order]; start = rank[start.ravel()].astype(np.int32)
    offs = np.concatenate([[[0, 0]], offs]).astype(np.int32); start += 1
    grad = busyness(image, full, level) * P["grad"]
    features = np.ascontiguousarray(np.concatenate([pixels, grad], 2), dtype=np.float32)
    nf = np.concatenate([painted, np.zeros_like(grad)], 2)
    chosen = cut(pixels, hole, features, nf, offs, start=start, sweeps=1)
    down[hole], right[hole] = offs[chosen, 0], offs[chosen, 1]
    return down, right


def complete_window(image: Floats, hole: Place, network: Floats | None, seed: int = 0) -> Floats:
    area = hole.size
    depth = max(0, round(math.log(area / P["work"], 4)))
    pyramid = [(image, hole)]
    net = image.copy() if network is None else np.where(hole[..., None], network, image)
    nets = [net]
    for _ in range(depth):
        pyramid.append(halve(*pyramid[-1]))
        nets.append(halve(nets[-1], pyramid[-2][1])[0])
    pixels, small = pyramid[-1]
    if small.all():
        return net
    grad = busyness(image, hole, depth) * P["grad"]
    features = np.ascontiguousarray(np.concatenate([pixels, grad], 2), dtype=np.float32)
    nfeat = np.concatenate([nets[-1], busyness(net, np.zeros_like(hole), depth) * P["grad"]], 2).astype(np.float32)
    with tick("structure"):
        offs, chosen = structure(pixels, small, features, nfeat, seed)
    down, right = np.zeros(small.shape, np.int32), np.zeros(small.shape, np.int32)
    down[small], right[small] = offs[chosen, 0], offs[chosen, 1]
    with tick("refine"):
        for level in range(depth, -1, -1):
            pixels, small = pyramid[level]
            if level < depth:
                h, w = small.shape
                down = np.repeat(np.repeat(down * 2, 2, 0), 2, 1)[:h, :w]
                right = np.repeat(np.repeat(right * 2, 2, 0), 2, 1)[:h, :w]
                down[~small] = 0; right[~small] = 0
                if P["recut"] and level == depth - 1:
                    with tick("recut"):
                        down, right = recut(pixels, small, down, right, nets[level], level, image, hole)
            if P["refine"] and (not P["recut"] or level < depth):
                down, right = refine(pixels, small, down, right, nets[level], seed * 100 + level * 10, level == 0 or P.get("always_best", False))
    result = paste(image, hole, down, right, net)
    if P["poisson"]:
        with tick("blend"):
            r = np.flatnonzero(hole.any(1)); c = np.flatnonzero(hole.any(0))
            result = result + blend.correction(image, hole, down, right, net, P["keep"])
    return np.where(hole[..., None], result, image)


def complete(image, mask, *, network=None, seed=0):
    x = image.astype(np.float32) / 255
    n = None if network is None else network.astype(np.float32) / 255
    lo, hi = np.percentile(x[~mask], [1, 99])
    scale = 1 / max(hi - lo, 0.1)
    x = (x - lo) * scale
    n = None if n is None else (n - lo) * scale
    out = complete_window(x.astype(np.float32), mask, None if n is None else n.astype(np.float32), seed)
    out = np.rint((out / scale + lo) * 255).clip(0, 255).astype(np.uint8)
    return np.where(mask[..., None], out, image)
