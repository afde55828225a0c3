"""A line that is cut or slow says nothing to either end."""

import asyncio
import struct
import time
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from redis.asyncio import Redis

from bench.lines import POSTGRES_SOCKET, Line
from infra.settings import Settings

SSL_REQUEST = struct.pack(">ii", 8, 80877103)
"""A server answers N when it has none."""


def test_nothing_passes_over_a_line_that_is_cut(settings: Settings) -> None:
    """The client goes on waiting, as it would for a server that vanished without a FIN."""

    async def ask_before_and_after() -> bytes:
        line = Line()
        async with line.to_postgres(settings) as over_line:
            path = Path(str(conninfo_to_dict(over_line.postgres_dsn)["host"])) / POSTGRES_SOCKET
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(SSL_REQUEST)
            answer = await reader.readexactly(1)
            line.cut()
            writer.write(SSL_REQUEST)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
            writer.close()
            await writer.wait_closed()
        return answer

    assert asyncio.run(ask_before_and_after()) == b"N"


def test_what_comes_over_a_slow_line_is_late(settings: Settings, redis_url: str) -> None:
    """By as much as was asked for, each answer."""
    settings = settings.model_copy(update={"redis_url": redis_url})
    late = 0.2

    async def ask_twice() -> float:
        async with Line(late).to_redis(settings) as over_line, Redis.from_url(over_line.redis_dsn) as redis:
            await redis.ping()
            started = time.monotonic()
            await redis.set("asked", 1)
            assert await redis.get("asked") == b"1"
            return time.monotonic() - started

    assert asyncio.run(ask_twice()) >= 2 * late
