"""A pool gives no connection away that the server has ended."""

import asyncio

import psycopg
import pytest

from db.connections import open_connections
from db.pools import make_pool
from infra.clock import system_clock
from infra.settings import Settings

END_ALL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'paqueteria test' AND datname = current_database()
"""


@pytest.mark.anyio
async def test_a_connection_that_the_server_ended_is_replaced(settings: Settings, database: str) -> None:
    """Whoever comes next doesn't notice, though every idle connection has gone."""
    async with make_pool(database, settings.model_copy(update={"pool_min": 3}), "test") as pool:
        await pool.wait()
        with psycopg.connect(database) as conn:
            row = conn.execute(END_ALL).fetchone()
        assert row == (3,)
        await asyncio.sleep(0.1)
        for _ in range(4):
            async with pool.connection() as given:
                assert await (await given.execute("SELECT 1")).fetchone() == (1,)


@pytest.mark.anyio
async def test_a_connection_goes_from_one_to_the_next(settings: Settings, database: str) -> None:
    """One that is well isn't taken for broken."""
    async with make_pool(database, settings, "test") as pool:
        await pool.wait()
        pids = set()
        for _ in range(5):
            async with pool.connection() as given:
                pids.add(given.info.backend_pid)
        assert len(pids) == 1


@pytest.mark.anyio
async def test_commands_are_planned_once(settings: Settings) -> None:
    """Left to itself the server would plan most of their statements each time; queries are planned by their values."""
    async with open_connections(settings, system_clock) as connections:
        modes = {}
        for pool in (connections.write_pool, connections.read_pool):
            async with pool.connection() as conn:
                row = await (await conn.execute("SHOW plan_cache_mode")).fetchone()
                modes[pool.name] = row and row[0]
    assert modes == {"commands": "force_generic_plan", "queries": "auto"}
