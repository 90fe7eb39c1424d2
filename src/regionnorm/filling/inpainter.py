"""Fill holes in photos: any size, any mode."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from regionnorm.devices import has_native_bfloat16, pick_device
from regionnorm.filling.any_size import check_strategy, fill_holes
from regionnorm.filling.batch import BatchReport, Fill, inpaint_path
from regionnorm.filling.conditioning import conditioned
from regionnorm.filling.texture import add_texture, wants_texture
from regionnorm.imaging import mask_to_array
from regionnorm.models.base import InpaintingModel
from regionnorm.nn.precision import cast_convolutions
from regionnorm.photo import Photo

__all__ = ["BatchReport", "Fill", "Inpainter", "inpaint_path"]

Array = npt.NDArray[Any]

_MOST_FEATHER = 256
# Pixels of a window that still gets texture. Twelve megapixels would take 2.6 GB instead of 0.9,
# and their texture shows little: it is a few pixels wide.
_MOST_TEXTURE = 4_000_000


class Inpainter:
    """Fills the hole of a photo and leaves every other pixel as it is.

    Calls from several threads at once are safe.

    Args:
        model: None for the weights that come with the package, a name or a file for
            :func:`regionnorm.load_pretrained`, or a module called as ``model(image, mask)``,
            which is put into evaluation mode.
        device: Where to run; None leaves a module where it is and picks the best device otherwise.
        precision: ``"fp32"``, ``"bf16"`` (autocast), or None for bf16 where the device computes in
            it natively: it takes about 0.6 of the time and changes a filled pixel by about a fifth
            of a grey level.
        strategy: How photos larger than the network's reach are filled: ``"original"``,
            ``"crop"``, ``"resize"``, or ``"auto"``, which chooses; see
            :func:`regionnorm.filling.any_size.fill_holes`.
        feather: Pixels inside the hole over which a difference in colour at its border fades;
            0 leaves the network's colours as they are.
        texture: Whether the fill takes texture and grain from the known part of the photo
            (:func:`regionnorm.filling.texture.add_texture`). None does so where numba is
            installed, but not to what a module of your own makes. Holes whose surroundings take
            more than 4 megapixels get none.

    Example:
        >>> filled = Inpainter()(Image.open("photo.jpg"), Image.open("mask.png"))

    Raises:
        FileNotFoundError: The weights file does not exist.
        ValueError: The name, the device, the precision or another option is not known.
        ImportError: ``texture`` is True and numba is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        strategy: str = "auto",
        feather: int = 0,
        texture: bool | None = None,
    ) -> None:
        check_strategy(strategy)
        self.strategy, self.feather = strategy, _checked_feather(feather)
        own = isinstance(model, nn.Module) and texture is None
        self.texture = False if own else wants_texture(texture)
        # What a module of the user's own makes is theirs.
        foreign = isinstance(model, nn.Module) and not isinstance(model, InpaintingModel)
        self._network = self._run if foreign else conditioned(self._run)
        if isinstance(model, nn.Module):
            first = next(model.parameters(), None)
            self.device = (
                first.device if device is None and first is not None else pick_device(device)
            )
            self.model = model.to(self.device)
        else:
            # Reading weights needs more packages than running a module does.
            from regionnorm.checkpoints.weights import load_pretrained

            self.device = pick_device(device)
            name = None if model is None else os.fspath(model)
            # Channels-last: measured 5 to 17 % faster with the shipped weights, in both precisions.
            self.model = load_pretrained(name, device=str(self.device)).to(
                memory_format=torch.channels_last  # type: ignore[call-overload]
            )
        self.model.eval()
        self._autocast = _autocast_dtype(precision, self.device)
        if self._autocast is not None and not isinstance(model, nn.Module):
            cast_convolutions(self.model, self._autocast)

    def __call__(
        self,
        image: Image.Image | Array,
        mask: Image.Image | Array,
        *,
        strategy: str | None = None,
        feather: int | None = None,
        texture: bool | None = None,
    ) -> Image.Image:
        """Fill the hole.

        Args:
            image: A photo of any mode and size, or a uint8 array ``[H, W]`` or ``[H, W, C]``. Its
                EXIF orientation is applied.
            mask: White = hole: an image, or an array ``[H, W]``, bool or uint8.
            strategy: For this photo only; None takes the inpainter's.
            feather: For this photo only; None takes the inpainter's.
            texture: For this photo only; None takes the inpainter's.

        Returns:
            An image of the same size and mode, upright. Pixels outside the hole are the photo's
            own, exactly, and so is transparency everywhere. A palette keeps its entries and gets
            new ones where it has room; convert such photos to RGB first for the finest fill.

        Raises:
            ValueError: The mask has another size, no hole or nothing but hole, the photo has
                pixels of 32 bits, or the model's output has another shape or is not finite.
        """
        photo, hole = Photo.from_image(image), mask_to_array(mask)
        filled = self.fill_photo(photo, hole, strategy=strategy, feather=feather, texture=texture)
        return filled.image

    def fill_photo(
        self,
        photo: Photo,
        hole: npt.NDArray[np.bool_],
        *,
        opaque: bool = False,
        strategy: str | None = None,
        feather: int | None = None,
        texture: bool | None = None,
    ) -> Photo:
        """Fill the hole of a photo in its own mode and depth.

        Args:
            photo: What :func:`~regionnorm.photo.read_photo` returns.
            hole: bool ``[H, W]``.
            opaque: Make the hole visible where it is transparent.
            strategy: For this photo only; None takes the inpainter's.
            feather: For this photo only; None takes the inpainter's.
            texture: For this photo only; None takes the inpainter's.

        Raises:
            ValueError: As for a call.
        """
        _check(photo, hole)
        alpha = photo.alpha()
        textured = self.texture if texture is None else wants_texture(texture)
        colours = fill_holes(
            self._network,
            photo.colours(),
            hole,
            strategy=self.strategy if strategy is None else strategy,
            feather=self.feather if feather is None else _checked_feather(feather),
            texture=_with_texture if textured else None,
            # What cannot be seen has any colour, black most often, and must not bleed in.
            hidden=None if alpha is None else alpha == 0,
        )
        return photo.filled(colours, hole, opaque=opaque)

    @torch.inference_mode()
    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        image, mask = image.to(self.device), mask.to(self.device)
        autocast = (
            torch.autocast(self.device.type, dtype=self._autocast)
            if self._autocast
            else nullcontext()
        )
        with autocast:
            output = self.model(image, mask)
        if not isinstance(output, Tensor) or output.shape != image.shape:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the model returned {got}; it should return one tensor {list(image.shape)}"
            )
        if not torch.isfinite(output).all():
            raise ValueError(
                "the model returned NaN or infinity; try precision fp32 or other weights"
            )
        return output.float().cpu()


def _autocast_dtype(precision: str | None, device: torch.device) -> torch.dtype | None:
    """Choose the dtype to autocast to; None runs everything as the weights are."""
    if precision is None:
        precision = "bf16" if has_native_bfloat16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not known; use fp32 or bf16")
    return torch.bfloat16 if precision == "bf16" else None


def _with_texture(photo: Array, filled: Array, hole: npt.NDArray[np.bool_]) -> Array:
    """Add texture to the fill of one window, uint8 or uint16 ``[H, W, 3]``."""
    if hole.size > _MOST_TEXTURE:
        return filled
    most = np.iinfo(photo.dtype).max
    image, fill = (
        torch.from_numpy(np.divide(pixels, most, dtype=np.float32)).permute(2, 0, 1)[None]
        for pixels in (photo, filled)
    )
    textured = add_texture(image, fill, torch.from_numpy(hole.astype(np.float32))[None, None])
    levels: Array = textured[0].permute(1, 2, 0).mul(most).round().numpy().astype(photo.dtype)
    return levels


def _checked_feather(feather: int) -> int:
    if not 0 <= feather <= _MOST_FEATHER:
        raise ValueError(f"feather is {feather} pixels; give 0 to {_MOST_FEATHER}")
    return feather


def _check(photo: Photo, hole: npt.NDArray[np.bool_]) -> None:
    width, height = photo.size
    if hole.shape != (height, width):
        raise ValueError(
            f"the mask is {hole.shape[1]}x{hole.shape[0]} but the upright photo is "
            f"{width}x{height}; give a mask of the photo's size"
        )
    if not hole.any():
        raise ValueError(
            "no pixel of the mask is brighter than half, or it is black everywhere; "
            "paint what should be filled white"
        )
    if hole.all():
        raise ValueError("the mask is white everywhere; leave black what should be kept")
