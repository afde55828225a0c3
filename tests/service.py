"""The whole service in this process: both APIs on a real port, and the projector beside them."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from infra.clock import Clock
from infra.serving import MANNERS
from infra.settings import Settings
from projections import process


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve the application on a free port while the block lasts; gives its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, **MANNERS, lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def projecting(settings: Settings, clock: Clock) -> Iterator[None]:
    """Run the projector while the block lasts."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(process.run(settings, clock))

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
