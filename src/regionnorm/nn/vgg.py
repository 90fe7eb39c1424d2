"""VGG-19 as a fixed feature extractor for the perceptual and style losses.

Two kinds of weights load: torchvision's VGG-19, and the "normalised" conversion, whose channels
each have a mean activation of 1 over ImageNet and which may stop after any convolution.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.devices import without_memory
from regionnorm.nn.convolution import PaddedConv2d

__all__ = ["PERCEPTUAL_LAYERS", "STYLE_LAYERS", "VGGFeatures", "find_vgg19", "load_vgg19"]

#: Layers that EdgeConnect compares in its perceptual loss.
PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
#: Layers whose Gram matrices EdgeConnect compares in its style loss.
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")

OFFICIAL_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
OFFICIAL_HASH = "dcbb9e9d"  # the first digits of the file's SHA-256
ENVIRONMENT_VARIABLE = "REGIONNORM_VGG"

# (convolutions, channels) of each block; a 2x2 max pool stands between blocks.
_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
PaddingMode = Literal["zeros", "reflect"]

# "1_1" -> output channels, in the order of computation.
_CONVOLUTIONS = {
    f"{block}_{i}": channels
    for block, (count, channels) in enumerate(_BLOCKS, start=1)
    for i in range(1, count + 1)
}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """Named activations of VGG-19, frozen.

    Only the layers up to the deepest one asked for are built and computed. Gradients flow to the
    images, never to the weights.

    Args:
        layers: Names from ``"relu1_1"`` to ``"relu5_4"``.
        padding_mode: ``"zeros"`` (torchvision's weights) or ``"reflect"`` (the normalised ones).

    Raises:
        ValueError: ``layers`` is empty or holds an unknown name.
    """

    def __init__(self, layers: Sequence[str], *, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.layers = tuple(dict.fromkeys(layers))
        # One 1x1 convolution expresses both ImageNet's mean and std and a swap to BGR.
        self.preprocess = nn.Conv2d(3, 3, 1)
        self.convolutions = nn.ModuleDict()
        channels = 3
        for name in _needed_convolutions(self.layers):
            self.convolutions[name] = PaddedConv2d(
                channels, _CONVOLUTIONS[name], 3, padding=1, padding_mode=padding_mode
            )
            channels = _CONVOLUTIONS[name]
        pools = int(name[0]) - 1
        # Reflection needs two pixels, so does nothing else after the last pool.
        self.minimum_size = 2**pools * (2 if padding_mode == "reflect" else 1)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations asked for.

        Args:
            images: float ``[B, 3, H, W]`` in [0, 1], RGB.

        Returns:
            ``{layer: float [B, C, H / s, W / s]}`` with s = 1, 2, 4, 8, 16 in blocks 1 to 5
            (rounded down), in the order of ``layers``.

        Raises:
            ValueError: ``images`` has another shape, or is too small for the deepest layer.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.minimum_size:
            raise ValueError(
                f"images have shape {list(images.shape)}; VGG-19 takes [B, 3, H, W] with H and W "
                f"of at least {self.minimum_size}"
            )
        found = {}
        x = self.preprocess(images)
        for name, convolution in self.convolutions.items():
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            x = F.relu(convolution(x), inplace=True)
            found[f"relu{name}"] = x
        return {layer: found[layer] for layer in self.layers}


def load_vgg19(path: str | os.PathLike[str] | None = None, *, layers: Sequence[str]) -> VGGFeatures:
    """Load a frozen VGG-19 on the CPU in float32.

    The kind of weights is read from the file: torchvision's ``vgg19`` state dict (ImageNet
    normalisation inside, zero padding; the classifier is ignored) or the normalised one
    (1x1 preprocessing convolution, reflect padding). A loss needs other weights with the
    normalised features, because their scale differs.

    Args:
        path: A ``.pth`` or ``.safetensors`` file. None takes the file that the environment
            variable ``REGIONNORM_VGG`` names or, if it is not set, torchvision's official file
            (548 MB), downloaded once to torch's hub folder and checked by its SHA-256.
        layers: Activations to return, ``"relu1_1"`` to ``"relu5_4"``.

    Raises:
        ValueError: A layer is unknown or deeper than the file goes, or the file holds no VGG-19.
        FileNotFoundError: There is no such file.
        OSError: The official file could not be downloaded, or its hash differs.
    """
    needed = _needed_convolutions(layers)
    file = _find_weights() if path is None else Path(path)
    state = _read_state(file)
    renamed, padding_mode = _rename_state(state, needed, file)
    # On the meta device: no time or random numbers are spent on weights to be replaced.
    with without_memory():
        features = VGGFeatures(layers, padding_mode=padding_mode)
    try:
        features.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not hold VGG-19's weights; some have another shape"
        ) from error
    return features


def _needed_convolutions(layers: Sequence[str]) -> list[str]:
    """Names of the convolutions up to the deepest of ``layers``."""
    names = list(_CONVOLUTIONS)
    unknown = [layer for layer in layers if layer not in {f"relu{name}" for name in names}]
    if unknown or not layers:
        raise ValueError(
            f"layers are {list(layers)!r}; give one or more of relu1_1, relu1_2, ..., relu5_4"
        )
    return names[: 1 + max(names.index(layer.removeprefix("relu")) for layer in layers)]


def _indices(first: int, step: int) -> dict[str, int]:
    """Position of each convolution in a flat ``nn.Sequential`` with ``step`` modules for each."""
    positions, position = {}, first
    for name in _CONVOLUTIONS:
        if name.endswith("_1") and name != "1_1":
            position += 1  # the pool
        positions[name] = position
        position += step
    return positions


def _rename_state(
    state: Mapping[str, Tensor], needed: Sequence[str], file: Path
) -> tuple[dict[str, Tensor], PaddingMode]:
    """Map a file's keys to those of :class:`VGGFeatures`; also return the padding mode."""
    flat = {
        key.removeprefix("features."): value.detach().to(torch.float32)
        for key, value in state.items()
        if not key.startswith("classifier.")
    }
    padding_mode: PaddingMode = "zeros"
    positions, preprocess = _indices(first=0, step=2), _imagenet_preprocess()
    if "0.bias" in flat and flat.get("0.weight", flat["0.bias"]).shape == (3, 3, 1, 1):
        padding_mode = "reflect"
        positions = _indices(first=2, step=3)  # pad, convolution, ReLU
        preprocess = {f"preprocess.{part}": flat.pop(f"0.{part}") for part in ("weight", "bias")}

    available = [name for name, i in positions.items() if f"{i}.weight" in flat]
    keys = {f"{positions[name]}.{part}" for name in available for part in ("weight", "bias")}
    # Another VGG has its convolutions elsewhere: keys left over, or a gap among ours.
    if not available or keys != set(flat) or available != list(positions)[: len(available)]:
        raise ValueError(
            f"{file} does not hold VGG-19's weights; give torchvision's vgg19 state dict "
            "(features.0.weight, ...) or the normalised one (0, 2, 5, 9, ...)"
        )
    if len(available) < len(needed):
        raise ValueError(
            f"{file} holds VGG-19 up to relu{available[-1]}, but relu{needed[-1]} was asked for; "
            "ask for earlier layers or give torchvision's vgg19 weights"
        )
    convolutions = {
        f"convolutions.{name}.{part}": flat[f"{positions[name]}.{part}"]
        for name in needed
        for part in ("weight", "bias")
    }
    return preprocess | convolutions, padding_mode


def _imagenet_preprocess() -> dict[str, Tensor]:
    """``(x - mean) / std`` as a 1x1 convolution."""
    std = torch.tensor(_IMAGENET_STD)
    return {
        "preprocess.weight": torch.diag(1 / std)[:, :, None, None],
        "preprocess.bias": -torch.tensor(_IMAGENET_MEAN) / std,
    }


def _read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code that the file might hold."""
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give VGG-19 weights as .pth or .safetensors")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has errors of its own, some of them rare
        raise ValueError(
            f"{file} cannot be read as weights; give a state dict saved as .pth or .safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(f"{file} holds something else than named tensors; give a state dict")
    return dict(state)


def find_vgg19() -> Path | None:
    """The weights that :func:`load_vgg19` would take without a download, None if there are none."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    file = _official_file()
    return file if file.is_file() else None


def _official_file() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", OFFICIAL_URL.rpartition("/")[2])


def _find_weights() -> Path:
    """The file that the environment names, else the official one, downloaded if need be."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    file = _official_file()
    if file.is_file():
        # The folder is shared with other programs, so a cached copy is checked too.
        if not _sha256(file).startswith(OFFICIAL_HASH):
            raise OSError(f"{file} is damaged (its SHA-256 differs); delete it and run again")
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Writes to a temporary name in the same folder and renames it once the hash is right.
        torch.hub.download_url_to_file(OFFICIAL_URL, str(file), hash_prefix=OFFICIAL_HASH)
    except (OSError, RuntimeError, HTTPException) as error:
        raise OSError(
            f"could not download {OFFICIAL_URL} ({error}); download it by hand and name the file "
            f"with {ENVIRONMENT_VARIABLE}=FILE"
        ) from error
    return file


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
