"""A source of randomness for networks that paint texture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

__all__ = ["AddedNoise", "add_noise"]

PERIOD = 256  # pixels after which the noise repeats


class AddedNoise(nn.Module):
    """Add one map of normal noise to all channels, each at a learned strength.

    A network that is a smooth function of its input cannot paint grain where it is given none; what
    it can learn instead is to draw a regular grid. Noise before a norm and a ReLU lets it choose
    where grain shows (as in StyleGAN, Karras et al. 2019). Strengths start at 0, as if there were
    none.

    In training the noise is another one at each call, drawn from PyTorch's global generator.
    Otherwise it is always the same, so that a picture's fill is.

    Args:
        channels: Of the features ``[N, channels, H, W]``.
    """

    noise: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))
        random = torch.Generator("cpu").manual_seed(0)
        # On the CPU also where networks are made without memory: no file would bring it.
        noise = torch.randn(1, 1, PERIOD, PERIOD, generator=random, device="cpu")
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[N, C, H, W]`` to features of the same shape and dtype."""
        noise = self.noise
        if self.training:
            down, right = torch.randint(PERIOD, (2,)).tolist()
            noise = noise.roll((down, right), dims=(2, 3))
        return add_noise(x, noise, self.strength)


def add_noise(x: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """Add a map, repeated over the picture, to all channels.

    Args:
        x: ``[N, C, H, W]``.
        noise: ``[1, 1, PERIOD, PERIOD]``.
        strength: Factor for each channel, ``[C]``.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(add_noise, (x,), x, noise, strength)
    height, width = x.shape[-2:]
    noise = noise.repeat(1, 1, -(-height // PERIOD), -(-width // PERIOD))
    noise = noise[..., :height, :width].to(x.dtype)
    return x + noise * strength.to(x.dtype)[:, None, None]
