"""Minimum cuts of graphs whose nodes have at most four neighbours, such as pixels.

Boykov and Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for energy
minimization in vision" (PAMI 2004): a tree of residual arcs grows from the source and one from
the sink; where they meet, flow is sent along the path, and what a saturated arc cuts off looks
for a new parent. Capacities are integers, so that the result is exact and the same everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit

__all__ = ["minimum_cut", "neighbours_of"]

_FREE, _SOURCE, _SINK = 0, 1, 2
_TERMINAL, _ORPHAN, _NONE = 4, 5, 6  # as a node's parent; 0 to 3 are directions
_FAR = 1 << 30


def neighbours_of(place: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the pixels of ``place`` ``[H, W]`` row by row and list the neighbours of each.

    Returns:
        int32 ``[N, 4]``: the numbers of the neighbours to the right, below, to the left and
        above; -1 where there is none.
    """
    number = np.full((place.shape[0] + 2, place.shape[1] + 2), -1, np.int32)
    inner = number[1:-1, 1:-1]
    count = int(np.count_nonzero(place))
    inner[place] = np.arange(count, dtype=np.int32)
    sides = (number[1:-1, 2:], number[2:, 1:-1], number[1:-1, :-2], number[:-2, 1:-1])
    return np.stack([side[place] for side in sides], axis=1)


@jit
def minimum_cut(neighbours: Any, capacity: Any, terminal: Any) -> Any:
    """Find the side of each node in a minimum cut.

    Args:
        neighbours: int32 ``[N, 4]``, see :func:`neighbours_of`; direction d's opposite is
            (d + 2) % 4.
        capacity: int32 ``[N, 4]``: what each arc can carry from the node; residuals on return.
        terminal: int32 ``[N]``: above 0 the capacity from the source, below 0 minus the one to
            the sink; residuals on return.

    Returns:
        The flow, and bool ``[N]``: True on the sink's side. Where several cuts are minimal, the
        source's side is the larger tree's.
    """
    count = len(terminal)
    tree = np.zeros(count, np.uint8)
    parent = np.full(count, _NONE, np.uint8)
    seen = np.zeros(count, np.int32)  # the time at which `depth` was right
    depth = np.zeros(count, np.int32)
    queue = np.empty(count + 1, np.int32)  # a ring of active nodes
    queued = np.zeros(count, np.bool_)
    orphans = np.empty(count + 1, np.int32)
    head = tail = 0
    for node in range(count):
        if terminal[node] != 0:
            tree[node] = _SOURCE if terminal[node] > 0 else _SINK
            parent[node] = _TERMINAL
            depth[node] = 1
            queue[tail] = node
            tail += 1
            queued[node] = True
    time, flow = 0, np.int64(0)
    node = -1
    while True:
        if node < 0 or tree[node] == _FREE:
            if head == tail:
                break
            node = queue[head]
            head = head + 1 if head < count else 0
            queued[node] = False
            if tree[node] == _FREE:
                node = -1
                continue
        # Growth: take in free neighbours until the other tree is met.
        meeting = -1
        for way in range(4):
            other = neighbours[node, way]
            if other < 0:
                continue
            back = (way + 2) & 3
            room = capacity[node, way] if tree[node] == _SOURCE else capacity[other, back]
            if room == 0:
                continue
            if tree[other] == _FREE:
                tree[other], parent[other] = tree[node], back
                seen[other], depth[other] = seen[node], depth[node] + 1
                if not queued[other]:
                    queued[other] = True
                    queue[tail] = other
                    tail = tail + 1 if tail < count else 0
            elif tree[other] != tree[node]:
                meeting = way
                break
            elif seen[other] <= seen[node] and depth[other] > depth[node]:
                parent[other], seen[other], depth[other] = back, seen[node], depth[node] + 1
        if meeting < 0:
            node = -1
            continue
        time += 1
        # Augmentation: from the source's end `first` to the sink's end `second`.
        if tree[node] == _SOURCE:
            first, second, way = node, neighbours[node, meeting], meeting
        else:
            first, second, way = neighbours[node, meeting], node, (meeting + 2) & 3
        least = capacity[first, way]
        at = first
        while parent[at] != _TERMINAL:
            above = neighbours[at, parent[at]]
            least = min(least, capacity[above, (parent[at] + 2) & 3])
            at = above
        least = min(least, terminal[at])
        at = second
        while parent[at] != _TERMINAL:
            least = min(least, capacity[at, parent[at]])
            at = neighbours[at, parent[at]]
        least = min(least, -terminal[at])
        flow += least
        waiting = 0
        capacity[first, way] -= least
        capacity[second, (way + 2) & 3] += least
        at = first
        while parent[at] != _TERMINAL:
            up = parent[at]
            above = neighbours[at, up]
            capacity[at, up] += least
            capacity[above, (up + 2) & 3] -= least
            if capacity[above, (up + 2) & 3] == 0:
                parent[at] = _ORPHAN
                orphans[waiting] = at
                waiting += 1
            at = above
        terminal[at] -= least
        if terminal[at] == 0:
            parent[at] = _ORPHAN
            orphans[waiting] = at
            waiting += 1
        at = second
        while parent[at] != _TERMINAL:
            up = parent[at]
            above = neighbours[at, up]
            capacity[at, up] -= least
            capacity[above, (up + 2) & 3] += least
            if capacity[at, up] == 0:
                parent[at] = _ORPHAN
                orphans[waiting] = at
                waiting += 1
            at = above
        terminal[at] += least
        if terminal[at] == 0:
            parent[at] = _ORPHAN
            orphans[waiting] = at
            waiting += 1
        # Adoption: each orphan looks for the shortest way to its own terminal.
        while waiting > 0:
            waiting -= 1
            orphan = orphans[waiting]
            side = tree[orphan]
            best, shortest = -1, _FAR
            for way in range(4):
                other = neighbours[orphan, way]
                if other < 0 or tree[other] != side:
                    continue
                back = (way + 2) & 3
                room = capacity[other, back] if side == _SOURCE else capacity[orphan, way]
                if room == 0:
                    continue
                at, steps = other, 0
                while True:
                    if seen[at] == time:
                        steps += depth[at]
                        break
                    steps += 1
                    up = parent[at]
                    if up == _TERMINAL:
                        seen[at], depth[at] = time, 1
                        break
                    if up >= _ORPHAN:
                        steps = _FAR
                        break
                    at = neighbours[at, up]
                if steps >= _FAR:
                    continue
                if steps < shortest:
                    best, shortest = way, steps
                at = other
                while seen[at] != time:
                    seen[at], depth[at] = time, steps
                    steps -= 1
                    at = neighbours[at, parent[at]]
            if best >= 0:
                parent[orphan], seen[orphan], depth[orphan] = best, time, shortest + 1
                continue
            for way in range(4):
                other = neighbours[orphan, way]
                if other < 0 or tree[other] != side:
                    continue
                back = (way + 2) & 3
                room = capacity[other, back] if side == _SOURCE else capacity[orphan, way]
                if room > 0 and not queued[other]:
                    queued[other] = True
                    queue[tail] = other
                    tail = tail + 1 if tail < count else 0
                if parent[other] == back:
                    parent[other] = _ORPHAN
                    orphans[waiting] = other
                    waiting += 1
            tree[orphan], parent[orphan] = _FREE, _NONE
    return flow, tree == _SINK
