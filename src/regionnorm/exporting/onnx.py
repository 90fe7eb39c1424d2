"""Networks as ONNX files that any runtime takes, for pictures of any size."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm._extras import require
from regionnorm.checkpoints.onnx import FORMAT, load_onnx
from regionnorm.checkpoints.weights import load_pretrained, packaged_weights
from regionnorm.exporting import canny as canny  # these two say how operations are written
from regionnorm.exporting import compounds as compounds
from regionnorm.exporting import operators as operators
from regionnorm.exporting.graph import Graph
from regionnorm.exporting.tracing import Traced, traced
from regionnorm.files.whole import atomic_path
from regionnorm.models import InpaintingModel, create_model, list_models
from regionnorm.models.base import MIN_SIZE

__all__ = ["CHECKED", "Exported", "check_suffix", "export", "find_network"]

CHECKED: tuple[tuple[int, int], ...] = ((256, 256), (200, 312), (131, 77))
"""Heights and widths at which an exported network is held against the original."""

# Mean difference from the network's picture above which an export has failed. Single pixels may be
# further off: one whose response is next to RN-L's threshold may end up in the other region.
_MOST, _MOST_HALF = 1e-3, 1e-2


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its pictures are from the network's own."""

    path: Path
    differences: dict[tuple[int, int], float]
    """Largest difference of a value in [0, 1] for each height and width that was tried."""

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(self.differences.values(), default=0.0)


def export(
    model: InpaintingModel | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    licence: str = "MIT",
    sizes: Sequence[tuple[int, int]] = CHECKED,
) -> Exported:
    """Write a network as an ONNX file, and hold it against the network.

    The file takes one picture at a time, of any size: inputs ``image``, RGB in [0, 1]
    ``[1, 3, H, W]``, and ``mask`` ``[1, 1, H, W]``, above 0.5 = hole; output ``output``, the
    network's whole picture in [0, 1]. It pads to the network's stride and cuts, and never reads
    what lies under the hole. Its metadata say so, and what it is.

    Args:
        model: A network, or a name or file for :func:`find_network`.
        path: The ``.onnx`` file; it appears whole or not at all, and only if it agrees.
        half: Store weights in half precision: half the size. It computes in float32 all the same.
        licence: Of the weights, for the metadata; those of this package are under MIT's.
        sizes: Heights and widths to try, with ONNX Runtime.

    Returns:
        The largest difference at each size.

    Raises:
        ValueError: The network calls what this exporter does not know, the pictures do not agree,
            or ``path`` has another suffix.
        OSError: The place cannot be written to.
        ImportError: onnx or onnxruntime is missing.
        TypeError: ``model`` is a network of another kind.
    """
    target = Path(path)
    check_suffix(target)
    network = _network_of(model)
    for module in ("onnx", "onnxruntime"):
        require(module, extra="export")
    # A copy: the network stays where it is, in its own precision, in training or not.
    twin = copy.deepcopy(network).to("cpu", torch.float32).eval()
    proto = _written_down(twin, half, licence)
    with atomic_path(target) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        differences = _differences(twin, temporary, sizes, _MOST_HALF if half else _MOST)
    return Exported(target, differences)


def _network_of(model: InpaintingModel | str | os.PathLike[str]) -> InpaintingModel:
    model = getattr(model, "_orig_mod", model)  # what torch.compile has compiled
    if isinstance(model, InpaintingModel):
        return model
    if isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{type(model).__name__} is no InpaintingModel, called as model(image, mask); derive "
            "it from regionnorm.models.InpaintingModel"
        )
    return find_network(model)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise ``ValueError`` where a file to write does not end in ``.onnx``."""
    if Path(path).suffix.lower() != ".onnx":
        raise ValueError(f"{path} should end in .onnx")


def find_network(name: str | os.PathLike[str]) -> InpaintingModel:
    """A network by name: trained weights, else an untrained one of :func:`list_models`.

    Args:
        name: ``"default"``, a weights file, a training run's folder, a hub repository, or a name
            of :func:`regionnorm.list_models`.

    Raises:
        ValueError: Nothing by that name, or an ONNX file.
    """
    text = os.fspath(name)
    if text in list_models() and text not in packaged_weights() and not Path(text).exists():
        return create_model(text).eval()
    network = load_pretrained(text)
    if not isinstance(network, InpaintingModel):
        raise ValueError(f"{text} is an exported network already; give the weights it was made of")
    return network


# --- writing -------------------------------------------------------------------------------------


def _written_down(network: InpaintingModel, half: bool, licence: str) -> Any:
    """Run the network on a small picture, and take down what it does."""
    graph = Graph(half=half)
    # No side is a multiple of the stride, so that padding and cutting are seen.
    height = max(2 * network.stride, MIN_SIZE) + network.stride // 2 + 1
    image, mask = _picture(height, height + network.stride)
    with torch.no_grad():
        output = network(traced(image, "image", graph), traced(mask, "mask", graph))
    if not isinstance(output, Traced):
        raise ValueError("the network's output does not depend on its input")
    shapes = [("image", 3), ("mask", 1), ("output", 3)]
    infos = [
        graph.info(name, np.float32, [1, channels, "height", "width"]) for name, channels in shapes
    ]
    text = f"regionnorm {network.name or type(network).__name__}: fills the hole of a photo"
    proto = graph.model(infos[:2], {"output": output.symbol}, infos[2:], text)
    onnx = require("onnx", extra="export")
    onnx.helper.set_model_props(proto, _metadata(network, half, licence))
    onnx.checker.check_model(proto)
    return proto


def _metadata(network: InpaintingModel, half: bool, licence: str) -> dict[str, str]:
    from regionnorm import __version__

    return {
        "format": FORMAT,
        "model": network.name,
        "options": json.dumps(network.options, sort_keys=True),
        "producer": f"regionnorm {__version__}",
        "license": licence,
        "weights": "float16" if half else "float32",
        "image": "RGB in [0, 1], [1, 3, height, width], both sides 16 or more",
        "mask": "[1, 1, height, width], above 0.5 = hole; white = hole in files",
        "output": "the whole picture in [0, 1]; paste its hole into the photo",
        "under the hole": "never read",
    }


# --- checking ------------------------------------------------------------------------------------


def _differences(
    network: InpaintingModel, path: Path, sizes: Sequence[tuple[int, int]], most: float
) -> dict[tuple[int, int], float]:
    exported, found = load_onnx(path), {}
    for height, width in sizes:
        image, mask = _picture(height, width)
        # Whatever read this would show it everywhere.
        poisoned = image.masked_fill(mask > 0.5, torch.nan)
        with torch.no_grad():
            expected = network(poisoned, mask)
        difference = (exported(poisoned, mask) - expected).abs()
        found[height, width] = float(difference.max())
        if not (mean := float(difference.mean())) <= most:
            raise ValueError(
                f"the exported network's picture of {width}x{height} pixels is {mean:.3g} from "
                f"the network's own in the mean, more than {most}; nothing was written"
            )
    return found


def _picture(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A smooth picture with grain, and a hole off its middle."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 5, 6, generator=random)
    image = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    grain = torch.randn(1, 3, height, width, generator=random)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 4 : height // 2, width // 3 : 2 * width // 3] = 1
    return (image + 0.03 * grain).clamp(0, 1), mask
