"""A connection of its own for each test of what is kept."""

from collections.abc import AsyncIterator

import pytest

from db.pools import Connection, connect


@pytest.fixture
async def conn(database: str, anyio_backend: str) -> AsyncIterator[Connection]:
    assert anyio_backend == "asyncio"
    async with await connect(database, "test") as conn:
        yield conn
