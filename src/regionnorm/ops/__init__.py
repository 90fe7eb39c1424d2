"""Operations: plain functions of tensors, with the backend chosen inside."""

from regionnorm.ops.region_norm import (
    channel_mean_max,
    learnable_region_norm,
    region_norm,
    region_norm_per_pixel,
)

__all__ = [
    "channel_mean_max",
    "learnable_region_norm",
    "region_norm",
    "region_norm_per_pixel",
]
