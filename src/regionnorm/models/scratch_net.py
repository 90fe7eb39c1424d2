"""A small U-Net that finds marks on old photos; with RN-L it finds its own regions on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.nn.norm import MaskedNorm, make_norm

__all__ = ["ScratchNet", "grow", "logits_of_views"]

_DILATIONS = (1, 2, 4, 8)  # of the residual units of a level, one after the other
_UNSHUFFLE = 2  # the first level has half the photo's resolution, and four times its channels


class ScratchNet(nn.Module):
    """Photo to logits of where a mark is.

    Args:
        norm: ``"rn-l"``, ``"in"``, ``"bn"`` or ``"none"``, behind the last convolution of every
            level: behind all of them it costs a fifth of the speed.
        stats: What shares statistics in RN-L; ``"batch"`` keeps running averages, so that a
            pixel's logit does not depend on what else a tile shows.
        widths: Channels of the four levels, at a half, a quarter, an eighth and a sixteenth.
        refine: How many residual units each of these levels has on the way up, with dilations of
            1, 2, 4, 8 and again 1: what belongs to one line is told from what is near it there.
    """

    stride = 16

    def __init__(
        self,
        *,
        norm: str = "rn-l",
        stats: str = "batch",
        widths: tuple[int, int, int, int] = (16, 32, 48, 48),
        refine: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"widths is {widths}; expected four numbers above 0")
        if len(refine) != 4 or min(refine) < 0:
            raise ValueError(f"refine is {refine}; expected four numbers, 0 or more")
        self.options: dict[str, Any] = {"norm": norm, "stats": stats, "widths": list(widths)}
        if any(refine):  # files of networks without are read by earlier versions, too
            self.options["refine"] = list(refine)

        def residual(channels: int, count: int) -> nn.Sequential:
            places = range(count)
            dilations = [_DILATIONS[place % len(_DILATIONS)] for place in places]
            return nn.Sequential(*(_Residual(channels, norm, stats, d) for d in dilations))

        def level(channels: int, out: int, *, stride: int = 1) -> nn.Module:
            return nn.Sequential(
                _Unit(channels, out, "none", stats, stride=stride), _Unit(out, out, norm, stats)
            )

        first, *others = widths
        channels = 3 * _UNSHUFFLE**2
        self.encoder = nn.ModuleList([level(channels, first)])
        for above, below in zip(widths[:-1], others, strict=True):
            self.encoder.append(level(above, below, stride=2))
        last = widths[-1]
        self.context = nn.Sequential(
            _Unit(last, last, "none", stats, dilation=2), _Unit(last, last, norm, stats, dilation=4)
        )
        self.narrow = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.refine = nn.ModuleList([residual(last, refine[-1])])
        for below, above, count in zip(widths[:0:-1], widths[-2::-1], refine[-2::-1], strict=True):
            self.narrow.append(nn.Conv2d(below, above, 1))
            self.decoder.append(level(above, above))
            self.refine.append(residual(above, count))
        self.output = nn.Conv2d(first, _UNSHUFFLE**2, 3, padding=1)
        for module in self.modules():
            if isinstance(module, _Unit):
                nn.init.kaiming_normal_(module.convolution.weight, nonlinearity="relu")
        # One pixel in twenty is a mark: to learn that much takes the first hundred steps otherwise.
        nn.init.constant_(self.output.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Photos ``[N, 3, H, W]`` in [0, 1] to logits ``[N, 1, H, W]``, float32.

        Raises:
            ValueError: The sides are no multiples of 16.
        """
        if image.dim() != 4 or image.shape[1] != 3 or any(s % self.stride for s in image.shape[2:]):
            raise ValueError(
                f"image has shape {list(image.shape)}; expected [N, 3, H, W] with sides that are "
                f"multiples of {self.stride}"
            )
        x = F.pixel_unshuffle(4 * image - 2, _UNSHUFFLE)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        first, *others = self.refine
        x = first(skips.pop() + self.context(x))
        for narrow, level, refine in zip(self.narrow, self.decoder, others, strict=True):
            x = skips.pop() + F.interpolate(narrow(x), scale_factor=2, mode="nearest")
            x = refine(level(x))
        return F.pixel_shuffle(self.output(x).float(), _UNSHUFFLE)


@torch.no_grad()
def grow(network: ScratchNet, smaller: ScratchNet) -> None:
    """Give a network what a smaller one has learned: at first it says just what that one says.

    Channels that only the larger one has start at random and are heard by nothing yet; residual
    units change nothing at first, see :class:`ScratchNet`. With RN-L that holds for levels of the
    same width: it finds its regions by all channels.

    Args:
        network: The larger one; no level may be narrower, and the norm must be the same.
        smaller: Where to take parameters from.

    Raises:
        ValueError: It does not fit into ``network``.
    """
    own = network.state_dict()
    for name, value in smaller.state_dict().items():
        place = own.get(name)
        if place is None or any(a > b for a, b in zip(value.shape, place.shape, strict=True)):
            raise ValueError(f"{name} of the smaller network has no room in the larger one")
        inside = tuple(slice(0, side) for side in value.shape)
        if value.dim() == 4:  # what is there already does not listen to what is new
            place[: value.shape[0], value.shape[1] :] = 0
        place[inside] = value


def logits_of_views(network: nn.Module, image: Tensor) -> Tensor:
    """The mean of a network's logits for a photo as it is and turned by each quarter.

    What the network takes for a mark in one view only, it takes less for one so.

    Args:
        network: Photos ``[N, 3, H, W]`` to logits ``[N, 1, H, W]``.
        image: Photos.
    """
    views = [_last(torch.rot90(image, turns, (2, 3))) for turns in range(4)]
    logits = [
        torch.rot90(network(view).float(), -turns, (2, 3)) for turns, view in enumerate(views)
    ]
    return torch.stack(logits).mean(0)


def _last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def _norm(kind: str, channels: int, stats: str, *, activation: str | None) -> MaskedNorm:
    options = {"track_running_stats": True} if kind == "rn-l" and stats == "batch" else {}
    return make_norm(kind, channels, stats=stats, activation=activation, bound=0.5, **options)


class _Unit(nn.Module):
    """A convolution, a norm and a ReLU."""

    def __init__(
        self,
        channels: int,
        out: int,
        norm: str,
        stats: str,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels, out, 3, stride=stride, padding=dilation, dilation=dilation
        )
        self.norm = _norm(norm, out, stats, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        x = self.convolution(x)
        # RN-L finds its own mask; no norm here takes one.
        y: Tensor = self.norm(x, torch.empty(0))
        return y


class _Residual(nn.Module):
    """A convolution and a norm whose result is added, then a ReLU; at first nothing is added."""

    def __init__(self, channels: int, norm: str, stats: str, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm = _norm(norm, channels, stats, activation=None)
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Features to features, both 0 or more."""
        y: Tensor = self.norm(self.convolution(x), torch.empty(0))
        return F.relu(x + self.scale.to(y.dtype) * y)
