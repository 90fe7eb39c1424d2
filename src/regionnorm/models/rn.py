"""The paper's generator (section 3.4) with a choice of normalisation for each stage."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.models.base import InpaintingModel, at_least_float32
from regionnorm.nn.convolution import NarrowConv2d, PaddedConv2d
from regionnorm.nn.noise import AddedNoise
from regionnorm.nn.norm import MaskedNorm, make_norm
from regionnorm.nn.prefill import push_pull
from regionnorm.nn.region_norm import resize_mask

__all__ = ["RNGenerator"]


class RNGenerator(InpaintingModel):
    """Encoder, residual blocks and decoder of EdgeConnect's image generator with RN inside.

    Args:
        encoder: Norm of the encoder: ``"rn-b"``, ``"rn-l"``, ``"in"``, ``"bn"`` or ``"none"``.
        residual: Norm of the residual blocks.
        decoder: Norm of the decoder.
        width: Channels of the first convolution; 64 in the paper.
        blocks: Number of residual blocks; 8 in the paper.
        stats: What shares statistics in RN-B and RN-L, see :func:`regionnorm.region_norm`.
        threshold: Threshold of RN-L (eq. 15).
        upsample: ``"pixelshuffle"`` (released code), ``"transpose"`` (the backbone's paper), or
            ``"pixelshuffle-blur"``: a binomial filter after the shuffle takes out every pattern
            that repeats with the shuffle's two pixels, so that no grid can be drawn.
        noise: Add noise of a learned strength in the decoder, see :class:`AddedNoise`.
        prefill: What stands in the hole at the input. ``"constant"``: ones, as in the paper; the
            network paints the picture. ``"diffusion"``: a push-pull fill, with the mask as a
            fourth channel because the fill hides it; the network adds a residual to the fill.
        track_running_stats: Running averages in RN-B and RN-L for evaluation, see
            :class:`regionnorm.RegionNorm2d`; with ``stats="batch"``.
        eps_on: ``"region"``, or ``"map"`` as in the released code, see the same.
        bound: Most that gamma and beta of RN-L may reach, see
            :class:`regionnorm.LearnableRegionNorm2d`; None as in the paper.
        skip: A convolution at full resolution sees the encoder's first features beside the
            decoder's last, and the output sees its result: what goes on across a hole of a few
            pixels need not pass a quarter of the resolution. The output's weights for it start
            at 0.
        output_scale: What the last convolution's result is multiplied by. Its inputs move
            together: at 1 a single early step of Adam shifts a pixel by a tenth of the range, where
            the residual wanted with ``prefill="diffusion"`` is a few hundredths.
    """

    stride = 4

    def __init__(
        self,
        encoder: str = "rn-b",
        residual: str = "rn-l",
        decoder: str = "rn-l",
        *,
        width: int = 64,
        blocks: int = 8,
        stats: str = "instance",
        threshold: float = 0.8,
        upsample: Literal["pixelshuffle", "pixelshuffle-blur", "transpose"] = "pixelshuffle",
        noise: bool = False,
        prefill: Literal["constant", "diffusion"] = "constant",
        track_running_stats: bool = False,
        eps_on: Literal["region", "map"] = "region",
        bound: float | None = None,
        skip: bool = False,
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if prefill not in ("constant", "diffusion"):
            raise ValueError(f"prefill is {prefill!r}; expected 'constant' or 'diffusion'")
        if not 0 < output_scale <= 1:
            raise ValueError(f"output_scale is {output_scale}; expected above 0 and at most 1")
        if width < 1 or blocks < 0:
            raise ValueError(f"width is {width} and blocks {blocks}; expected >= 1 and >= 0")
        self.prefill = prefill
        self.output_scale = output_scale

        def norm(kind: str, channels: int, activation: str | None = "relu") -> MaskedNorm:
            return make_norm(
                kind,
                channels,
                stats=stats,
                threshold=threshold,
                activation=activation,
                track_running_stats=track_running_stats,
                eps_on=eps_on,
                bound=bound,
            )

        channels = 4 if prefill == "diffusion" else 3
        self.encoder = nn.ModuleList(
            [
                PaddedConv2d(channels, width, 7, padding=3, padding_mode="reflect"),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            ]
        )
        self.encoder_norms = nn.ModuleList(norm(encoder, width * 2**i) for i in range(3))
        self.residual = nn.ModuleList(
            ResidualBlock(
                4 * width, norm(residual, 4 * width), norm(residual, 4 * width, activation=None)
            )
            for _ in range(blocks)
        )
        self.decoder = nn.ModuleList(
            [_upsampler(4 * width, 2 * width, upsample), _upsampler(2 * width, width, upsample)]
        )
        self.decoder_noise = nn.ModuleList(
            AddedNoise(channels) if noise else nn.Identity() for channels in (2 * width, width)
        )
        self.decoder_norms = nn.ModuleList([norm(decoder, 2 * width), norm(decoder, width)])
        self.skip = nn.Conv2d(2 * width, width, 3, padding=1) if skip else None
        self.skip_norm = norm(encoder, width) if skip else None
        self.output = NarrowConv2d(
            2 * width if skip else width, 3, 7, padding=3, padding_mode="reflect"
        )
        self._initialise(residual)

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """Predict the picture; see :meth:`InpaintingModel.fill`."""
        if self.prefill == "diffusion":
            start = push_pull(image, mask)
            x = torch.cat([start, mask], dim=1)
        else:
            x = image + mask
        # One mask per resolution, made once and shared by all layers.
        masks = [mask, *(resize_mask(mask, _halved(mask, times)) for times in (1, 2))]
        first = None  # the encoder's features at full resolution, for the skip
        for convolution, normalise, region in zip(
            self.encoder, self.encoder_norms, masks, strict=True
        ):
            x = normalise(convolution(x), region)
            if self.skip is not None and region is mask:
                first = x
        for block in self.residual:
            x = block(x, masks[2])
        for convolution, noise, normalise, region in zip(
            self.decoder, self.decoder_noise, self.decoder_norms, masks[1::-1], strict=True
        ):
            x = normalise(noise(convolution(x)), region)
        if self.skip is not None and self.skip_norm is not None and first is not None:
            beside = self.skip_norm(self.skip(torch.cat([x, first], dim=1)), mask)
            x = torch.cat([x, beside], dim=1)
        x = torch.tanh(at_least_float32(self.output(x)) * self.output_scale)
        return start + x if self.prefill == "diffusion" else (x + 1) / 2

    def _initialise(self, residual_norm: str) -> None:
        """Start so that every variant trains from scratch, normalised or not.

        Kaiming's scale keeps the variance through ReLUs where no norm restores it. Without a norm
        a sum over residual blocks would still grow, so that each block starts at a share of it.
        """
        for convolution in self._convolutions():
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
        if residual_norm == "none":
            blocks = [module for module in self.residual if isinstance(module, ResidualBlock)]
            for block in blocks:
                with torch.no_grad():
                    block.second.weight.mul_(1 / math.sqrt(len(blocks)))
        if self.prefill == "diffusion":  # start from the diffusion's own picture
            nn.init.zeros_(self.output.weight)
        else:
            nn.init.normal_(self.output.weight, std=0.02)
        if self.skip is not None:
            with torch.no_grad():
                self.output.weight[:, self.skip.out_channels :] = 0

    def _convolutions(self) -> list[nn.Conv2d | nn.ConvTranspose2d]:
        """The network's own convolutions, without those inside RN-L."""
        inside = {
            id(module)
            for norm in self.modules()
            if isinstance(norm, MaskedNorm)
            for module in norm.modules()
        }
        return [
            module
            for module in self.modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and id(module) not in inside
        ]


class ResidualBlock(nn.Module):
    """Dilated convolution, norm, ReLU, convolution, norm; added to the input without a ReLU."""

    def __init__(self, channels: int, first_norm: MaskedNorm, second_norm: MaskedNorm) -> None:
        super().__init__()
        self.first = PaddedConv2d(
            channels, channels, 3, padding=2, dilation=2, padding_mode="reflect"
        )
        self.first_norm = first_norm
        self.second = PaddedConv2d(channels, channels, 3, padding=1, padding_mode="reflect")
        self.second_norm = second_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, C, H, W]`` and their mask ``[N, 1, H, W]`` to features."""
        y: Tensor = self.first_norm(self.first(x), mask)
        y = self.second_norm(self.second(y), mask)
        return x + y


def _upsampler(channels: int, out: int, kind: str) -> nn.Module:
    """Double the resolution."""
    if kind in ("pixelshuffle", "pixelshuffle-blur"):
        shuffled = [nn.Conv2d(channels, 4 * out, 3, padding=1), nn.PixelShuffle(2)]
        return nn.Sequential(*shuffled, *([Blur()] if kind.endswith("blur") else []))
    if kind == "transpose":
        return nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1)
    raise ValueError(
        f"upsample is {kind!r}; expected 'pixelshuffle', 'pixelshuffle-blur' or 'transpose'"
    )


class Blur(nn.Module):
    """The 3x3 binomial filter: it halves what repeats with 4 pixels and removes what does with 2.

    As two means of 2x2 pixels, which is faster than a convolution; borders are replicated.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[N, C, H, W]`` to features."""
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1)


def _halved(mask: Tensor, times: int) -> tuple[int, int]:
    return mask.shape[-2] // 2**times, mask.shape[-1] // 2**times
