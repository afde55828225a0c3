"""Work that goes on beside the requests and ends with the process.

On Python 3.11 `asyncio.wait_for` loses a cancellation that comes together with what is waited for, and the clients of
database and cache wait by it. So whoever cancels sees to it that it has happened, and what loops looks whether it was
to end.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable

AGAIN = 2.0
"""Seconds after which a job that goes on is cancelled once more; one that tidies up has as long."""


@contextlib.asynccontextmanager
async def running(*jobs: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run the jobs while the block lasts; one that fails takes the block down with it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
        try:
            yield
        finally:
            await cancel(tasks)


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, until they have ended."""
    going_on = set(tasks)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=AGAIN)


def heed_cancellation() -> None:
    """Raise the CancelledError of a cancellation that was lost on its way."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError
