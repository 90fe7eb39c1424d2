"""What the app and the service share: addresses below a mount, and the signals that end them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

__all__ = ["ending_signals", "path_below"]


def path_below(scope: Mapping[str, Any]) -> str:
    """The path of an ASGI request below where it is mounted, whether or not that was cut off."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def ending_signals(*more: str) -> list[signal.Signals]:
    """What should end a server so that it can remove what was sent to it.

    That its terminal is gone is one, where the system tells that. Left out is what this process
    was started to ignore, as with nohup.

    Args:
        *more: Names of others beside SIGTERM and SIGHUP.
    """
    signals = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", *more)]
    return [one for one in signals if one is not None and signal.getsignal(one) != signal.SIG_IGN]
