"""The weights that the paper's authors released, as a network of this package.

Their checkpoint is a ``torch.save`` of a state dict that holds generator and discriminator. The
generator is ``rn`` with three differences, all of which the network keeps: statistics run over the
batch, RN-B adds the shifts of both regions to every pixel, and eps is added to the variance of the
whole map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from regionnorm.devices import pick_device, without_memory
from regionnorm.files.remote import as_place, local_copy
from regionnorm.models import InpaintingModel, create_model

__all__ = ["from_released", "load_released"]

PREFIXES = ("generator.module.", "generator.")
# Ours: theirs, for everything that has a weight and a bias.
CONVOLUTIONS = {
    **{f"encoder.{i}": f"encoder_conv{i + 1}" for i in range(3)},
    "decoder.0.0": "decoder.0",
    "decoder.1.0": "decoder.4",
    "output": "decoder.9",
}


def load_released(
    path: str | os.PathLike[str], *, device: str | torch.device | None = "cpu"
) -> InpaintingModel:
    """Load a checkpoint of the paper's authors: ``model(image, mask) -> image``.

    For one picture at a time the result does not depend on others; in a batch it does, as theirs.

    Args:
        path: The ``.pth`` file; read without running any code that it might hold.
        device: Where the network goes; None picks the best device.

    Returns:
        The network, in float32, for inference.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no state dict, or not that of the released generator.
    """
    place = as_place(path)
    if not place.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        with local_copy(place) as local:
            state = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # by name and content torch picks a reader, each with own errors
        raise ValueError(
            f"{path} cannot be read as weights; give the .pth, an intact saved state dict"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a state dict")
    try:
        return from_released(state).to(pick_device(device)).eval()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_released(state: Mapping[str, Tensor]) -> InpaintingModel:
    """Make the network of a released state dict.

    Args:
        state: Names that begin with ``generator.`` or ``generator.module.``; others, such as the
            discriminator's, are ignored.

    Returns:
        ``rn`` with the options ``stats="batch"`` and ``eps_on="map"``.

    Raises:
        ValueError: A name is missing, or left over, or a shape does not fit.
    """
    theirs = _generator(state)
    first = _take(theirs, "encoder_conv1.weight", pop=False)
    blocks = {name.split(".")[1] for name in theirs if name.startswith("middle.")}
    # Without memory of its own: what a file claims may be of any size.
    with without_memory():
        model = create_model(
            "rn", width=first.shape[0], blocks=len(blocks), stats="batch", eps_on="map"
        )
    ours = _tensors(theirs, len(blocks))
    if theirs:
        raise ValueError(f"the released generator has no {next(iter(theirs))!r}")
    try:
        model.load_state_dict(ours, assign=True)
    except RuntimeError as error:
        mismatch = str(error).splitlines()[-1].strip()
        raise ValueError(f"does not fit the released generator: {mismatch}") from error
    return model


def _generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The generator's tensors, without the prefix of their names."""
    for prefix in PREFIXES:
        found = {
            name[len(prefix) :]: value.float()
            for name, value in state.items()
            if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
        }
        if found:
            return found
    names = ", ".join(map(str, list(state)[:3])) or "nothing"
    raise ValueError(f"no tensor's name begins with 'generator.'; it holds {names}")


def _tensors(theirs: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Our state dict; what it takes is removed from theirs."""
    convolutions = dict(CONVOLUTIONS)
    learnable = {f"decoder_norms.{i}": f"decoder.{number}" for i, number in enumerate((2, 6))}
    for i in range(blocks):
        for name, number in (("first", 1), ("second", 5)):
            convolutions[f"residual.{i}.{name}"] = f"middle.{i}.conv_block.{number}"
            learnable[f"residual.{i}.{name}_norm"] = f"middle.{i}.conv_block.{number + 1}"
    ours = {}
    for new, old in convolutions.items():
        for part in ("weight", "bias"):
            ours[f"{new}.{part}"] = _take(theirs, f"{old}.{part}")
    for i in range(3):
        ours |= _basic(theirs, f"encoder_norms.{i}.layer", f"encoder_in{i + 1}")
    for new, old in learnable.items():
        ours |= _learnable(theirs, f"{new}.layer", f"{old}.sa")
    return ours


def _basic(theirs: dict[str, Tensor], new: str, old: str) -> dict[str, Tensor]:
    """RN-B: gammas are stored minus one, and both betas act on every pixel."""
    part = {
        (region, kind): _take(theirs, f"{old}.{region}_{kind}").reshape(-1)
        for region in ("background", "foreground")  # the foreground is the hole
        for kind in ("gamma", "beta")
    }
    beta = part["background", "beta"] + part["foreground", "beta"]
    gammas = torch.stack([part["background", "gamma"], part["foreground", "gamma"]])
    return {f"{new}.weight": 1 + gammas, f"{new}.bias": torch.stack([beta, beta])}


def _learnable(theirs: dict[str, Tensor], new: str, old: str) -> dict[str, Tensor]:
    """RN-L: gamma's and beta's convolution are one of ours."""
    affine = {
        part: torch.cat([_take(theirs, f"{old}.{name}_conv.{part}") for name in ("gamma", "beta")])
        for part in ("weight", "bias")
    }
    return {
        f"{new}.response.weight": _take(theirs, f"{old}.conv1.weight"),
        **{f"{new}.affine.{part}": value for part, value in affine.items()},
    }


def _take(theirs: dict[str, Tensor], name: str, *, pop: bool = True) -> Tensor:
    if name not in theirs:
        raise ValueError(f"the released generator has a {name!r}, which is missing here")
    return theirs.pop(name) if pop else theirs[name]
