"""Waiting for an answer, by one who may be late to hear it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

PARTS = 5
"""Of the time. However late we are for the end of one, only that part is over: then we look what has come in."""


@contextlib.asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError where the block waits for longer, as `asyncio.timeout` does, but for the time we were busy.

    A process that computes doesn't look what comes in, and would take its own work for the other's silence.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        ending: asyncio.TimerHandle

        def end_part(more: int) -> None:
            nonlocal ending
            if more:
                ending = loop.call_later(seconds / PARTS, end_part, more - 1)
            else:
                limit.reschedule(loop.time())

        ending = loop.call_later(seconds / PARTS, end_part, PARTS - 1)
        try:
            yield
        finally:
            ending.cancel()
