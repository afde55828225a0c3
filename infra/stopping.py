"""Knowing early that the process is asked to stop: uvicorn waits for open answers before it tells the application."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any

from fastapi import FastAPI

from infra.http import Lifespan


def ending_streams(lifespan: Lifespan) -> Lifespan:
    """Add `app.state.stopping` to a lifespan: an event that an answer without an end must listen to."""

    @contextlib.asynccontextmanager
    async def with_stopping(app: FastAPI) -> AsyncIterator[None]:
        stopping = app.state.stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        with noticing_signals(lambda: loop.call_soon_threadsafe(stopping.set)):
            async with lifespan(app):
                try:
                    yield
                finally:
                    stopping.set()

    return with_stopping


@contextlib.contextmanager
def noticing_signals(notice: Callable[[], object]) -> Iterator[None]:
    """Call `notice` at SIGINT and SIGTERM ahead of the handler that a server has set; without one, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {
        number: _chained(handler, notice)
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }
    theirs = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in theirs.items():
            if signal.getsignal(number) is ours[number]:
                signal.signal(number, handler)


def _chained(handler: Callable[[int, FrameType | None], Any], notice: Callable[[], object]) -> Any:  # noqa: ANN401
    def chained(number: int, frame: FrameType | None) -> None:
        notice()
        handler(number, frame)

    return chained
