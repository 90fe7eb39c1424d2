"""Edges of a picture, as EdgeConnect draws them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from regionnorm._extras import require

__all__ = ["canny_edges", "luminance"]

# Rec. 709, as scikit-image's rgb2gray.
_WEIGHTS = (0.2125, 0.7154, 0.0721)


def luminance(image: Tensor) -> Tensor:
    """RGB ``[B, 3, H, W]`` to gray ``[B, 1, H, W]``, of the same range."""
    red, green, blue = (weight * image[:, i : i + 1] for i, weight in enumerate(_WEIGHTS))
    return red + green + blue


def canny_edges(gray: Tensor, hole: Tensor | None = None, *, sigma: float = 2.0) -> Tensor:
    """Canny's edges (by scikit-image, on the CPU, with its thresholds 0.1 and 0.2).

    Args:
        gray: ``[B, 1, H, W]`` in [0, 1].
        hole: ``[B, 1, H, W]``, above 0.5 = hole, which is neither read nor given edges, and has
            none at its border; None for whole pictures.
        sigma: Standard deviation in pixels of the blur before; 2 in EdgeConnect.

    Returns:
        0/1 ``[B, 1, H, W]``, device and dtype of ``gray``.

    Raises:
        ImportError: scikit-image is not installed.
    """
    if has_torch_function_unary(gray):
        return handle_torch_function(canny_edges, (gray,), gray, hole, sigma=sigma)
    edges: Tensor = torch.ops.regionnorm_edges.canny(gray.detach(), hole, sigma)
    return edges


def _canny(gray: Tensor, hole: Tensor | None, sigma: float) -> Tensor:
    feature = require("skimage.feature", extra="eval")
    pictures = gray[:, 0].float().cpu().numpy()
    known = [None] * len(pictures) if hole is None else list((hole[:, 0] <= 0.5).cpu().numpy())
    edges = [
        torch.from_numpy(feature.canny(picture, sigma=sigma, mask=inside))
        for picture, inside in zip(pictures, known, strict=True)
    ]
    return torch.stack(edges)[:, None].to(gray.device, gray.dtype)


# An operator, because torch.compile cannot look into scikit-image. (The decorator that hides a
# function from it would load the whole compiler, two seconds at every start.)
_library: Any = torch.library.Library
LIBRARY = _library("regionnorm_edges", "DEF")  # kept: the operator lives as long as it does
LIBRARY.define("canny(Tensor gray, Tensor? hole, float sigma) -> Tensor")
LIBRARY.impl("canny", _canny, "CompositeExplicitAutograd")
torch.library.register_fake(
    "regionnorm_edges::canny", lambda gray, hole, sigma: torch.empty_like(gray), lib=LIBRARY
)
