"""Objects selected by a rough stroke, a box or a click."""

from regionnorm.masks.selection.segmenter import find_segmenter as find_segmenter
from regionnorm.masks.selection.select import select_object as select_object

__all__ = ["find_segmenter", "select_object"]
