"""Weights on disk, and where they come from."""

from regionnorm.checkpoints.released import load_released as load_released
from regionnorm.checkpoints.weights import convert_released as convert_released
from regionnorm.checkpoints.weights import load_pretrained as load_pretrained
from regionnorm.checkpoints.weights import load_weights as load_weights
from regionnorm.checkpoints.weights import packaged_weights as packaged_weights
from regionnorm.checkpoints.weights import read_metadata as read_metadata
from regionnorm.checkpoints.weights import save_weights as save_weights

__all__ = [
    "convert_released",
    "load_pretrained",
    "load_released",
    "load_weights",
    "packaged_weights",
    "read_metadata",
    "save_weights",
]
