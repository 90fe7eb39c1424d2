"""Photos: where they come from, and how they become training samples."""

from regionnorm.data.dataset import InpaintingDataset as InpaintingDataset
from regionnorm.data.dataset import Sample as Sample
from regionnorm.data.sources import ImageSource as ImageSource
from regionnorm.data.sources import UnreadableImageError as UnreadableImageError
from regionnorm.data.sources import open_source as open_source

__all__ = [
    "ImageSource",
    "InpaintingDataset",
    "Sample",
    "UnreadableImageError",
    "open_source",
]
