"""The two stages that contextual attention and gated convolution share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.models.base import InpaintingModel, at_least_float32
from regionnorm.nn.contextual_attention import contextual_attention
from regionnorm.nn.norm import MaskedNorm, make_norm
from regionnorm.nn.region_norm import resize_mask

__all__ = ["CoarseToFine", "NormMaker", "UnitMaker"]

NormMaker = Callable[[str, int], MaskedNorm | None]


class UnitMaker(Protocol):
    """Makes a convolution with norm and activation, called as ``unit(x, mask)``."""

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: MaskedNorm | None = None,
        activation: Callable[[Tensor], Tensor] = F.elu,
    ) -> nn.Module:
        """Zero padding keeps the size but for ``stride``."""
        ...


# Of each convolution: channels in multiples of the width, kernel size, stride, dilation.
_Layers = Sequence[tuple[int, int, int, int]]
_DILATED: _Layers = ((4, 3, 1, 2), (4, 3, 1, 4), (4, 3, 1, 8), (4, 3, 1, 16))
COARSE_ENCODER: _Layers = (
    (1, 5, 1, 1),
    (2, 3, 2, 1),
    (2, 3, 1, 1),
    (4, 3, 2, 1),
    (4, 3, 1, 1),
    (4, 3, 1, 1),
)
COARSE_MIDDLE: _Layers = (*_DILATED, (4, 3, 1, 1), (4, 3, 1, 1))
REFINE_CONVOLUTIONS: _Layers = (
    (1, 5, 1, 1),
    (1, 3, 2, 1),
    (2, 3, 1, 1),
    (2, 3, 2, 1),
    (4, 3, 1, 1),
    (4, 3, 1, 1),
    *_DILATED,
)
REFINE_ATTENTION: _Layers = (
    (1, 5, 1, 1),
    (1, 3, 2, 1),
    (2, 3, 1, 1),
    (4, 3, 2, 1),
    (4, 3, 1, 1),
)
PLAIN_PAIR: _Layers = ((4, 3, 1, 1), (4, 3, 1, 1))


class CoarseToFine(InpaintingModel):
    """A coarse network paints; a second one, with contextual attention, paints over it.

    Pictures are in [-1, 1] inside. A norm acts in the coarse network only: ``encoder`` before its
    dilated convolutions, ``later`` from there on.

    Args:
        unit: Makes a family's convolutions.
        limit: Brings the output of both networks to [-1, 1].
        refine_channels: Input of the second network: 3, the picture, or 5, also ones and mask.
        encoder: ``"rn-b"``, ``"rn-l"``, ``"in"``, ``"bn"`` or ``"none"``.
        later: Likewise.
        channels: Channels of the first convolution's result, even.
        stats: What shares statistics in RN-B and RN-L.
        threshold: Threshold of RN-L.
        track_running_stats: Of RN-B and RN-L, with ``stats="batch"``.
    """

    stride = 8  # two halvings, and attention at half of that

    def __init__(
        self,
        unit: UnitMaker,
        limit: Callable[[Tensor], Tensor],
        refine_channels: int,
        *,
        encoder: str,
        later: str,
        channels: int,
        stats: str,
        threshold: float,
        track_running_stats: bool,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.refine_channels = refine_channels

        def norm(kind: str, features: int) -> MaskedNorm | None:
            if kind == "none":
                return None
            return make_norm(
                kind,
                features,
                stats=stats,
                threshold=threshold,
                track_running_stats=track_running_stats,
            )

        width, deep = channels, 4 * channels
        self.coarse_encoder = _Stack(unit, COARSE_ENCODER, 5, width, norm, encoder)
        self.coarse_middle = _Stack(unit, COARSE_MIDDLE, deep, width, norm, later, level=2)
        self.coarse_decoder = _Decoder(unit, width, norm, later)

        self.refine_convolutions = _Stack(unit, REFINE_CONVOLUTIONS, refine_channels, width)
        self.refine_attention = _Stack(unit, REFINE_ATTENTION, refine_channels, width)
        # Features to compare are not negative, so that their cosine says how alike they are.
        self.attention_features = unit(deep, deep, 3, activation=torch.relu)
        self.after_attention = _Stack(unit, PLAIN_PAIR, deep, width, level=2)
        self.merge = _Stack(unit, PLAIN_PAIR, 2 * deep, width, level=2)
        self.refine_decoder = _Decoder(unit, width)

    def fill_stages(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """``"coarse"`` and ``"output"``, both whole pictures in [0, 1]."""
        masks = [mask, *(resize_mask(mask, _halved(mask, times)) for times in (1, 2))]
        known = (2 * image - 1) * (1 - mask)
        hints = torch.cat([torch.ones_like(mask), mask], dim=1)
        x = self.coarse_encoder(torch.cat([known, hints], dim=1), masks)
        x = self.coarse_decoder(self.coarse_middle(x, masks), masks)
        coarse = self.limit(at_least_float32(x))
        pasted = known + coarse.to(known.dtype) * mask
        fine = self.limit(at_least_float32(self._refine(pasted, hints, masks)))
        return {"coarse": (coarse + 1) / 2, "output": (fine + 1) / 2}

    def _refine(self, pasted: Tensor, hints: Tensor, masks: list[Tensor]) -> Tensor:
        if self.refine_channels == 5:
            pasted = torch.cat([pasted, hints], dim=1)
        convolved = self.refine_convolutions(pasted, masks)
        x = self.attention_features(self.refine_attention(pasted, masks), masks[2])
        x = self.after_attention(contextual_attention(x, x, masks[2]), masks)
        x = self.merge(torch.cat([convolved, x], dim=1), masks)
        painted: Tensor = self.refine_decoder(x, masks)
        return painted


class _Stack(nn.Module):
    """Units one after the other, each with the mask of its resolution."""

    def __init__(
        self,
        unit: UnitMaker,
        layers: _Layers,
        in_channels: int,
        width: int,
        norm: NormMaker | None = None,
        kind: str = "none",
        *,
        level: int = 0,
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        self.levels = []  # how often the size has been halved
        for multiple, kernel, stride, dilation in layers:
            channels = multiple * width
            self.units.append(
                unit(
                    in_channels,
                    channels,
                    kernel,
                    stride=stride,
                    dilation=dilation,
                    norm=norm(kind, channels) if norm else None,
                )
            )
            level += stride == 2
            self.levels.append(level)
            in_channels = channels

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        for unit, level in zip(self.units, self.levels, strict=True):
            x = unit(x, masks[level])
        return x


class _Decoder(nn.Module):
    """Twice double the size and convolve; then three channels without an activation."""

    def __init__(
        self, unit: UnitMaker, width: int, norm: NormMaker | None = None, kind: str = "none"
    ) -> None:
        super().__init__()

        def make(before: int, after: int) -> nn.Module:
            return unit(before, after, 3, norm=norm(kind, after) if norm else None)

        self.at_half = nn.ModuleList([make(4 * width, 2 * width), make(2 * width, 2 * width)])
        self.at_full = nn.ModuleList([make(2 * width, width), make(width, width // 2)])
        self.output = nn.Conv2d(width // 2, 3, 3, padding=1)

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        for units, mask in ((self.at_half, masks[1]), (self.at_full, masks[0])):
            x = F.interpolate(x, scale_factor=2)
            for unit in units:
                x = unit(x, mask)
        painted: Tensor = self.output(x)
        return painted


def _halved(mask: Tensor, times: int) -> tuple[int, int]:
    return mask.shape[-2] // 2**times, mask.shape[-1] // 2**times
