"""Fill holes with pieces of the same photo: offsets, graph cut, PatchMatch, blending, detail."""
