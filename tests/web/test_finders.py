"""Turns of what finds masks: in any order that requests come and go."""

from __future__ import annotations

import asyncio

from regionnorm.web.finders import Finders


def test_one_that_is_cancelled_while_it_waits_does_no_harm_to_the_next() -> None:
    async def ask() -> tuple[list[object], int]:
        finders, go_on = Finders(), asyncio.Event()

        async def find(name: str) -> str:
            async with finders.turn("visitor"):
                await go_on.wait()
                return name

        asked = [asyncio.create_task(find("first"))]
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(find("cancelled")))
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(find("latest")))  # begins before the other has left
        asked[1].cancel()
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        return [*answers], len(finders._own)

    answers, left = asyncio.run(ask())
    assert (answers[0], answers[2], left) == ("first", "latest", 0)
    assert isinstance(answers[1], asyncio.CancelledError)
