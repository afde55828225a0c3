"""What goes on beside the requests ends when it is told to, though a cancellation can get lost."""

import asyncio
import contextlib

import pytest

from infra import tasks
from infra.tasks import heed_cancellation, running

pytestmark = pytest.mark.anyio


class Deaf:
    """A job that loses its first cancellation, as `asyncio.wait_for` does on Python 3.11."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self.lost.set()
        await asyncio.Event().wait()


async def test_a_job_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled but once, it would keep the process from ending for good."""
    monkeypatch.setattr(tasks, "AGAIN", 0.01)
    deaf = Deaf()
    async with asyncio.timeout(30):
        async with running(deaf.run()):
            await asyncio.sleep(0)
        assert deaf.lost.is_set()


async def test_a_loop_heeds_a_cancellation_that_it_was_not_told_of() -> None:
    """The task knows that it was to end, whoever swallowed the error; while it wasn't, nothing is raised."""
    heed_cancellation()
    turns = 0

    async def loop() -> None:
        nonlocal turns
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            turns += 1
            heed_cancellation()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert turns == 1


async def test_a_failure_takes_the_block_down() -> None:
    """Nobody goes on without what the block relies upon."""

    async def fail() -> None:
        raise OSError("away")

    with pytest.raises(ExceptionGroup) as failures:
        async with running(fail()):
            await asyncio.Event().wait()
    assert failures.value.subgroup(OSError)
