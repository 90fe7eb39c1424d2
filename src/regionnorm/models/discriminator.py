"""Discriminators of all families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

__all__ = [
    "GatedDiscriminator",
    "MatchingDiscriminator",
    "PatchDiscriminator",
    "WassersteinCritic",
]


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
        layers: list[nn.Module] = []
        for convolution in _patch_convolutions(in_channels, width, bias=False):
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        """Images ``[B, in_channels, H, W]`` to logits ``[B, 1, h, w]``, above 0 = real."""
        logits: Tensor = self.layers(image)
        return logits


class GatedDiscriminator(nn.Module):
    """SN-PatchGAN (Yu et al., 2019): one judgement for every channel of every location.

    Six convolutions of size 5 and stride 2 with ``width`` x 1, 2, 4, 4, 4 and 4 channels, spectral
    normalisation on each and LeakyReLU 0.2 after each, the last included.

    Args:
        in_channels: Channels of the input; 4 = RGB and mask.
        width: Channels of the first convolution; 64 in the paper.
    """

    def __init__(self, in_channels: int = 4, width: int = 64) -> None:
        super().__init__()
        channels = [in_channels, width, 2 * width, *[4 * width] * 4]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            convolution = nn.Conv2d(before, after, 5, stride=2, padding=2)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Images ``[B, in_channels, H, W]`` to logits ``[B, 4 width, h, w]``, above 0 = real."""
        logits: Tensor = self.layers(image)
        return logits


class MatchingDiscriminator(nn.Module):
    """A PatchGAN whose activations can be compared and whose steepness can be told.

    The convolutions of :class:`PatchDiscriminator` with a bias and without any norm: what keeps it
    smooth is a penalty on its slopes. Without norms the weights' scale at the start decides how
    much of a picture's differences reaches the logits: He's keeps it.

    Args:
        in_channels: Channels of the input; 4 = RGB and mask.
        width: Channels of the first convolution.
    """

    def __init__(self, in_channels: int = 4, width: int = 64) -> None:
        super().__init__()
        convolutions = list(_patch_convolutions(in_channels, width, bias=True))
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        self.layers = nn.ModuleList(convolutions)

    def forward(self, picture: Tensor, *, slopes: bool = False) -> list[Tensor]:
        """Judge pictures, or tell how steep the judgement is.

        Args:
            picture: ``[B, in_channels, H, W]``.
            slopes: Ask for the steepness, in float32 also under autocast.

        Returns:
            Activations of every layer, the logits ``[B, 1, h, w]`` last, above 0 = real; or, in a
            list of one, the lengths ``[B]`` of the gradients of each picture's summed logits,
            themselves differentiable.
        """
        if not slopes:
            return self._activations(picture)
        # Inside ``forward`` for the same reason as in the critic below.
        with torch.autocast(picture.device.type, enabled=False):
            return [_slopes(lambda x: self._activations(x)[-1], picture)]

    def _activations(self, x: Tensor) -> list[Tensor]:
        activations, x = [], 2 * x - 1  # around 0, as the weights expect it
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else F.leaky_relu(x, 0.2))
            activations.append(x)
        return activations


class WassersteinCritic(nn.Module):
    """One score for a picture of fixed size, without any norm (Yu et al., 2018).

    Convolutions of size 5 and stride 2 with LeakyReLU 0.2, then one linear layer. All of it in
    float32, also under autocast, because its training differentiates it twice.

    Args:
        size: Width and height of the pictures.
        channels: Of the convolutions; 64, 128, 256, 256 for whole pictures in the paper and 64,
            128, 256, 512 for windows.
    """

    def __init__(self, size: int, channels: Sequence[int] = (64, 128, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = size
        for before, after in pairwise([3, *channels]):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
            side = (side + 1) // 2
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(side * side * channels[-1], 1)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score pictures, or tell how steep the score is.

        Args:
            image: ``[B, 3, size, size]``.
            mask: ``[B, 1, size, size]`` or None.

        Returns:
            ``[B]``: scores, higher = more real. With a mask, the length of each score's gradient
            by the pixels inside the mask, itself differentiable.
        """
        with torch.autocast(image.device.type, enabled=False):
            if mask is None:
                return self._score(image.float())
            # Inside ``forward``, so that the wrappers of distributed and mixed-precision training
            # see one ordinary call.
            return _slopes(self._score, image, mask)

    def _score(self, image: Tensor) -> Tensor:
        score: Tensor = self.score(self.layers(image).flatten(1))
        return score[:, 0]


def _slopes(score: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Length ``[B]`` of a score's gradient by each image, inside the mask; differentiable."""
    with torch.enable_grad():
        image = image.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(score(image).sum(), image, create_graph=True)
    inside = gradient if mask is None else gradient * mask
    # The square root's own gradient is not finite at 0.
    return (inside.square().sum(dim=(1, 2, 3)) + 1e-12).sqrt()


def _patch_convolutions(in_channels: int, width: int, *, bias: bool) -> Iterator[nn.Conv2d]:
    """One after the other, so that what is done to each draws its random numbers in between."""
    channels = [in_channels, width, 2 * width, 4 * width, 8 * width, 1]
    for index, (before, after) in enumerate(pairwise(channels)):
        yield nn.Conv2d(before, after, 4, stride=2 if index < 3 else 1, padding=1, bias=bias)
