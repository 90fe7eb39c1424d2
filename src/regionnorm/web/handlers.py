"""What happens when the page is used: each handler takes and returns what the page shows.

Handlers hold no visitor's data; that comes in and goes out as a :class:`Session`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.whole import check_pixels
from regionnorm.filling.completion.where import NARROW, wide_holes
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import (
    image_to_tensor,
    mask_to_tensor,
    read_mask,
    tensor_to_image,
    write_image,
)
from regionnorm.inspecting.layers import LearnedRegion, learned_regions
from regionnorm.masks.check import make_mask
from regionnorm.photo import read_photo
from regionnorm.web.session import (
    Filled,
    Session,
    Store,
    decode_mask,
    fill_file,
    random_folder,
    read_preview,
    to_data_url,
)

__all__ = ["Handlers", "polite"]

_EDITOR_SIDE = 2048  # of the picture that is painted on; the mask has the photo's own size
_SLIDER_SIDE = 1600
_THUMBNAIL_SIDE = 240
_REGIONS_SIDE = 512
_MOST_VARIANT = 999
_REGION_COLOUR = (255, 140, 0)
_MASK_COLOUR = (255, 20, 100, 255)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def polite(gradio: Any, store: Store, handler: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn what can go wrong into one line for the visitor, or for the program that asked.

    Files are called by their names there, not by where they lie on the server.
    """

    @wraps(handler)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return handler(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:  # torch's own out-of-memory is the latter
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            message = "there is not enough memory for a photo of this size; make it smaller"
        except (ValueError, OSError, ImportError) as error:
            message = store.hide_folders(" ".join(str(error).split()))
        raise gradio.Error(message, print_exception=False)

    return call


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

    def open_photo(
        self, path: str | None, session: Session | None
    ) -> tuple[Session, dict[str, Any]]:
        """Take a photo into the visitor's folder; the second value is for the page's brush."""
        if not path:
            raise ValueError("no photo has arrived; choose one again")
        source = Path(path)
        check_pixels(source, self.max_megapixels)
        session = session or self.store.new_session()
        shown = self._take(source, session)
        description = {
            "name": source.name,
            "width": session.size[0],
            "height": session.size[1],
            "mask": session.canvas,
            "preview": to_data_url(shown, "JPEG"),
        }
        return session, description

    def open_example(self, index: int, session: Session | None) -> tuple[Session, dict[str, Any]]:
        """Take one of the example photos."""
        return self.open_photo(str(self.examples[index]), session)

    def open_result(self, session: Session | None) -> tuple[Session, dict[str, Any]]:
        """Go on with the shown result as the photo."""
        return self.open_photo(str(self.shown(session).result), session)

    def _take(self, source: Path, session: Session) -> Image.Image:
        try:
            size, shown = read_preview(source, _EDITOR_SIDE)
        except FileNotFoundError as error:
            raise ValueError("this file has expired; choose the photo again") from error
        folder = random_folder(session.folder)
        session.photo = Path(shutil.copy(source, folder / source.name))
        session.size = size
        session.drop_unused()
        return shown

    def load_mask(self, path: str | None, session: Session | None) -> tuple[str, tuple[str, ...]]:
        """Check a mask file; returns it as the page's brush takes it, and what looks odd in it."""
        session, photo = _ready(session)
        if not path:
            raise ValueError("no mask has arrived; choose one again")
        check_pixels(Path(path), self.max_megapixels)
        height, width = read_mask(path).shape
        if (width, height) != session.size:
            raise ValueError(
                f"the mask is {width}x{height} but {photo.name} is {session.size[0]}x"
                f"{session.size[1]}; use a mask of the photo's size"
            )
        checked = make_mask(read_photo(photo), path)
        return _painted(checked.hole), checked.warnings

    def find_scratches(self, session: Session | None) -> str:
        """Look for scratches and dust; returns them as the page's brush takes them."""
        _, photo = _ready(session)
        return _painted(make_mask(read_photo(photo), "auto:scratches").hole)

    # --- filling ---------------------------------------------------------------------------------

    def fill(self, mask_url: str, session: Session | None) -> Session:
        """Fill what was painted; the result becomes the first of the history."""
        session, photo = _ready(session)
        hole = decode_mask(mask_url, session)
        if not hole.any():
            raise ValueError("nothing is painted yet; paint over what should go")
        mask = random_folder(session.folder) / "mask.png"
        write_image(Image.fromarray(np.where(hole, np.uint8(255), np.uint8(0))), mask)
        result = fill_file(self.inpainter, photo, mask, random_folder(self.store.public))
        session.remember(Filled(photo, mask, result))
        return session

    def another(self, session: Session | None) -> Session:
        """Fill the photo and mask of the shown fill again, as the next variant."""
        shown = self.shown(session)
        assert session is not None
        hole = read_mask(shown.mask)
        if not self.inpainter.varies(hole):
            raise ValueError(f"another fill would be the same: {self._sameness(hole)}")
        variant = session.next_variant(shown.mask)
        folder = random_folder(self.store.public)
        result = fill_file(self.inpainter, shown.photo, shown.mask, folder, variant)
        session.remember(Filled(shown.photo, shown.mask, result, variant))
        return session

    def _sameness(self, hole: npt.NDArray[np.bool_]) -> str:
        if self.inpainter.method == "network" or wide_holes(hole).any():
            return "the network fills alone here"
        return f"only holes {2 * NARROW - 1} pixels wide or more can be filled in other ways"

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

    def go_back(self, index: int, session: Session | None) -> Session:
        """Choose one of the last fills to be shown."""
        if session is None or not 0 <= index < len(session.fills):
            raise ValueError("this fill is gone; reload the page")
        session.shown = session.fills[index]
        return session

    def shown(self, session: Session | None) -> Filled:
        """The fill that the page shows."""
        if session is None or session.shown is None:
            raise ValueError("nothing is filled yet; paint over what should go and press Fill")
        if not session.shown.result.is_file():
            raise ValueError("this result has expired; fill again")
        return session.shown

    def comparison(self, session: Session) -> tuple[Image.Image, Image.Image]:
        """The shown fill, before and after, at a size for the screen."""
        shown = self.shown(session)
        return read_preview(shown.photo, _SLIDER_SIDE)[1], read_preview(shown.result, _SLIDER_SIDE)[
            1
        ]

    def history(self, session: Session) -> list[tuple[Image.Image, str]]:
        """Small pictures of the last fills, latest first."""
        return [
            (read_preview(fill.result, _THUMBNAIL_SIDE)[1], fill.result.name)
            for fill in session.fills
        ]

    def regions(self, session: Session | None) -> tuple[list[tuple[Image.Image, str]], str]:
        """The regions that the network's RN-L layers find in the shown photo, and a summary."""
        if session is None or session.shown is None:
            return [], "Fill a hole first; then the regions of that photo are shown here."
        if self.inpainter.model is None:
            return [], "Photos are filled without a network here."
        photo = read_preview(session.shown.photo, _REGIONS_SIDE)[1]
        mask = Image.fromarray(read_mask(session.shown.mask)).resize(photo.size)
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


def _ready(session: Session | None) -> tuple[Session, Path]:
    if session is None or session.photo is None:
        raise ValueError("there is no photo yet; choose one first")
    if not session.photo.is_file():
        raise ValueError("this photo has expired; choose it again")
    return session, session.photo


def _whole_variant(variant: object) -> int:
    if variant is None:
        return 0
    # JSON has one kind of number: some programs write 1 as 1.0.
    if isinstance(variant, int | float) and variant in range(_MOST_VARIANT + 1):
        return int(variant)
    raise ValueError(f"variant is {variant!r:.40}; give a whole number from 0 to {_MOST_VARIANT}")


def _painted(hole: npt.NDArray[np.bool_]) -> str:
    picture = np.zeros((*hole.shape, 4), np.uint8)
    picture[hole] = _MASK_COLOUR
    return to_data_url(Image.fromarray(picture), "PNG")


def _overlay(photo: Image.Image, found: LearnedRegion) -> Image.Image:
    region = tensor_to_image(found.region[0].float().expand(3, -1, -1)).convert("L")
    region = region.resize(photo.size, Image.Resampling.NEAREST)
    gray = photo.convert("L").convert("RGB")
    return Image.composite(
        Image.blend(gray, Image.new("RGB", photo.size, _REGION_COLOUR), 0.55), gray, region
    )


def _caption(found: LearnedRegion) -> str:
    return f"{found.layer.removesuffix('.layer')}: {found.share:.0%}"
