"""Photos and masks: where they come from, and how they become training samples."""

from regionnorm.data.dataset import InpaintingDataset as InpaintingDataset
from regionnorm.data.dataset import Sample as Sample
from regionnorm.data.images import ImageSource as ImageSource
from regionnorm.data.images import UnreadableImageError as UnreadableImageError
from regionnorm.data.images import open_source as open_source
from regionnorm.data.masks import INTERVALS as INTERVALS
from regionnorm.data.masks import MASK_KINDS as MASK_KINDS
from regionnorm.data.masks import CenterSquare as CenterSquare
from regionnorm.data.masks import GeneratedMasks as GeneratedMasks
from regionnorm.data.masks import Interval as Interval
from regionnorm.data.masks import MaskFolder as MaskFolder
from regionnorm.data.masks import MaskSampler as MaskSampler
from regionnorm.data.masks import box_mask as box_mask
from regionnorm.data.masks import center_square_mask as center_square_mask
from regionnorm.data.masks import ellipse_mask as ellipse_mask
from regionnorm.data.masks import evaluation_mask as evaluation_mask
from regionnorm.data.masks import free_form_mask as free_form_mask
from regionnorm.data.masks import interval_mask as interval_mask
from regionnorm.data.masks import scratch_mask as scratch_mask
from regionnorm.data.masks import touches_border as touches_border
from regionnorm.data.masks import write_masks as write_masks

__all__ = [
    "INTERVALS",
    "MASK_KINDS",
    "CenterSquare",
    "GeneratedMasks",
    "ImageSource",
    "InpaintingDataset",
    "Interval",
    "MaskFolder",
    "MaskSampler",
    "Sample",
    "UnreadableImageError",
    "box_mask",
    "center_square_mask",
    "ellipse_mask",
    "evaluation_mask",
    "free_form_mask",
    "interval_mask",
    "open_source",
    "scratch_mask",
    "touches_border",
    "write_masks",
]
