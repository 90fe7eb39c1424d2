"""Networks, all called as ``model(image, mask) -> image``."""

from regionnorm.models.base import InpaintingModel
from regionnorm.models.discriminator import PatchDiscriminator
from regionnorm.models.registry import create_model, describe_model, list_models
from regionnorm.models.rn import RNGenerator

__all__ = [
    "InpaintingModel",
    "PatchDiscriminator",
    "RNGenerator",
    "create_model",
    "describe_model",
    "list_models",
]
