"""Who is next with what finds masks: selections by a stroke, scratches and text.

A find takes seconds of all cores. Here finds have turns of their own, so that no photo and no fill
waits for them, and each visitor has one at a time, so that nobody waits for all of somebody else's.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Finders", "Replaced"]

_AT_ONCE = 2  # of different visitors


class Replaced(ValueError):
    """The visitor has asked for something else before this one's turn came."""


class Finders:
    """Gives turns to those who want something found, in the order they came.

    Of one visitor one is at work and the latest waits for it; one that waited before is refused.
    """

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._own: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Inside the with block it is this one's turn.

        Args:
            owner: Whose it is.

        Raises:
            Replaced: A later one of the same owner took its place.
        """
        own = self._own[owner]
        if len(own) > 1:
            words = "you have asked for something else meanwhile; ask for one thing after the other"
            waiting = own.pop()
            if not waiting.done():  # it may have been cancelled and not have left yet
                waiting.set_exception(Replaced(words))
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        own.append(mine)
        if len(own) == 1:
            mine.set_result(None)
        try:
            await mine
            async with self._turns:
                yield
        finally:
            self._leave(own, mine, owner)

    def _leave(
        self, own: list[asyncio.Future[None]], mine: asyncio.Future[None], owner: str
    ) -> None:
        if mine in own:
            own.remove(mine)
        if own and not own[0].done():
            own[0].set_result(None)
        if not own:
            self._own.pop(owner, None)
