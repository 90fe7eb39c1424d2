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
        ImportError: ``module`` is not installed, and the message is the command that installs it;
            or it is installed and fails to import, and the message says why.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ImportError(
                f"this needs {module}, which is not installed; run: "
                f"pip install 'regionnorm[{extra}]'"
            ) from error
        raise _broken(module, extra, error) from error
    except Exception as error:  # of many kinds: a NumPy that is too new, a missing shared library
        raise _broken(module, extra, error) from error


def _broken(module: str, extra: str, error: Exception) -> ImportError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ImportError(
        f"this needs {module}, which is installed but fails to import ({reason}); a version that "
        f"fits may come with: pip install -U 'regionnorm[{extra}]'"
    )
