"""PatchGAN discriminator with spectral normalisation."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Judge every 70x70 patch of an image as real or generated (Isola et al., 2017).

    Convolutions of size 4 with ``width`` x 1, 2, 4, 8 and 1 channels, strides 2, 2, 2, 1 and 1,
    LeakyReLU 0.2 between them, spectral normalisation on each and no bias.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first convolution; 64 in the paper.
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        channels = [in_channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(channels)):
            stride = 2 if index < 3 else 1
            layers += [_convolution(before, after, stride), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _convolution(channels[-1], 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Images ``[B, in_channels, H, W]`` to logits ``[B, 1, h, w]``, above 0 = real."""
        logits: Tensor = self.layers(image)
        return logits


def _convolution(before: int, after: int, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False))
