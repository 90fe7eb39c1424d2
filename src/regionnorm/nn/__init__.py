"""Layers for building inpainting networks."""

from regionnorm.nn.norm import NORMS, MaskedNorm, make_norm
from regionnorm.nn.prefill import push_pull
from regionnorm.nn.region_norm import LearnableRegionNorm2d, RegionNorm2d, resize_mask

__all__ = [
    "NORMS",
    "LearnableRegionNorm2d",
    "MaskedNorm",
    "RegionNorm2d",
    "make_norm",
    "push_pull",
    "resize_mask",
]
