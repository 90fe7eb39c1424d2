"""Networks, all called as ``model(image, mask) -> image``; ``scratch_net`` alone finds marks."""

from regionnorm.models.base import InpaintingModel
from regionnorm.models.contextual_attention import ContextualAttentionNet
from regionnorm.models.discriminator import (
    GatedDiscriminator,
    MatchingDiscriminator,
    PatchDiscriminator,
    WassersteinCritic,
)
from regionnorm.models.edgeconnect import EdgeConnect, EdgeDiscriminator
from regionnorm.models.gated_conv import GatedConvNet
from regionnorm.models.partial_conv import PartialConvNet
from regionnorm.models.registry import create_model, describe_model, list_models
from regionnorm.models.rn import RNGenerator

__all__ = [
    "ContextualAttentionNet",
    "EdgeConnect",
    "EdgeDiscriminator",
    "GatedConvNet",
    "GatedDiscriminator",
    "InpaintingModel",
    "MatchingDiscriminator",
    "PartialConvNet",
    "PatchDiscriminator",
    "RNGenerator",
    "WassersteinCritic",
    "create_model",
    "describe_model",
    "list_models",
]
