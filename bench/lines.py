"""Lines between a process and its servers, which can be cut or slow without a word to either end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from redis.asyncio.connection import parse_url

from db.roles import urls_of
from infra.settings import Settings
from infra.tasks import running

POSTGRES_SOCKET = ".s.PGSQL.5432"


class Line:
    """A way to a server; what comes back over it is `delay` seconds late."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._calls: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self._is_up.clear()

    @contextlib.asynccontextmanager
    async def to_postgres(self, settings: Settings) -> AsyncIterator[Settings]:
        """Give the settings of a process that reaches the database over this line."""
        server = Path(str(conninfo_to_dict(settings.postgres_dsn)["host"])) / POSTGRES_SOCKET
        async with self._to(server, settings.data_dir / "line" / POSTGRES_SOCKET) as socket:
            dsn = make_conninfo(settings.postgres_dsn, host=str(socket.parent))
            yield settings.model_copy(update=urls_of(dsn))

    @contextlib.asynccontextmanager
    async def to_redis(self, settings: Settings) -> AsyncIterator[Settings]:
        """Give the settings of a process that reaches Redis over this line."""
        server = parse_url(settings.redis_dsn)["path"]
        async with self._to(Path(server), settings.data_dir / "line" / "valkey.sock") as socket:
            yield settings.model_copy(update={"redis_url": settings.redis_dsn.replace(server, str(socket))})

    @contextlib.asynccontextmanager
    async def _to(self, server: Path, socket: Path) -> AsyncIterator[Path]:
        socket.parent.mkdir(exist_ok=True)
        listener = await asyncio.start_unix_server(partial(self._connect, server), socket)
        try:
            yield socket
        finally:
            listener.close()
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _connect(self, server: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        if call is not None:
            self._calls.add(call)
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_unix_connection(server)
            with contextlib.closing(there_writer):
                async with running(self._pass_on(there_reader, writer, self._delay)):
                    await self._pass_on(reader, there_writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float = 0.0) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await asyncio.sleep(delay)
                await self._is_up.wait()
                writer.write(data)
                await writer.drain()
            await self._is_up.wait()
            writer.close()
