"""What can be done with photos, masks and fills, whoever asks and however.

Everything here takes its time and may run in any thread; the line decides when.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.whole import check_pixels
from regionnorm.filling.completion.where import NARROWEST, pieces_fit
from regionnorm.filling.expand import Margins
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import (
    image_to_tensor,
    mask_to_tensor,
    read_mask,
    tensor_to_image,
    write_image,
)
from regionnorm.inspecting.layers import LearnedRegion, learned_regions
from regionnorm.masks.check import CheckedMask, MaskOptions, make_mask
from regionnorm.masks.selection import select_object
from regionnorm.photo import read_photo
from regionnorm.web.pictures import box_of, canvas_of, fill_file, read_preview
from regionnorm.web.visitors import Box, Gone, Picture, Store, Visitor, random_folder

__all__ = ["VIEW_SIDE", "DrawnMask", "Handlers"]

VIEW_SIDE = 2048
"""Pixels of the long side of what a page shows before it is zoomed into."""

_REGIONS_SIDE = 512
_MOST_VARIANT = 999
_REGION_COLOUR = (255, 140, 0)
_MASK_COLOUR = (255, 20, 100)


class DrawnMask(NamedTuple):
    """A mask for the page to draw.

    Attributes:
        number: What the page calls it.
        warnings: What looks odd in it, one line each.
        soft: Whether some of it shows only a part of the fill.
    """

    number: str
    warnings: tuple[str, ...]
    soft: bool


@dataclass(frozen=True)
class Handlers:
    """The app's actions.

    Attributes:
        inpainter: What fills the holes.
        store: Where files go.
        examples: Photos to try.
        max_megapixels: Larger photos are refused.
    """

    inpainter: Inpainter
    store: Store
    examples: list[Path]
    max_megapixels: float

    # --- photo and mask in ----------------------------------------------------------------------

    def open_photo(self, source: Path, visitor: Visitor) -> Picture:
        """Take a photo, a file in a folder of its own, which from now on is the visitor's.

        Raises:
            ValueError: It is no photo, or has too many pixels; its folder is removed.
        """
        try:
            check_pixels(source, self.max_megapixels)
            size, shown = read_preview(source, VIEW_SIDE)
            write_image(shown, source.parent / "made" / f"view-{VIEW_SIDE}.jpg")
        except BaseException:
            shutil.rmtree(source.parent, ignore_errors=True)
            raise
        return visitor.add(Picture(source, source.name, size))

    def open_example(self, index: int, visitor: Visitor) -> Picture:
        """Take one of the example photos."""
        source = self.examples[index]
        return self.open_photo(Path(shutil.copy(source, visitor.new_folder())), visitor)

    def load_mask(
        self, source: Path, photo: Picture, visitor: Visitor, *, invert: bool = False
    ) -> DrawnMask:
        """Check a mask file.

        Args:
            source: The file; it is removed.
            photo: What it is for.
            visitor: Whose it is.
            invert: Take black for the hole.

        Raises:
            ValueError: It is no mask of this photo.
        """
        try:
            check_pixels(source, self.max_megapixels)
            height, width = read_mask(source).shape
            if (width, height) != photo.size:
                raise ValueError(
                    f"the mask is {width}x{height} but {photo.name} is {photo.size[0]}x"
                    f"{photo.size[1]}; use a mask of the photo's size"
                )
            checked = make_mask(read_photo(photo.path), source, MaskOptions(invert=invert))
        finally:
            shutil.rmtree(source.parent, ignore_errors=True)
        return _keep_mask(checked, visitor)

    def find_mask(self, rule: str, photo: Picture, visitor: Visitor) -> DrawnMask:
        """Make a mask by a rule of :func:`~regionnorm.masks.check.make_mask`; as `load_mask`."""
        return _keep_mask(make_mask(read_photo(photo.path), rule), visitor)

    def select(
        self,
        stroke: npt.NDArray[np.bool_],
        box: tuple[int, int, int, int] | None,
        grow: int,
        photo: Picture,
        visitor: Visitor,
    ) -> str:
        """Make a mask of the object that a stroke goes over, or that a box holds.

        Args:
            stroke: bool ``[H, W]``.
            box: Left, top, right and bottom in pixels of :func:`canvas_of`; then the stroke goes
                around the object.
            grow: Pixels by which what is found grows.
            photo: What it is in.
            visitor: Whose it is.

        Returns:
            The number of the mask.
        """
        (width, height), (across, down) = photo.size, canvas_of(photo.size)
        if box is not None:
            share = width / across, height / down
            left, top, right, bottom = (round(side * share[i % 2]) for i, side in enumerate(box))
            box = left, top, min(width, right), min(height, bottom)
        colours = read_photo(photo.there().path).colours()
        scribble = stroke if box is None else None
        found = select_object(colours, scribble, box=box, grow=grow)
        return _keep_mask(CheckedMask(found), visitor).number

    # --- filling ---------------------------------------------------------------------------------

    def fill(
        self,
        mask: npt.NDArray[Any],
        photo: Picture,
        visitor: Visitor,
        grown: Box = (0, 0, 0, 0),
    ) -> Picture:
        """Fill a hole; the result becomes the first of the visitor's pictures.

        Args:
            mask: ``[H, W]`` of the photo's size: bool, or uint8 for a soft mask.
            photo: What to fill.
            visitor: Whose it is.
            grown: How many pixels to add, and fill, on the left, top, right and bottom.
        """
        levels = mask if mask.dtype == np.uint8 else mask.astype(np.uint8) * 255
        if any(grown):
            self.check_growth(photo, grown)
            left, top, right, bottom = grown
            sides = ((top, bottom), (left, right))
            levels = np.pad(levels, sides, constant_values=255)
        return self._fill(levels, photo, visitor, secrets.token_urlsafe(9), 0, grown)

    def check_growth(self, photo: Picture, grown: Box) -> None:
        """Refuse a photo that would grow too large.

        Raises:
            ValueError: It would have too many pixels, or more than twice its size on a side.
        """
        _margins(grown).pixels(photo.size)
        width = photo.size[0] + grown[0] + grown[2]
        height = photo.size[1] + grown[1] + grown[3]
        if width * height > self.max_megapixels * 1e6:
            raise ValueError(
                f"the photo would grow to {width}x{height}, more than the "
                f"{self.max_megapixels:g} megapixels that are taken here; add less"
            )

    def another(self, fill: Picture, visitor: Visitor) -> Picture:
        """Fill the photo and mask of a fill again, as the next variant."""
        if fill.parent is None or fill.mask is None:
            raise ValueError("nothing is filled yet; paint over what should go first")
        levels = _levels(fill.mask)
        if not self.inpainter.varies(levels > 0):
            raise ValueError(f"another fill would be the same: {self._sameness(levels > 0)}")
        variant = visitor.next_variant(fill)
        return self._fill(levels, fill.parent, visitor, fill.task, variant, fill.grown)

    def _fill(
        self,
        levels: npt.NDArray[np.uint8],
        photo: Picture,
        visitor: Visitor,
        task: str,
        variant: int,
        grown: Box,
    ) -> Picture:
        folder = visitor.new_folder()
        try:
            mask = folder / "made" / "mask.png"
            write_image(Image.fromarray(levels), mask)
            margins = _margins(grown) if any(grown) else None
            target = random_folder(folder)
            written = fill_file(self.inpainter, photo.there().path, mask, target, variant, margins)
            name = visitor.result_name(photo, written.suffix)
            # A program's result is named after its photo; here the number goes on.
            result = Path(shutil.move(written, folder / name))
            written.parent.rmdir()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        size = (levels.shape[1], levels.shape[0])
        box = None if any(grown) else box_of(levels > 0)
        return visitor.add(Picture(result, name, size, photo, mask, box, task, variant, grown))

    def _sameness(self, hole: npt.NDArray[np.bool_]) -> str:
        if self.inpainter.method == "network" or pieces_fit(hole):
            return "the network fills alone here"
        return f"only holes wide all along, {NARROWEST} pixels or more, can be filled in other ways"

    def fill_for_program(self, image: str, mask: str, variant: float | None = 0) -> str:
        """Fill the hole of a photo.

        Args:
            image: The photo, a file.
            mask: The mask, a file of the photo's size; white = hole.
            variant: 0 is the fill; 1, 2 and so on are others, where they can differ.

        Returns:
            The result, a file of the photo's format and size; pixels outside the hole are the
            photo's own.
        """
        for path, what in ((image, "image"), (mask, "mask")):
            if not path:
                raise ValueError(f"there is no {what}; send a file for it")
            check_pixels(Path(path), self.max_megapixels)
        number = _whole_variant(variant)
        folder = random_folder(self.store.public)
        return str(fill_file(self.inpainter, Path(image), Path(mask), folder, number))

    # --- what is shown ---------------------------------------------------------------------------

    def regions(self, fill: Picture) -> tuple[list[tuple[Image.Image, str]], str]:
        """The regions that the network's RN-L layers find in a photo, and a summary."""
        if fill.parent is None or fill.mask is None:
            return [], "Fill something first; then the regions of that photo are shown here."
        if self.inpainter.model is None:
            return [], "Photos are filled without a network here."
        # Nothing is read below the hole, which alone differs from the photo.
        photo = read_preview((fill if any(fill.grown) else fill.parent).path, _REGIONS_SIDE)[1]
        mask = Image.fromarray(read_mask(fill.mask)).resize(photo.size)
        device = self.inpainter.device
        found = learned_regions(
            self.inpainter.model,
            image_to_tensor(photo).to(device),
            mask_to_tensor(mask).to(device),
        )
        if not found:
            return [], "This network has no RN-L layers."
        split = [region for region in found if 0.005 < region.share < 0.995]
        summary = f"{len(split)} of {len(found)} RN-L layers see two regions in this photo."
        return [(_overlay(photo, region), _caption(region)) for region in split], summary

    # --- for whoever asked -----------------------------------------------------------------------

    def explain(self, error: BaseException) -> str | None:
        """One line for the visitor or the program that asked; None for what should not happen.

        Files are called by their names there, not by where they lie on the server.
        """
        if isinstance(error, MemoryError) or (
            # torch's own out-of-memory
            isinstance(error, RuntimeError) and "memory" in str(error).lower()
        ):
            return "there is not enough memory for a photo of this size; make it smaller"
        if not isinstance(error, (ValueError, OSError, ImportError, Gone)):
            return None
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{os.path.basename(os.fspath(error.filename))}: {error.strerror}"
        return self.store.hide_folders(" ".join(text.split()))


def _whole_variant(variant: object) -> int:
    if variant is None:
        return 0
    # JSON has one kind of number: some programs write 1 as 1.0.
    if isinstance(variant, int | float) and variant in range(_MOST_VARIANT + 1):
        return int(variant)
    raise ValueError(f"variant is {variant!r:.40}; give a whole number from 0 to {_MOST_VARIANT}")


def _margins(grown: Box) -> Margins:
    return Margins(*map(str, grown))


def _levels(mask: Path) -> npt.NDArray[np.uint8]:
    with Image.open(mask) as image:
        return np.asarray(image.convert("L"))


def _keep_mask(checked: CheckedMask, visitor: Visitor) -> DrawnMask:
    """Write a mask as the page draws it: opaque where the hole is, less so where it is soft."""
    # A palette: an eighth of the bytes of colours, and as quick to draw.
    path = visitor.new_folder() / "mask.png"
    if checked.cover is None:
        picture = Image.fromarray(checked.hole.astype(np.uint8))
        picture.putpalette([0, 0, 0, *_MASK_COLOUR])
        picture.save(path, transparency=0, optimize=False)
    else:
        picture = Image.fromarray(checked.cover)
        picture.putpalette(_MASK_COLOUR * 256)
        picture.save(path, transparency=bytes(range(256)), optimize=False)
    return DrawnMask(visitor.add_mask(path), checked.warnings, checked.cover is not None)


def _overlay(photo: Image.Image, found: LearnedRegion) -> Image.Image:
    region = tensor_to_image(found.region[0].float().expand(3, -1, -1)).convert("L")
    region = region.resize(photo.size, Image.Resampling.NEAREST)
    gray = photo.convert("L").convert("RGB")
    return Image.composite(
        Image.blend(gray, Image.new("RGB", photo.size, _REGION_COLOUR), 0.55), gray, region
    )


def _caption(found: LearnedRegion) -> str:
    return f"{found.layer.removesuffix('.layer')}: {found.share:.0%}"
