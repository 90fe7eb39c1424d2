"""The two layers of the paper: RN-B (given regions) and RN-L (found regions)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.ops import channel_mean_max, learnable_region_norm, region_norm
from regionnorm.ops.region_norm import parse_stats

__all__ = ["LearnableRegionNorm2d", "RegionNorm2d", "resize_mask"]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask or label map ``[N, 1, H, W]`` to ``size`` by nearest neighbour."""
    if mask.shape[-2:] == size:
        return mask
    dtype = mask.dtype
    resized = F.interpolate(mask if mask.is_floating_point() else mask.float(), size=size)
    return resized.to(dtype)


class RegionNorm2d(nn.Module):
    """Basic region normalisation, RN-B (eq. 8-13): regions come from the given mask.

    Each region is normalised by its own statistics and has its own scale and shift per channel.
    See :func:`regionnorm.region_norm`.

    Args:
        num_features: Channels C of the input.
        num_regions: Regions K; 2 = known and hole.
        stats: ``"instance"``, ``"batch"``, ``"layer"`` or ``"group:G"``.
        affine: Learn ``weight`` (starts at 1) and ``bias`` (starts at 0), both ``[K, C]``.
        eps: Added to the variance.
        activation: ``"relu"`` to apply a ReLU to the result in the same pass, or None.
    """

    def __init__(
        self,
        num_features: int,
        num_regions: int = 2,
        *,
        stats: str = "instance",
        affine: bool = True,
        eps: float = 1e-5,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1 or num_regions < 1:
            raise ValueError(
                f"num_features is {num_features} and num_regions {num_regions}; both start at 1"
            )
        parse_stats(stats, num_features)
        self.num_features = num_features
        self.num_regions = num_regions
        self.stats = stats
        self.eps = eps
        self.activation = activation
        self.weight = nn.Parameter(torch.ones(num_regions, num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_regions, num_features)) if affine else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]`` by the regions of ``mask`` ``[N, 1, h, w]``.

        The mask is resized to the feature map by nearest neighbour. With two regions it is 0/1;
        with more it holds the labels ``0..K-1`` in any dtype.
        """
        mask = resize_mask(mask, (x.shape[2], x.shape[3]))
        if self.num_regions != 2:
            mask = mask.long()
        elif not mask.is_floating_point():
            mask = mask.bool()
        return region_norm(
            x,
            mask,
            self.weight,
            self.bias,
            stats=self.stats,
            eps=self.eps,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return (
            f"{self.num_features}, num_regions={self.num_regions}, stats={self.stats!r}, "
            f"affine={self.weight is not None}, activation={self.activation!r}"
        )


class LearnableRegionNorm2d(nn.Module):
    """Learnable region normalisation, RN-L (eq. 14-16): the layer finds its own regions.

    The channels' mean and maximum go through a convolution and a sigmoid to the spatial response
    (eq. 14); pixels whose response exceeds ``threshold`` form the second region (eq. 15), through
    which no gradient flows; two more convolutions of the response give the scale and the shift of
    each pixel (eq. 16).

    Args:
        num_features: Channels C of the input; the layer's parameters do not depend on it.
        threshold: The ``t`` of eq. 15, 0.8 in the paper.
        kernel_size: Size of the three convolutions, odd.
        stats: ``"instance"``, ``"batch"``, ``"layer"`` or ``"group:G"``.
        eps: Added to the variance.
        activation: ``"relu"`` to apply a ReLU to the result in the same pass, or None.
    """

    def __init__(
        self,
        num_features: int,
        *,
        threshold: float = 0.8,
        kernel_size: int = 7,
        stats: str = "instance",
        eps: float = 1e-5,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it should be odd")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; a sigmoid's range is 0 to 1")
        parse_stats(stats, num_features)
        self.num_features = num_features
        self.threshold = threshold
        self.stats = stats
        self.eps = eps
        self.activation = activation
        padding = kernel_size // 2
        self.response = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False)
        # One convolution with two outputs computes gamma and beta in a single pass.
        self.affine = nn.Conv2d(1, 2, kernel_size, padding=padding)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]
        # With so few channels, oneDNN's channels-last path is several times faster backward.
        self.response.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.affine.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def spatial_response(self, x: Tensor) -> Tensor:
        """Spatial response map ``[N, 1, H, W]`` in (0, 1) (eq. 14)."""
        return torch.sigmoid(self.response(channel_mean_max(x)))

    def region_mask(self, response: Tensor) -> Tensor:
        """Region mask, bool ``[N, 1, H, W]``: response above the threshold (eq. 15)."""
        return response.detach() > self.threshold

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]`` by the regions found in it."""
        return learnable_region_norm(
            x,
            self.response.weight,
            self.affine.weight,
            cast(Tensor, self.affine.bias),
            threshold=self.threshold,
            stats=self.stats,
            eps=self.eps,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return (
            f"{self.num_features}, threshold={self.threshold}, stats={self.stats!r}, "
            f"activation={self.activation!r}"
        )
