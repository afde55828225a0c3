"""A line that is cut says nothing to either end."""

import asyncio
import struct
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from bench.leadership import SOCKET, Line
from infra.settings import Settings

SSL_REQUEST = struct.pack(">ii", 8, 80877103)
"""A server answers N when it has none."""


def test_nothing_passes_over_a_line_that_is_cut(settings: Settings) -> None:
    """The client goes on waiting, as it would for a server that vanished without a FIN."""

    async def ask_before_and_after() -> bytes:
        line = Line()
        async with line.leading_to(settings) as over_line:
            path = Path(str(conninfo_to_dict(over_line.postgres_dsn)["host"])) / SOCKET
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
