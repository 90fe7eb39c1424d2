"""Image inpainting built on Region Normalization (Yu et al., AAAI 2020).

Images are RGB float in [0, 1], ``[B, 3, H, W]``; masks are ``[B, 1, H, W]``, 1 = hole.

Example:
    >>> import regionnorm as rn
    >>> rn.list_models()
    >>> filled = rn.Inpainter()(photo, mask)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regionnorm import checkpoints as checkpoints
    from regionnorm.checkpoints.hub import from_pretrained, push_to_hub
    from regionnorm.checkpoints.weights import load_pretrained
    from regionnorm.exporting.onnx import export
    from regionnorm.filling.inpainter import Inpainter
    from regionnorm.models import create_model, list_models
    from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d, convert_region_norm
    from regionnorm.ops import region_norm

__version__ = "0.1.0"

__all__ = [
    "Inpainter",
    "LearnableRegionNorm2d",
    "RegionNorm2d",
    "__version__",
    "convert_region_norm",
    "create_model",
    "export",
    "from_pretrained",
    "list_models",
    "load_pretrained",
    "push_to_hub",
    "region_norm",
]

# Where each name lives. They are imported on first use (PEP 562), so that `import regionnorm`
# and `regionnorm --help` do not wait for torch.
_HOMES = {
    "Inpainter": "filling.inpainter",
    "LearnableRegionNorm2d": "nn",
    "RegionNorm2d": "nn",
    "convert_region_norm": "nn",
    "create_model": "models",
    "export": "exporting.onnx",
    "from_pretrained": "checkpoints.hub",
    "list_models": "models",
    "load_pretrained": "checkpoints.weights",
    "push_to_hub": "checkpoints.hub",
    "region_norm": "ops",
}


def __getattr__(name: str) -> object:
    if name == "checkpoints":  # used as rn.checkpoints.load_released
        return import_module(f"{__name__}.checkpoints")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
