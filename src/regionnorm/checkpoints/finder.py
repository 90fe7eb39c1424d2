"""The network that finds scratches, on disk: safetensors with its options and its threshold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from regionnorm.checkpoints.shapes import shape_difference
from regionnorm.devices import without_memory
from regionnorm.files.whole import atomic_path
from regionnorm.models.scratch_net import ScratchNet

__all__ = ["Finder", "load_finder", "packaged_finder", "save_finder"]

FORMAT = "regionnorm-finder/1"
HEADER = "regionnorm"


class Finder(NamedTuple):
    """A network that finds marks, and from where on to believe it."""

    network: ScratchNet
    """In float32, for inference."""
    threshold: float
    """The probability above which a pixel is a mark."""


def packaged_finder() -> Path:
    """The file of the weights that come with the package; it may be missing."""
    return Path(str(files("regionnorm"))) / "weights" / "finders" / "scratches.safetensors"


def save_finder(
    finder: Finder, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Save weights in half precision with all that is needed to build the network again.

    Args:
        finder: Network and threshold.
        path: A ``.safetensors`` file; written under a temporary name first.
        metadata: More text for the header, such as the training step.

    Raises:
        ValueError: The network holds NaN or infinity.
    """
    tensors = {}
    for key, value in finder.network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{key} holds NaN or infinity; these weights are not worth saving")
        # Running averages stay as they are: half precision ends at 65,504, and variances do not.
        if value.is_floating_point() and "running_" not in key:
            value = value.half()
            if not torch.isfinite(value).all():
                raise ValueError(f"{key} holds numbers too large for half precision")
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    header = {
        **(metadata or {}),
        "format": FORMAT,
        "options": finder.network.options,
        "threshold": finder.threshold,
    }
    with atomic_path(path) as temporary:
        text = json.dumps(header, sort_keys=True)
        temporary.write_bytes(serialize(tensors, metadata={HEADER: text}))


def load_finder(path: str | os.PathLike[str] | None = None) -> Finder:
    """Load what :func:`save_finder` wrote.

    Args:
        path: The file; None for the weights that come with the package.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file of this package, or damaged.
    """
    place = packaged_finder() if path is None else Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"weights file {place} does not exist")
    try:
        with safe_open(str(place), framework="pt") as file:
            header = dict(json.loads((file.metadata() or {}).get(HEADER, "{}")))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise ValueError(f"its format is {header.get('format')!r}, not {FORMAT!r}")
        with without_memory():  # the header may claim any width
            claimed = ScratchNet(**header["options"])
        shapes = {key: value.shape for key, value in tensors.items()}
        if difference := shape_difference(claimed, shapes):
            raise ValueError(difference)
        network = ScratchNet(**header["options"])
        network.load_state_dict(tensors)
        return Finder(network.eval(), float(header["threshold"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{place} holds no network that finds scratches: {reason}") from error
