"""What stands in the hole before the network sees the image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

__all__ = ["push_pull"]


def push_pull(image: Tensor, mask: Tensor, *, smoothing: int = 4) -> Tensor:
    """Fill a hole by diffusion from its border, through an image pyramid.

    Known pixels are averaged down a pyramid until no hole is left (push), then each level's hole
    takes the coarser level's colours (pull) and a few Jacobi steps of the Laplace equation smooth
    them. Differentiable in the known pixels; the cost is a small multiple of reading the image.

    Args:
        image: ``[N, C, H, W]``; what stands under the hole is never read, not even a NaN.
        mask: ``[N, 1, H, W]``, above 0.5 = hole.
        smoothing: Jacobi steps at each level.

    Returns:
        The image with its hole filled; known pixels are unchanged. A full hole gives 0.5.
    """
    if has_torch_function_unary(image):
        return handle_torch_function(push_pull, (image,), image, mask, smoothing=smoothing)
    hole = mask > 0.5
    known = (~hole).to(image.dtype)
    levels = [(image.masked_fill(hole, 0), known)]
    while max(levels[-1][0].shape[-2:]) > 1:
        levels.append(_push(*levels[-1]))
    colour, weight = levels.pop()
    filled = colour + (1 - weight) * 0.5
    for colour, weight in reversed(levels):
        filled = _pull(filled, colour, weight, smoothing)
    return filled


def _push(colour: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Halve a level: mean of the known part of each 2x2 block, and whether there is any."""
    height, width = colour.shape[-2:]
    padding = (0, width % 2, 0, height % 2)
    colour = F.avg_pool2d(F.pad(colour, padding), 2)
    weight = F.avg_pool2d(F.pad(weight, padding), 2)
    present = (weight > 0).to(colour.dtype)
    return colour / weight.clamp(min=1e-3), present


def _pull(coarse: Tensor, colour: Tensor, weight: Tensor, smoothing: int) -> Tensor:
    """Fill a level's hole from the coarser one and smooth it."""
    filled = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    filled = filled[..., : colour.shape[-2], : colour.shape[-1]]
    filled = colour + (1 - weight) * filled
    for _ in range(smoothing):
        padded = F.pad(filled, (1, 1, 1, 1), mode="replicate")
        around = (
            padded[..., :-2, 1:-1]
            + padded[..., 2:, 1:-1]
            + padded[..., 1:-1, :-2]
            + padded[..., 1:-1, 2:]
        )
        filled = colour + (1 - weight) * (around * 0.25)
    return filled
