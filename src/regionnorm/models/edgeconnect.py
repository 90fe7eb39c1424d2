"""EdgeConnect (Nazeri et al., 2019): edges first, then the picture along them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from regionnorm.models.base import InpaintingModel, at_least_float32
from regionnorm.models.discriminator import PatchDiscriminator
from regionnorm.nn.convolution import NarrowConv2d, PaddedConv2d
from regionnorm.nn.edges import canny_edges, luminance

__all__ = ["EdgeConnect", "EdgeDiscriminator"]

POWER_ITERATIONS = 5


class EdgeConnect(InpaintingModel):
    """An edge generator completes the edges of the known pixels; an image generator follows them.

    The edges of the known pixels are scikit-image's Canny edges, which need the ``eval`` extra.
    The paper's RN network is the image generator with other norms; see :class:`RNGenerator`.

    Args:
        width: Channels of the first convolution of both generators; 64 in the paper.
        blocks: Residual blocks of each; 8 in the paper.
        sigma: Blur before Canny in pixels; 2 in the paper.
    """

    stride = 4

    def __init__(self, *, width: int = 64, blocks: int = 8, sigma: float = 2.0) -> None:
        super().__init__()
        if width < 1 or blocks < 0 or sigma <= 0:
            raise ValueError(
                f"width is {width}, blocks {blocks} and sigma {sigma}; expected >= 1, >= 0 and > 0"
            )
        self.sigma = sigma
        self.edge_generator = _Generator(3, 1, width, blocks, spectral=True)
        self.image_generator = _Generator(4, 3, width, blocks)

    def fill_stages(
        self, image: Tensor, mask: Tensor, known_edges: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Complete the edges, then the picture.

        Args:
            image: ``[B, 3, H, W]``, zero in the hole, sides multiples of 4.
            mask: 0/1 ``[B, 1, H, W]``.
            known_edges: Edges outside the hole ``[B, 1, H, W]``, zero inside; None to find them.

        Returns:
            ``"output"``, and ``"edges"`` ``[B, 1, H, W]`` in [0, 1], the edge generator's own
            everywhere. No gradient flows from the picture to the edges: the paper trains the
            stages apart.
        """
        gray = luminance(image)
        if known_edges is None:
            known_edges = canny_edges(gray, mask, sigma=self.sigma)
        given = torch.cat([gray + mask, known_edges, mask], dim=1)
        edges = torch.sigmoid(at_least_float32(self.edge_generator(given)))
        completed = torch.where(mask > 0, edges.detach().to(known_edges.dtype), known_edges)
        given = torch.cat([image + mask, completed], dim=1)
        output = (torch.tanh(at_least_float32(self.image_generator(given))) + 1) / 2
        return {"output": output, "edges": edges}


class EdgeDiscriminator(nn.Module):
    """A patch discriminator of gray picture and edges that shows its activations too.

    Args:
        width: Channels of the first convolution; 64 in the paper.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = PatchDiscriminator(2, width)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Gray and edges ``[B, 2, H, W]`` to the activations of its five layers, logits last."""
        activations = []
        x = picture
        for layer in self.patches.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                activations.append(x)
        return [*activations, x]


class _Generator(nn.Module):
    """Both stages' network: down by 4, residual blocks, up by 4; instance norm without affine."""

    def __init__(
        self, channels: int, out: int, width: int, blocks: int, *, spectral: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            PaddedConv2d(channels, width, 7, padding=3, padding_mode="reflect"),
            *_norm(width),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            *_norm(2 * width),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            *_norm(4 * width),
            *(_ResidualBlock(4 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            *_norm(2 * width),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            *_norm(width),
            NarrowConv2d(width, out, 7, padding=3, padding_mode="reflect"),
        ]
        self.layers = nn.Sequential(*layers)
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if spectral:
                    transposed = isinstance(module, nn.ConvTranspose2d)
                    rows = module.weight.shape[1 if transposed else 0]
                    register_parametrization(module, "weight", _SpectralNorm(rows, transposed))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            PaddedConv2d(channels, channels, 3, padding=2, dilation=2, padding_mode="reflect"),
            *_norm(channels),
            PaddedConv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class _SpectralNorm(nn.Module):
    """Divide a weight by its largest singular value (Miyato et al., 2018).

    PyTorch's own keeps a running estimate that every forward pass of training changes. This one
    finds the value anew from a fixed start, so that a network's picture depends on its weights and
    its input alone.
    """

    start: Tensor

    def __init__(self, rows: int, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.register_buffer("start", torch.randn(rows))

    def forward(self, weight: Tensor) -> Tensor:
        # Products and sums instead of matrix products, which autocast would take in half precision.
        matrix = (weight.transpose(0, 1) if self.transposed else weight).flatten(1)
        with torch.no_grad():
            left = self.start
            for _ in range(POWER_ITERATIONS):
                right = F.normalize((matrix * left[:, None]).sum(0), dim=0)
                left = F.normalize((matrix * right).sum(1), dim=0)
        return weight / (matrix * right * left[:, None]).sum()


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(channels), nn.ReLU()
