"""Optional dependencies, imported only where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to install it.

    Args:
        module: Name of the module, e.g. ``"cv2"``.
        extra: The extra of this package that brings it, e.g. ``"eval"``.

    Raises:
        ImportError: ``module`` is not installed; the message is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs {module}, which is not installed; run: pip install 'regionnorm[{extra}]'"
        ) from error
