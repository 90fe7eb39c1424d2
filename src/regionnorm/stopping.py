"""Give up a fill, or a search for what should go, that nobody waits for any more.

Who starts it says how to find out; what is at work asks between its steps, each of which takes a
fraction of a second.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Stopped", "stop_between_layers", "stop_if_asked", "stoppable", "waited_for"]

_LOOK = 0.1  # seconds between looks at who waits


class Stopped(Exception):
    """The work was given up; nothing is wrong with the photo."""

    def __init__(self, reason: str = "stopped, because nobody waits for it") -> None:
        super().__init__(reason)


_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Let work of this thread, and of those it hands its context to, be given up inside the block.

    Args:
        asked: Whether to stop; called often, so it should be quick.
    """
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


@asynccontextmanager
async def waited_for(request: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Let what is done for a web request be given up inside the block once its client has gone.

    Args:
        request: A Starlette request whose body was read.

    Yields:
        What is done once the client has gone.
    """
    gone = threading.Event()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(_LOOK)
        gone.set()

    left = asyncio.create_task(watch())
    try:
        with stoppable(gone.is_set):
            yield left
    finally:
        gone.set()  # what is still at work when the block is left has no reader either
        left.cancel()


def stop_if_asked() -> None:
    """Give up here, if that is wanted.

    Raises:
        Stopped: It is.
    """
    asked = _asked.get()
    if asked is not None and asked():
        raise Stopped


@contextmanager
def stop_between_layers(model: nn.Module | None) -> Iterator[None]:
    """Let a network be given up before each of its layers, inside the with block."""

    def before(*_: Any) -> None:
        stop_if_asked()

    from torch.jit import ScriptModule

    # Nothing can step in between the layers of a compiled network.
    layers = [] if model is None or isinstance(model, ScriptModule) else model.modules()
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
