"""What is written in one turn of the event loop is sent by one call, in order, and nothing of it is lost at the end."""

import asyncio
from typing import Any

import pytest

from infra.corking import CorkedTransport


class Line(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.is_lost = False

    def is_closing(self) -> bool:
        return self.is_lost

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401
        self.told.append(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.mark.anyio
async def test_a_head_and_its_body_are_sent_together(line: Line) -> None:
    """And the next answer by itself."""
    corked = CorkedTransport(line, asyncio.get_running_loop())
    for answer in (b"one", b"two"):
        corked.write(b"head of ")
        corked.write(answer)
        assert corked.get_write_buffer_size() == len(b"head of one")
        await asyncio.sleep(0)
    assert line.told == [b"head of one", b"head of two"]


@pytest.mark.anyio
async def test_what_is_written_is_sent_before_the_end(line: Line) -> None:
    """A connection is closed right behind its last answer."""
    corked = CorkedTransport(line, asyncio.get_running_loop())
    corked.writelines([b"last ", b"words"])
    corked.close()
    await asyncio.sleep(0)
    assert line.told == [b"last words", "close"]


@pytest.mark.anyio
async def test_an_aborted_connection_sends_nothing_more(line: Line) -> None:
    """Whoever doesn't read is told nothing."""
    corked = CorkedTransport(line, asyncio.get_running_loop())
    corked.write(b"words")
    corked.abort()
    await asyncio.sleep(0)
    assert line.told == ["abort"]


@pytest.mark.anyio
async def test_who_hangs_up_within_a_turn_is_sent_nothing(line: Line) -> None:
    """Writing to a closed line is an exception that nobody waits for: one in the log for each client that was rude."""
    corked = CorkedTransport(line, asyncio.get_running_loop())
    corked.write(b"an answer")
    line.is_lost = True
    await asyncio.sleep(0)
    assert line.told == []
    assert corked.get_write_buffer_size() == 0
