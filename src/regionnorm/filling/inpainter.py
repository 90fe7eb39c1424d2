"""Fill holes in photos: any size, any mode."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from regionnorm._extras import require
from regionnorm.devices import has_native_bfloat16, pick_device
from regionnorm.filling.any_size import check_strategy, fill_holes
from regionnorm.filling.batch import BatchReport, Fill, inpaint_path
from regionnorm.filling.completion.where import pieces_fit
from regionnorm.filling.conditioning import conditioned
from regionnorm.imaging import mask_levels, mask_to_array
from regionnorm.masks.soft import blend, cover_of
from regionnorm.models.base import InpaintingModel
from regionnorm.nn.precision import cast_convolutions
from regionnorm.ops.backend import numba_works
from regionnorm.photo import Photo

__all__ = ["BatchReport", "Fill", "Inpainter", "check_method", "inpaint_path"]

Array = npt.NDArray[Any]

Method = Literal["auto", "network", "exemplar"]
METHODS: tuple[str, ...] = get_args(Method)

_MOST_FEATHER = 256


class Inpainter:
    """Fills the hole of a photo and leaves every other pixel as it is.

    Calls from several threads at once are safe.

    Args:
        model: None for the weights that come with the package, a name or a file for
            :func:`regionnorm.load_pretrained`, exported ``.onnx`` files too, or a module called as
            ``model(image, mask)``, which is put into evaluation mode.
        device: Where to run; None leaves a module where it is and picks the best device otherwise.
        precision: ``"fp32"``, ``"bf16"`` (autocast), or None for bf16 where the device computes in
            it natively: it takes about 0.6 of the time and changes a filled pixel by about a fifth
            of a grey level.
        strategy: How photos larger than the network's reach are filled: ``"original"``,
            ``"crop"``, ``"resize"``, or ``"auto"``, which chooses; see
            :func:`regionnorm.filling.any_size.fill_holes`.
        feather: Pixels inside the hole over which a difference in colour between the network's
            fill and the hole's border fades; 0 leaves the network's colours as they are.
        method: ``"network"``: the network alone. ``"exemplar"``: pieces of the same photo alone
            (:func:`regionnorm.filling.completion.complete`); no weights are loaded. ``"auto"``:
            both, in narrow holes the network with fine detail of the photo, in others the two
            joined; the network alone where numba is not installed, and for a module of your own,
            whose fills are yours.
        variant: 0 is the fill; 1, 2 and so on are others, where pieces of the photo are used.

    Example:
        >>> filled = Inpainter()(Image.open("photo.jpg"), Image.open("mask.png"))

    Raises:
        FileNotFoundError: The weights file does not exist.
        ValueError: The name, the device, the precision or another option is not known.
        ImportError: The method is ``"exemplar"`` and numba is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        strategy: str = "auto",
        feather: int = 0,
        method: str = "auto",
        variant: int = 0,
    ) -> None:
        check_strategy(strategy)
        self.variant = _checked_variant(variant)
        self.strategy, self.feather = strategy, _checked_feather(feather)
        self.method, self._own = check_method(method), isinstance(model, nn.Module)
        self.model: nn.Module | None = None
        if method == "exemplar":
            _check_unfeathered(feather)
            self.device = pick_device(device)
            return
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
        soft_mask: bool = False,
        strategy: str | None = None,
        feather: int | None = None,
        method: str | None = None,
        variant: int | None = None,
    ) -> Image.Image:
        """Fill the hole.

        Args:
            image: A photo of any mode and size, or a uint8 array ``[H, W]`` or ``[H, W, C]``. Its
                EXIF orientation is applied.
            mask: White = hole: an image, or an array ``[H, W]``, bool or uint8.
            soft_mask: Show as much of the fill as the mask is bright; otherwise what is brighter
                than half is hole.
            strategy: For this photo only; None takes the inpainter's.
            feather: For this photo only; None takes the inpainter's.
            method: For this photo only; None takes the inpainter's.
            variant: For this photo only; None takes the inpainter's.

        Returns:
            An image of the same size and mode, upright. Pixels outside the hole are the photo's
            own, exactly, and so is transparency everywhere. A palette keeps its entries and gets
            new ones where it has room; convert such photos to RGB first for the finest fill.

        Raises:
            ValueError: An option is not known, the inpainter was made without a network, the mask
                has another size, no hole or nothing but hole, the photo has
                pixels of 32 bits, or the model's output has another shape or is not finite.
        """
        photo, hole, cover = Photo.from_image(image), mask_to_array(mask), None
        if soft_mask:
            cover = _cover(mask)
            hole = hole if cover is None else cover > 0
        filled = self.fill_photo(
            photo,
            hole,
            cover=cover,
            strategy=strategy,
            feather=feather,
            method=method,
            variant=variant,
        )
        return filled.image

    def fill_photo(
        self,
        photo: Photo,
        hole: npt.NDArray[np.bool_],
        *,
        opaque: bool = False,
        cover: npt.NDArray[np.uint8] | None = None,
        strategy: str | None = None,
        feather: int | None = None,
        method: str | None = None,
        variant: int | None = None,
    ) -> Photo:
        """Fill the hole of a photo in its own mode and depth.

        Args:
            photo: What :func:`~regionnorm.photo.read_photo` returns.
            hole: bool ``[H, W]``.
            opaque: Make the hole visible where it is transparent.
            cover: How much of the fill shows, uint8 ``[H, W]``; None shows all of it. Its hole is
                every pixel above 0.
            strategy: For this photo only; None takes the inpainter's.
            feather: For this photo only; None takes the inpainter's.
            method: For this photo only; None takes the inpainter's.
            variant: For this photo only; None takes the inpainter's.

        Raises:
            ValueError: As for a call.
        """
        _check(photo, hole)
        method = self._method(method)
        strategy = self.strategy if strategy is None else strategy
        feather = self.feather if feather is None else _checked_feather(feather)
        check_strategy(strategy)
        if method == "exemplar":
            _check_unfeathered(feather)
        alpha = photo.alpha()
        # What cannot be seen has any colour, black most often, and must not bleed in.
        hidden = None if alpha is None else alpha == 0
        colours, painted = photo.colours(), None
        if method != "exemplar":
            painted = fill_holes(
                self._network,
                colours,
                hole,
                strategy=strategy,
                feather=feather,
                hidden=hidden,
            )
        if method != "network":
            # Here, because numba takes long to import, and not everyone has it.
            from regionnorm.filling.completion.complete import complete

            seed = self.variant if variant is None else _checked_variant(variant)
            painted = complete(colours, hole, network=painted, hidden=hidden, seed=seed)
        assert painted is not None
        if cover is not None:
            painted = blend(colours, painted, cover)
        return photo.filled(painted, hole, opaque=opaque)

    def varies(self, hole: npt.NDArray[np.bool_]) -> bool:
        """Whether variants of the fill of this hole, bool ``[H, W]``, can differ at all."""
        method = self._method(None)
        return method == "exemplar" or (method == "auto" and pieces_fit(hole))

    def warm_up(self) -> threading.Thread:
        """Compile in a thread what adds pieces of the photo, once on each machine: some 15 seconds.

        A fill that is asked for meanwhile waits for it. Where this inpainter fills by its network
        alone there is nothing to do.

        Returns:
            The thread, at work; nobody has to wait for it.
        """
        thread = threading.Thread(target=self._compile, name="warm-up", daemon=True)
        thread.start()
        return thread

    def _compile(self) -> None:
        if self.method == "network" or self._own or not numba_works():
            return
        from regionnorm.filling.completion.complete import warm_up

        warm_up()

    def _method(self, method: str | None) -> str:
        """What to do, of what was asked for and what there is."""
        method = self.method if method is None else check_method(method)
        if method == "auto" and (self._own or not numba_works()):
            method = "network"
        if self.model is None and method != "exemplar":
            raise ValueError(
                f"method is {method!r}, but this inpainter was made without a network; make one "
                "with method='auto'"
            )
        return method

    @torch.inference_mode()
    def _run(self, image: Tensor, mask: Tensor) -> Tensor:
        image, mask = image.to(self.device), mask.to(self.device)
        autocast = (
            torch.autocast(self.device.type, dtype=self._autocast)
            if self._autocast
            else nullcontext()
        )
        assert self.model is not None
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


def _cover(mask: Image.Image | Array) -> npt.NDArray[np.uint8] | None:
    levels = mask_levels(mask) if isinstance(mask, Image.Image) else mask.reshape(mask.shape[:2])
    if isinstance(mask, Image.Image) and levels.dtype == np.uint16:
        levels = levels // 257
    elif levels.dtype.kind == "f":
        levels = np.rint(levels.clip(0, 1) * 255)
    # Of bool and of 0 and 1 there is nothing between.
    if not levels.max(initial=0) > 1:
        return None
    return cover_of(levels.clip(0, 255).astype(np.uint8))


def _autocast_dtype(precision: str | None, device: torch.device) -> torch.dtype | None:
    """Choose the dtype to autocast to; None runs everything as the weights are."""
    if precision is None:
        precision = "bf16" if has_native_bfloat16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not known; use fp32 or bf16")
    return torch.bfloat16 if precision == "bf16" else None


def check_method(method: str) -> str:
    """Return a method's name.

    Raises:
        ValueError: There is none of that name.
        ImportError: It is ``"exemplar"`` and numba is missing.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not known; use {', '.join(METHODS)}")
    if method == "exemplar":
        require("numba", extra="fast")
    return method


def _checked_variant(variant: int) -> int:
    if variant < 0:
        raise ValueError(f"variant is {variant}; give 0 or more")
    return variant


def _check_unfeathered(feather: int) -> None:
    if feather:
        raise ValueError(
            f"feather is {feather} pixels, but method 'exemplar' has no network's fill to match; "
            "leave one of them out"
        )


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
