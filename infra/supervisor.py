"""Several processes as one service: all of them kept running, and all of them ended in order."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from infra.children import Child
from infra.cli import until_signal

LOOKED_AFTER_EVERY = 1.0


async def supervise(
    children: Sequence[Child], revive_servers: Callable[[], None], announce: Coroutine[None, None, None]
) -> None:
    """Keep everything running until a signal asks for the end; then end the children, the last one first."""
    running = [asyncio.create_task(child.keep_running()) for child in children]
    try:
        await until_signal(_look_after(revive_servers, announce))
    finally:
        for task in reversed(running):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _look_after(revive_servers: Callable[[], None], announce: Coroutine[None, None, None]) -> None:
    announcing = asyncio.create_task(announce)
    try:
        while True:
            await asyncio.sleep(LOOKED_AFTER_EVERY)
            revive_servers()  # in this thread: a child is bound to the life of the thread that starts it
            if announcing.done():
                announcing.result()  # a service that can't be announced as asked for isn't kept
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
