"""One's own work is not taken for another's silence."""

import asyncio
import socket
import time

import pytest

from infra.patience import Patience

pytestmark = pytest.mark.anyio


async def test_silence_ends_the_wait() -> None:
    """As soon as the time is over, where nothing comes."""
    with pytest.raises(TimeoutError):
        async with Patience(0.01):
            await asyncio.Event().wait()


async def test_what_comes_in_while_we_are_busy_is_heard() -> None:
    """Though all of the time is over when we look, and a few looks are needed to take it in."""
    here, there = socket.socketpair()

    def send_and_be_busy() -> None:
        there.send(b"an answer\n")
        time.sleep(0.6)

    with there:
        reader, writer = await asyncio.open_connection(sock=here)
        async with Patience(0.5):
            asyncio.get_running_loop().call_soon(send_and_be_busy)
            assert await reader.readline() == b"an answer\n"
            for _ in range(10):
                await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()


async def test_what_is_done_in_time_is_not_disturbed_afterwards() -> None:
    """The end that was set for it is forgotten with it."""
    async with Patience(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)


async def test_a_failure_is_told_as_it_is() -> None:
    with pytest.raises(ConnectionResetError):
        async with Patience(1):
            raise ConnectionResetError
