"""Between photo and network: what a network sees, and what of its fill is believed.

A network adds detail of about the strength that its training photos have, whatever it is shown. So
a picture of little contrast is stretched before it and taken back behind it, and a fill stays
within what the known pixels beside its hole show: even ground stays even, gray stays gray.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regionnorm.masks.regions import dilate_square, label_regions
from regionnorm.nn.prefill import push_pull

__all__ = ["conditioned"]

Run = Callable[[Tensor, Tensor], Tensor]

_CONTRAST = 0.8  # range of values that a picture is stretched to at least, of 1
_MOST_GAIN = 100.0
_NEAR = 64  # pixels around the holes whose range counts; what is brighter further off is cut
_BESIDE = 16  # pixels around a hole that its fill is held against
_EVEN, _UNEVEN = 2 / 255, 8 / 255  # ranges from even ground, which needs no network, to any other


def conditioned(run: Run) -> Run:
    """Wrap a network so that its fills fit pictures of any range and colour.

    Args:
        run: Image ``[1, 3, h, w]`` in [0, 1] and mask ``[1, 1, h, w]``, 1 = hole, to image; on the
            CPU, in float32.

    Returns:
        A function like ``run``. Outside the hole it returns what the network does.
    """

    def fit(image: Tensor, mask: Tensor) -> Tensor:
        hole = mask > 0.5
        middle, target, gain = _stretch(image, hole)
        if gain > 1:
            shown = ((image - middle) * gain + target).clamp(0, 1).masked_fill(hole, 0)
            output = (run(shown, mask) - target) / gain + middle
        else:
            output = run(image, mask)
        return torch.where(hole, _believed(image, output, hole), output)

    return fit


def _stretch(image: Tensor, hole: Tensor) -> tuple[float, float, float]:
    """The middle of the known values near the hole, where to move it, and the gain around it."""
    near = _dilate(hole, _NEAR) & ~hole
    if not near.any():
        return 0.0, 0.0, 1.0
    low, high = (float(value) for value in image[near.expand_as(image)].aminmax())
    gain = min(_MOST_GAIN, max(1.0, _CONTRAST / max(high - low, 1e-9)))
    middle, half = (low + high) / 2, gain * (high - low) / 2
    # As little as the range allows: a dark picture stays dark.
    return middle, min(max(middle, half), 1 - half), gain


def _believed(image: Tensor, output: Tensor, hole: Tensor) -> Tensor:
    """Hold each hole's fill within the brightness and the colours of what is known beside it.

    Where that is next to even, the fill is its smooth continuation.
    """
    labels, count = label_regions(_dilate(hole, _BESIDE)[0, 0].numpy())
    groups = torch.from_numpy(labels).long().flatten()
    known = (groups > 0) & ~hole.flatten()
    planes, limits = _planes(output), _limits(_planes(image), groups, known, count + 1)
    even = ((_UNEVEN - limits[2]) / (_UNEVEN - _EVEN)).clamp(0, 1)
    if (even > 0).any():
        share = even[groups].view_as(hole)
        planes = torch.lerp(planes, _planes(push_pull(image, hole.float())), share)
    low, high = (limit[:, groups].view_as(planes) for limit in limits[:2])
    green, red, blue = planes.clamp(low, high).unbind(1)
    return torch.stack([green + red, green, green + blue], 1)


def _limits(planes: Tensor, groups: Tensor, known: Tensor, count: int) -> list[Tensor]:
    """Least and greatest value of each plane beside each group ``[3, count]``, and its range."""
    values, places = planes.flatten(2)[0][:, known], groups[known].expand(3, -1)
    low, high = (
        torch.full((3, count), start).scatter_reduce(1, places, values, how)
        for start, how in ((float("inf"), "amin"), (-float("inf"), "amax"))
    )
    # Nothing known beside it: nothing to hold a fill against.
    nothing = low > high
    low, high = low.masked_fill(nothing, -9.0), high.masked_fill(nothing, 9.0)
    return [low, high, (high - low).amax(0)]


def _planes(image: Tensor) -> Tensor:
    """Green, and how far red and blue are from it: exactly 0 for gray, as no mean would give."""
    red, green, blue = image.unbind(1)
    return torch.stack([green, red - green, blue - green], 1)


def _dilate(hole: Tensor, radius: int) -> Tensor:
    return torch.from_numpy(dilate_square(hole[0, 0].numpy(), radius))[None, None]
