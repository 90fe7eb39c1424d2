"""Hole masks of exact area, drawn for a whole batch at once on any device.

Each mask comes from a scalar field over the picture: the distance to random strokes or shapes,
smooth noise, or a mixture. The hole is where the field is lowest, exactly as many pixels as wanted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.masks.generated import MIN_SIDE

__all__ = ["FIELD_KINDS", "field_masks"]

FIELD_KINDS: tuple[str, ...] = (
    "free-form",
    "scratch",
    "ellipse",
    "box",
    "blob",
    "combined",
    "noise",
)
"""What :func:`field_masks` draws, from bent brush strokes to islands of smooth noise."""

_WEIGHTS = (0.38, 0.14, 0.08, 0.10, 0.11, 0.13, 0.06)
_FREE_FORM, _SCRATCH, _ELLIPSE, _BOX, _BLOB, _COMBINED, _NOISE = range(len(FIELD_KINDS))
_SMALLEST_SHARE = 0.01  # as GeneratedMasks draws them
_MOST_SCRATCHED = 0.3
_SEGMENTS = 48  # all strokes of a mask together
_STROKES, _SCRATCHES = 6, 16
_SHAPES = 4
_SEGMENTS_AT_ONCE = 4


def field_masks(
    generator: torch.Generator,
    batch: int,
    height: int,
    width: int,
    *,
    max_area: float = 0.6,
) -> Tensor:
    """Draw masks whose areas are uniform up to ``max_area``; half of them touch the border.

    A function of the generator's state alone; nothing waits for the device.

    Args:
        generator: where all randomness comes from; the masks are made on its device.
        batch: how many masks.
        height: rows, at least 16.
        width: columns, at least 16.
        max_area: the largest share of hole pixels, above 0 and at most 0.95. The smallest is a
            hundredth, below which a hole is a few pixels.

    Returns:
        float32 ``[batch, 1, height, width]``, 1 in the hole. Every other mask touches the border,
        from the first or the second on; the others stay clear of it, unless their hole is too
        large for that.

    Raises:
        ValueError: for a size below 16, no masks, or ``max_area`` out of range.
    """
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"mask size {height}x{width}: both sides must be at least {MIN_SIDE} px")
    if not 0 < max_area <= 0.95:
        raise ValueError(f"max_area {max_area:g}: must be above 0 and at most 0.95")
    if batch < 1:
        raise ValueError(f"batch {batch}: must be at least 1")
    return _Draw(generator, batch, height, width, max_area).masks()


class _Draw:
    """One batch of masks. Lengths count in the short side, ``u`` to the right and ``v`` down."""

    def __init__(
        self, generator: torch.Generator, batch: int, height: int, width: int, max_area: float
    ) -> None:
        self.generator, self.device, self.batch = generator, generator.device, batch
        self.height, self.width, short = height, width, min(height, width)
        self.right, self.bottom = width / short, height / short
        self.room = _pair(self.right, self.bottom, self.device)
        self.u = (torch.arange(width, device=self.device) + 0.5) / short
        self.v = (torch.arange(height, device=self.device) + 0.5) / short
        least = min(_SMALLEST_SHARE, max_area)
        pixels = height * width
        shares = self.uniform(least, max_area)
        self.count = (shares * pixels).round().clamp(1, math.floor(max_area * pixels) or 1)
        self.area = self.count / pixels * self.right * self.bottom
        first = torch.randint(2, (1,), generator=generator, device=self.device)
        clear = (torch.arange(batch, device=self.device) + first) % 2 == 1
        # A hole that is kept off the border needs room to have a shape of its own.
        self.clear = clear & (self.count <= 0.8 * (height - 2) * (width - 2))
        self.kind = self._kinds(self.count / pixels)
        self.border = self._border_points()

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return uniform numbers ``[batch, *shape]``."""
        size = (self.batch, *shape)
        random = torch.rand(size, generator=self.generator, device=self.device)
        return low + (high - low) * random

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers ``[batch, *shape]``."""
        size = (self.batch, *shape)
        return torch.randn(size, generator=self.generator, device=self.device)

    def masks(self) -> Tensor:
        """Return the masks ``[batch, 1, height, width]``."""
        part = self.uniform(0.3, 0.8)
        strokes = self._strokes(torch.where(self.kind == _COMBINED, 1 - part, 1.0) * self.area)
        shapes = self._shapes(torch.where(self.kind == _COMBINED, part, 1.0) * self.area)
        kind = self.kind[:, None, None]
        field = torch.where(kind <= _SCRATCH, strokes, shapes)
        field = torch.where(kind == _COMBINED, torch.minimum(strokes, shapes), field)
        field = torch.where(kind == _NOISE, self._noise(), field)
        return self._lowest(self._bordered(field))

    # --- choices ----------------------------------------------------------------------------------

    def _kinds(self, share: Tensor) -> Tensor:
        edges = torch.tensor(_WEIGHTS, dtype=torch.float64).cumsum(0)[:-1].tolist()
        chance = self.uniform(0, 1)
        kind = torch.zeros(self.batch, dtype=torch.long, device=self.device)
        for edge in edges:
            kind += chance >= edge
        # Scratches that cover a third of a picture are a hatching that no photo has.
        hatched = (kind == _SCRATCH) & (share > _MOST_SCRATCHED)
        return kind.masked_fill(hatched, _FREE_FORM)

    def _border_points(self) -> Tensor:
        """Return a pixel of the border for each mask: row and column ``[batch, 2]``."""
        side, place = self.uniform(0, 4).long(), self.uniform(0, 1)
        row, column = (place * self.height).long(), (place * self.width).long()
        row = torch.where(side == 0, 0, torch.where(side == 1, self.height - 1, row))
        column = torch.where(side == 2, 0, torch.where(side == 3, self.width - 1, column))
        return torch.stack([row.clamp(max=self.height - 1), column.clamp(max=self.width - 1)], 1)

    def _starts(self, points: Tensor, inset: Tensor) -> Tensor:
        """Scale points ``[B, N, 2]`` from 0..1 to the picture, kept off the border by ``inset``.

        Where the hole is to touch the border, the first point lies there, and none is kept off.
        """
        room = self.room
        inset = torch.where(self.clear, inset, 0.0)[:, None, None].minimum(0.45 * room)
        points = inset + points * (room - 2 * inset)
        touching = torch.stack([self.u[self.border[:, 1]], self.v[self.border[:, 0]]], dim=1)
        first = torch.where(self.clear[:, None], points[:, 0], touching)
        return torch.cat([first[:, None], points[:, 1:]], dim=1)

    # --- fields -----------------------------------------------------------------------------------

    def _strokes(self, area: Tensor) -> Tensor:
        """Distance to bent strokes or nearly straight scratches in units of their half width."""
        scratch = self.kind == _SCRATCH
        most = torch.where(scratch, _SCRATCHES, _STROKES)
        count = 1 + (self.uniform(0, 1) * most).long()
        joints = torch.where(scratch, _SEGMENTS // _SCRATCHES, _SEGMENTS // _STROKES)
        brush = torch.where(
            scratch, self.uniform(0.006, 0.025), 0.03 * torch.pow(7.0, self.uniform(0, 1))
        )
        # As long as the area and the brush ask for, but no segment so long that bends turn to
        # spikes; what is then missing, a wider brush makes up for.
        longest = torch.where(scratch, 0.4, 0.2)
        length = (1.2 * area / (brush * count * joints)).minimum(longest)
        brush = 1.2 * area / (length * count * joints)
        turn = torch.where(scratch, self.uniform(0.02, 0.2), self.uniform(0.15, 0.9))
        begin, end = self._paths(count, joints, length, turn, inset=0.6 * brush)
        widths = (brush / 2)[:, None] * self.uniform(0.75, 1.25, _SEGMENTS)
        return self._distance(begin, end, widths)

    def _paths(
        self, count: Tensor, joints: Tensor, length: Tensor, turn: Tensor, inset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ends of the segments of random walks, ``[B, 48, 2]`` each as u, v.

        Segment i belongs to stroke ``i // joints``; a walk that leaves the picture is mirrored in
        its edge. Strokes beyond ``count`` repeat the first.
        """
        number = torch.arange(_SEGMENTS, device=self.device)
        stroke, first = number // joints[:, None], number % joints[:, None] == 0
        stroke = torch.where(stroke < count[:, None], stroke, 0)
        turns = self.normal(_SEGMENTS) * turn[:, None]
        turns = torch.where(first, self.uniform(0, 2 * math.pi, _SEGMENTS), turns)
        headings = _sum_from(turns, first)
        steps = length[:, None] * self.uniform(0.6, 1.4, _SEGMENTS)
        moves = torch.stack([steps * headings.cos(), steps * headings.sin()], dim=2)
        starts = self._starts(self.uniform(0, 1, _SCRATCHES, 2), inset)
        index = (number // joints[:, None])[..., None].expand(-1, -1, 2)
        start = starts.gather(1, index)
        end = start + _sum_from(moves, first[..., None])
        begin = end - moves
        # The segments of strokes that are not wanted become those of the first.
        source = stroke * joints[:, None] + number % joints[:, None]
        source = source[..., None].expand(-1, -1, 2)
        begin, end = begin.gather(1, source), end.gather(1, source)
        room = self.room
        margin = torch.where(self.clear, inset, 0.0)[:, None, None].minimum(0.45 * room)
        return _mirror(begin, margin, room - margin), _mirror(end, margin, room - margin)

    def _distance(self, begin: Tensor, end: Tensor, scale: Tensor) -> Tensor:
        """Distance ``[B, H, W]`` to the nearest of segments ``[B, N, 2]``, each by its scale."""
        middle, half = (begin + end) / 2, (end - begin) / 2
        length = half.norm(dim=2)
        along = half / length.clamp(min=1e-6)[..., None]
        best: Tensor | None = None
        for part in range(0, begin.shape[1], _SEGMENTS_AT_ONCE):
            chosen = slice(part, part + _SEGMENTS_AT_ONCE)
            cos, sin = (along[:, chosen] / scale[:, chosen, None]).unbind(dim=2)
            u0, v0 = middle[:, chosen].unbind(dim=2)
            # In the segment's own axes both coordinates are a row plus a column: one addition.
            ahead = self._plane(cos, sin, -cos * u0 - sin * v0)
            aside = self._plane(-sin, cos, sin * u0 - cos * v0)
            reach = (length[:, chosen] / scale[:, chosen])[..., None, None]
            beyond = ahead.abs_().sub_(reach).clamp_(min=0)
            square = beyond.mul_(beyond).addcmul_(aside, aside).amin(dim=1)
            best = square if best is None else torch.minimum(best, square)
        if best is None:
            raise ValueError("there are no segments to measure the distance to")
        return best.sqrt_()

    def _plane(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return ``a * u + b * v + c`` over the picture, ``[B, N, H, W]`` for ``[B, N]`` each."""
        rows = b[..., None] * self.v + c[..., None]
        columns = a[..., None] * self.u
        return rows[..., :, None] + columns[..., None, :]

    def _shapes(self, area: Tensor) -> Tensor:
        """Distance to the centres of shapes in units of their radius: 1 on their outline."""
        batch = self.batch
        count = 1 + (self.uniform(0, 1) * _SHAPES).long()
        size = self.uniform(0.7, 1.3, _SHAPES) * (area / (math.pi * count)).sqrt()[:, None]
        aspect = torch.exp(self.uniform(-0.3, 0.3, _SHAPES))
        centres = self._starts(self.uniform(0, 1, _SHAPES, 2), 1.3 * size.amax(dim=1))
        number = torch.arange(_SHAPES, device=self.device)
        wanted = number < count[:, None]
        angle = self.uniform(0, math.pi, _SHAPES)
        # Most boxes stand upright.
        solid = self.kind[:, None].expand(-1, _SHAPES)
        mixed = (self.uniform(0, 3)[:, None].long() + _ELLIPSE).expand(-1, _SHAPES)
        solid = torch.where(solid == _COMBINED, mixed, solid)
        angle = torch.where((solid == _BOX) & (self.uniform(0, 1, _SHAPES) < 0.7), 0.0, angle)
        cos, sin = angle.cos() / size, angle.sin() / size
        u0, v0 = centres.unbind(dim=2)
        ahead = self._plane(cos * aspect, sin * aspect, -(cos * u0 + sin * v0) * aspect)
        aside = self._plane(-sin / aspect, cos / aspect, (sin * u0 - cos * v0) / aspect)
        solid = solid.reshape(batch, _SHAPES, 1, 1)
        box = torch.maximum(ahead.abs(), aside.abs()) * (2 / math.sqrt(math.pi))
        radius = torch.hypot(ahead, aside)
        blob = radius / self._wobble(torch.atan2(aside, ahead))
        field = torch.where(solid == _BOX, box, torch.where(solid == _BLOB, blob, radius))
        return field.masked_fill(~wanted[..., None, None], math.inf).amin(dim=1)

    def _wobble(self, angle: Tensor) -> Tensor:
        """Radius of a blob by direction, about 1."""
        radius = torch.ones_like(angle)
        for wave in range(2, 6):
            size = self.uniform(0, 0.5 / wave, _SHAPES)[..., None, None]
            phase = self.uniform(0, 2 * math.pi, _SHAPES)[..., None, None]
            radius += size * torch.cos(wave * angle + phase)
        return radius.clamp_(min=0.2)

    def _noise(self) -> Tensor:
        """Return smooth noise of two scales; lowest at the border point where one is wanted."""
        size = (self.height, self.width)
        field = torch.zeros((self.batch, 1, *size), device=self.device)
        for cells, weight in ((5, 1.0), (11, 0.35)):
            grid = self.normal(1, cells, cells)
            field += weight * F.interpolate(grid, size, mode="bicubic", align_corners=True)
        u, v = self.u[self.border[:, 1]], self.v[self.border[:, 0]]
        square = (self.u - u[:, None])[:, None, :] ** 2 + (self.v - v[:, None])[:, :, None] ** 2
        valley = 3 * torch.exp(-square / 0.02)
        return field[:, 0] - torch.where(self.clear[:, None, None], 0.0, valley)

    # --- from field to mask -----------------------------------------------------------------------

    def _bordered(self, field: Tensor) -> Tensor:
        """Make sure that the hole touches the border, or that it does not."""
        edge_u = torch.minimum(self.u, self.right - self.u)
        edge_v = torch.minimum(self.v, self.bottom - self.v)
        edge = torch.minimum(edge_u[None, :], edge_v[:, None])  # to the nearest edge
        # The field rises towards the border, so that holes end round instead of being cut off.
        slope = 1 + (1 - edge / 0.08).clamp(min=0) ** 2
        lowest = field.amin(dim=(1, 2), keepdim=True)
        clear = lowest + (field - lowest) * slope + 0.2 * (slope - 1)
        outermost = torch.ones_like(edge, dtype=torch.bool)
        outermost[1:-1, 1:-1] = False
        clear = clear.masked_fill(outermost, math.inf)
        row = torch.arange(self.height, device=self.device) == self.border[:, :1]
        column = torch.arange(self.width, device=self.device) == self.border[:, 1:]
        touching = field.masked_fill(row[:, :, None] & column[:, None, :], -math.inf)
        return torch.where(self.clear[:, None, None], clear, touching)

    def _lowest(self, field: Tensor) -> Tensor:
        """Return masks of the ``count`` lowest pixels each, ``[B, 1, H, W]``."""
        order = field.flatten(1).argsort(dim=1, stable=True)
        chosen = torch.arange(order.shape[1], device=self.device) < self.count[:, None]
        mask = torch.zeros_like(field).flatten(1).scatter_(1, order, chosen.to(field.dtype))
        return mask.view(self.batch, 1, self.height, self.width)


def _pair(first: float, second: float, device: torch.device) -> Tensor:
    """Return ``[2]``, written on the device: copying it there would wait for the device."""
    pair = torch.full((2,), first, device=device)
    pair[1:].fill_(second)
    return pair


def _sum_from(values: Tensor, first: Tensor) -> Tensor:
    """Running sums along dimension 1 that begin anew wherever ``first`` is true."""
    total = values.cumsum(dim=1)
    before = total - values
    # What had been summed when the present run began: the latest of these, carried on.
    number = torch.arange(values.shape[1], device=values.device)
    number = number.reshape(1, -1, *([1] * (values.ndim - 2))).expand_as(values)
    began = torch.where(first.expand_as(values), number, 0).cummax(dim=1).values
    return total - before.gather(1, began)


def _mirror(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Fold values at ``low`` and ``high`` until they lie between, as light in a tube."""
    span = (high - low).clamp(min=1e-6)
    return low + span - torch.abs((values - low) % (2 * span) - span)
