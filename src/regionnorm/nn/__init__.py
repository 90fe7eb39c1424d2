"""Layers for building inpainting networks."""

from regionnorm.nn.contextual_attention import contextual_attention
from regionnorm.nn.convert import ConvertedNetwork, convert_region_norm
from regionnorm.nn.gated_conv import GatedConv2d
from regionnorm.nn.norm import NORMS, MaskedNorm, make_norm
from regionnorm.nn.partial_conv import PartialConv2d, partial_conv2d
from regionnorm.nn.prefill import push_pull
from regionnorm.nn.region_norm import LearnableRegionNorm2d, RegionNorm2d, resize_mask

__all__ = [
    "NORMS",
    "ConvertedNetwork",
    "GatedConv2d",
    "LearnableRegionNorm2d",
    "MaskedNorm",
    "PartialConv2d",
    "RegionNorm2d",
    "contextual_attention",
    "convert_region_norm",
    "make_norm",
    "partial_conv2d",
    "push_pull",
    "resize_mask",
]
