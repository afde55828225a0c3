"""Waiting for an answer, by one who may be late to hear it."""

import asyncio
from types import TracebackType

PARTS = 5
"""Of the time. However late we are for the end of one, only that part is over: then we look what has come in."""


class Patience:
    """Raises TimeoutError where the block waits for longer, as `asyncio.timeout` does, but for the time we were busy.

    A process that computes doesn't look what comes in, and would take its own work for the other's silence.
    """

    def __init__(self, seconds: float) -> None:
        self._part = seconds / PARTS
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._ending = self._loop.call_later(self._part, self._end_part, PARTS - 1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _end_part(self, more: int) -> None:
        if more:
            self._ending = self._loop.call_later(self._part, self._end_part, more - 1)
        else:
            self._limit.reschedule(self._loop.time())
