"""The service's processes, run as they are shipped, each with its words in a file of its own."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.peers.bare import GIVEN
from db.leadership import IS_LED
from db.pools import connect
from infra import cli
from infra.children import STOPPED_WITHIN, bound_to_parent
from infra.errors import ConfigurationError
from infra.settings import Settings

ROOT = Path(__file__).parents[1]

READY_WITHIN = 60.0

Process = asyncio.subprocess.Process


def environment(settings: Settings) -> dict[str, str]:
    """Give a process these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PAQUETERIA_")}
    given = settings.model_dump(exclude_defaults=True)
    return inherited | {f"PAQUETERIA_{name.upper()}": str(value) for name, value in given.items()}


def free_port() -> int:
    """Find a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def start(settings: Settings, *arguments: str, given: Mapping[str, str] | None = None) -> Process:
    """Start a program of ours, with what is `given` besides in its environment; it ends with this process."""
    name = "-".join(argument for argument in arguments if not argument.startswith(("-", "/")))
    with (settings.data_dir / f"{name}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *bound_to_parent([sys.executable, *arguments], "TERM"),
            env=environment(settings) | dict(given or {}),
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def stop(process: Process) -> None:
    """End a program, and wait for that."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOPPED_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def wait_until(condition: Callable[[], Awaitable[bool]], pause: float = 0.05) -> None:
    """Return once it is so; what takes longer than READY_WITHIN is a ConfigurationError."""
    deadline = time.monotonic() + READY_WITHIN
    while not await condition():
        if time.monotonic() > deadline:
            raise ConfigurationError("A process of the benchmark did not get ready: see its log")
        await asyncio.sleep(pause)


@dataclass(frozen=True, slots=True)
class Server:
    """Something that serves HTTP: the settings that tell its port, and its process."""

    settings: Settings
    process: Process


@contextlib.asynccontextmanager
async def served(settings: Settings, application: str, workers: int = 1) -> AsyncIterator[Server]:
    """Serve one of the applications while the block lasts."""
    settings = settings.model_copy(update={"port": free_port()})
    process = await start(settings, "manage.py", "serve", application, "--workers", str(workers))
    try:
        await wait_until(partial(_lives_and, process, partial(asyncio.to_thread, cli.is_ready, settings)))
        yield Server(settings, process)
    finally:
        await stop(process)


@contextlib.asynccontextmanager
async def serving(settings: Settings, application: str) -> AsyncIterator[Settings]:
    """Serve one of the applications by one worker while the block lasts; gives the settings that tell its port."""
    async with served(settings, application) as server:
        yield server.settings


@contextlib.asynccontextmanager
async def peering(settings: Settings, name: str, **given: object) -> AsyncIterator[Settings]:
    """Serve one of `bench.peers`, with what it is given, by one worker that serves as the product's does."""
    settings = settings.model_copy(update={"port": free_port()})
    where = ["--host", settings.host, "--port", str(settings.port)]
    quiet = ["--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning"]
    program = ["-m", "uvicorn", f"bench.peers.{name}:create_app", "--factory", *where, *quiet]
    process = await start(settings, *program, given={GIVEN: json.dumps(given)})
    try:
        await wait_until(partial(_lives_and, process, partial(_is_listened_to, settings)))
        yield settings
    finally:
        await stop(process)


async def _lives_and(process: Process, is_ready: Callable[[], Awaitable[bool]]) -> bool:
    """Tell whether a process is ready; one that has ended is a ConfigurationError."""
    if process.returncode is not None:
        raise ConfigurationError(f"A process of the benchmark has ended with {process.returncode}: see its log")
    return await is_ready()


async def _is_listened_to(settings: Settings) -> bool:
    try:
        _, writer = await asyncio.open_connection(settings.host, settings.port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass(frozen=True, slots=True)
class Projector:
    """A projector at work, and where its metrics are once it has ended."""

    process: Process
    metrics: Path


@contextlib.asynccontextmanager
async def projecting(settings: Settings) -> AsyncIterator[Projector]:
    """Run the projector and its schedule while the block lasts, from when it leads."""
    metrics = settings.data_dir / "projector.prom"
    process = await start(settings, "-m", "bench.projector", str(metrics))
    try:
        await wait_until(lambda: is_led(settings))
        yield Projector(process, metrics)
    finally:
        await stop(process)


async def is_led(settings: Settings) -> bool:
    """Tell whether somebody projects."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        row = await (await conn.execute(f"SELECT {IS_LED}".encode())).fetchone()
    return bool(row and row[0])
