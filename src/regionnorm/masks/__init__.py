"""Masks: generated, found, made by rules and checked; and photos with drawn damage."""

from regionnorm.masks.generated import INTERVALS as INTERVALS
from regionnorm.masks.generated import MASK_KINDS as MASK_KINDS
from regionnorm.masks.generated import CenterSquare as CenterSquare
from regionnorm.masks.generated import GeneratedMasks as GeneratedMasks
from regionnorm.masks.generated import Interval as Interval
from regionnorm.masks.generated import MaskFolder as MaskFolder
from regionnorm.masks.generated import MaskSampler as MaskSampler
from regionnorm.masks.generated import box_mask as box_mask
from regionnorm.masks.generated import center_square_mask as center_square_mask
from regionnorm.masks.generated import ellipse_mask as ellipse_mask
from regionnorm.masks.generated import evaluation_mask as evaluation_mask
from regionnorm.masks.generated import evaluation_masks as evaluation_masks
from regionnorm.masks.generated import free_form_mask as free_form_mask
from regionnorm.masks.generated import interval_mask as interval_mask
from regionnorm.masks.generated import scratch_mask as scratch_mask
from regionnorm.masks.generated import touches_border as touches_border
from regionnorm.masks.generated import write_masks as write_masks

__all__ = [
    "INTERVALS",
    "MASK_KINDS",
    "CenterSquare",
    "GeneratedMasks",
    "Interval",
    "MaskFolder",
    "MaskSampler",
    "box_mask",
    "center_square_mask",
    "ellipse_mask",
    "evaluation_mask",
    "evaluation_masks",
    "free_form_mask",
    "interval_mask",
    "scratch_mask",
    "touches_border",
    "write_masks",
]
