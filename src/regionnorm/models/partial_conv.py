"""Inpainting with partial convolutions (Liu et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.models.base import InpaintingModel, at_least_float32
from regionnorm.nn.norm import MaskedNorm, make_norm
from regionnorm.nn.partial_conv import PartialConv2d
from regionnorm.nn.region_norm import resize_mask

__all__ = ["PartialConvNet"]

_KERNELS = (7, 5, 5)  # of the first layers; 3 from there on
_FEWEST = 8  # pixels of a level's side on the smallest picture; fewer say nothing about a region


class PartialConvNet(InpaintingModel):
    """A U-Net of partial convolutions.

    The encoder halves the size at each level (ReLU, no norm at the first); the decoder doubles it,
    puts the encoder's features beside and convolves (LeakyReLU 0.2; neither norm nor activation
    at the last). A region of one pixel, as the deepest levels have them, is its own mean, and
    normalising each channel by itself would wipe it out: where RN's statistics are those of single
    channels of single photos, the deepest three levels take them over all channels instead.

    Args:
        encoder: Norm of the encoder: ``"bn"`` in the paper; ``"rn-b"``, ``"rn-l"``, ``"in"`` or
            ``"none"``.
        decoder: Norm of the decoder.
        width: Channels of the first convolution; 64 in the paper. Deeper levels have 2, 4 and
            then 8 times as many.
        levels: How often the size is halved; 7 for 256 pixels, 8 for the paper's 512.
        stats: What shares statistics in RN-B and RN-L, see :func:`regionnorm.region_norm`.
        threshold: Threshold of RN-L (eq. 15).
        track_running_stats: Running averages in RN-B and RN-L for evaluation, see
            :class:`regionnorm.RegionNorm2d`; with ``stats="batch"``.
        frozen_encoder_norm: Keep batch normalisation in the encoder as it is, for the paper's
            second part of training.
    """

    def __init__(
        self,
        encoder: str = "bn",
        decoder: str = "bn",
        *,
        width: int = 64,
        levels: int = 7,
        stats: str = "instance",
        threshold: float = 0.8,
        track_running_stats: bool = False,
        frozen_encoder_norm: bool = False,
    ) -> None:
        super().__init__()
        if width < 1 or levels < 2:
            raise ValueError(f"width is {width} and levels {levels}; expected >= 1 and >= 2")

        def norm(kind: str, features: int, halvings: int, activation: str | None) -> MaskedNorm:
            few = 2 ** (levels - halvings) < _FEWEST
            return make_norm(
                kind,
                features,
                stats="layer" if few and stats == "instance" else stats,
                threshold=threshold,
                activation=activation,
                track_running_stats=track_running_stats,
            )

        self.stride = 2**levels
        self.frozen_encoder_norm = frozen_encoder_norm
        channels = [3, *(width * min(2**level, 8) for level in range(levels))]
        self.encoder, self.encoder_norms = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.decoder_norms = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            before, after = channels[level : level + 2]
            kernel = _KERNELS[level] if level < len(_KERNELS) else 3
            self.encoder.append(PartialConv2d(before, after, kernel, stride=2, padding=kernel // 2))
            self.encoder_norms.append(norm(encoder if level else "none", after, level + 1, "relu"))
            self.decoder.append(PartialConv2d(after + before, before, 3, padding=1))
            self.decoder_norms.append(norm(decoder if level else "none", before, level, None))
        for convolution in (*self.encoder, *self.decoder):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
        self.train()

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """Predict the picture; see :meth:`InpaintingModel.fill`."""
        x, known = image, 1 - mask
        skips, regions = [], [mask]
        for convolution, normalise in zip(self.encoder, self.encoder_norms, strict=True):
            skips.append((x, known))
            x, known = convolution(x, known)
            regions.append(resize_mask(mask, (x.shape[-2], x.shape[-1])))
            x = normalise(x, regions[-1])
        for level in reversed(range(len(skips))):
            x, known = self._beside(x, known, *skips[level])
            x, known = self.decoder[level](x, known)
            x = self.decoder_norms[level](x, regions[level])
            if level:
                x = F.leaky_relu(x, 0.2)
        return at_least_float32(x)

    def train(self, mode: bool = True) -> PartialConvNet:
        """As usual, but frozen norms stay in evaluation."""
        super().train(mode)
        if self.frozen_encoder_norm:
            self.encoder_norms.eval().requires_grad_(False)
        return self

    def _beside(
        self, deep: Tensor, deep_known: Tensor, skip: Tensor, skip_known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Double the deeper features and put the encoder's beside them.

        Beside them the share of the channels that is known: one map takes a third of the time
        that one for each channel takes.
        """
        deep, deep_known = (F.interpolate(part, scale_factor=2) for part in (deep, deep_known))
        # Under autocast the image is wider than the features.
        skip = torch.where(skip_known > 0, skip, 0.0).to(deep.dtype)
        x = torch.cat([torch.where(deep_known > 0, deep, 0.0), skip], dim=1)
        known = deep_known * deep.shape[1] + skip_known * skip.shape[1]
        return x, known / x.shape[1]
