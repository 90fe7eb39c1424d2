"""Fill wide holes with pieces of the same photo: offsets, graph cut, PatchMatch, blending."""

from regionnorm.filling.completion.complete import METHODS, NARROW, complete, warm_up

__all__ = ["METHODS", "NARROW", "complete", "warm_up"]
