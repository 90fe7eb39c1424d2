"""Networks exported to ONNX, run by ONNX Runtime: PyTorch only hands the pictures over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regionnorm.checkpoints.sessions import open_session
from regionnorm.models.base import check_inputs

__all__ = ["FORMAT", "OnnxNetwork", "load_onnx"]

FORMAT = "regionnorm-onnx/1"

_INPUTS = ["image", "mask"]


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, called as ``model(image, mask) -> image``.

    It takes as many threads as PyTorch does, and a GPU where ONNX Runtime was built for one.
    Gradients do not pass through it.

    Args:
        path: A file that :func:`regionnorm.export` wrote.
        device: ``"cuda"`` to use a GPU if ONNX Runtime can.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or damaged.
        ImportError: ONNX Runtime is missing.
    """

    metadata: dict[str, str]

    def __init__(self, path: str | Path, *, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"network {path} does not exist")
        self._session = _session(self.path, torch.device(device).type == "cuda")
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        inputs = [each.name for each in self._session.get_inputs()]
        if self.metadata.get("format") != FORMAT or inputs != _INPUTS:
            raise ValueError(
                f"{path} is an ONNX file, but none that regionnorm export wrote; "
                f"its inputs are {', '.join(inputs) or 'none'}"
            )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Fill the hole.

        Args:
            image: RGB in [0, 1], ``[B, 3, H, W]``, both sides at least 16.
            mask: ``[B, 1, H, W]``, above 0.5 = hole.

        Returns:
            The network's whole picture in [0, 1], ``[B, 3, H, W]``.

        Raises:
            ValueError: The shapes do not fit, or a side is below 16 pixels.
        """
        check_inputs(image, mask)
        filled = [
            torch.from_numpy(self._session.run(None, {"image": i, "mask": m})[0])
            for i, m in zip(_pictures(image), _pictures(mask), strict=True)
        ]
        return torch.cat(filled).to(image.device)

    def extra_repr(self) -> str:
        """Show the file in ``print(model)``."""
        return f"{str(self.path)!r}, model={self.metadata.get('model')!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Sessions cannot be copied or sent to other processes, but opened again.
        return type(self), (self.path,)


def load_onnx(path: str | Path, *, device: str | torch.device = "cpu") -> OnnxNetwork:
    """Open an exported network for ONNX Runtime; see :class:`OnnxNetwork`."""
    return OnnxNetwork(path, device=device).eval()


def _pictures(batch: Tensor) -> list[Any]:
    return [picture[None].contiguous().numpy() for picture in batch.detach().float().cpu()]


def _session(path: Path, gpu: bool) -> Any:
    try:
        return open_session(path, extra="export", gpu=gpu)
    except ImportError:
        raise
    except Exception as error:  # of the runtime's own kinds, which share no base
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as an ONNX network: {reason:.200}") from error
