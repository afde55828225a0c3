"""A pool that everybody waits for shows as that."""

import asyncio

import psycopg_pool
import pytest

from db.pool_figures import read_pools, tell
from db.pools import make_pool
from infra.exposition import samples
from infra.settings import Settings


@pytest.mark.anyio
async def test_who_waits_and_who_got_none_in_time_is_counted(settings: Settings, database: str) -> None:
    """With every connection lent, one waits, and then has waited in vain."""
    small = settings.model_copy(update={"pool_min": 1, "pool_max": 1, "pool_timeout": 0.2})
    async with make_pool(database, small, "figures of a test") as pool:
        await pool.wait()
        async with pool.connection():
            waiting = asyncio.create_task(pool.getconn())
            await asyncio.sleep(0)
            tell(pool)
            (busy,) = [state for state in read_pools(samples()) if state.name == "figures of a test"]
            assert (busy.min_size, busy.max_size, busy.size, busy.available, busy.waiting) == (1, 1, 1, 0, 1)
            with pytest.raises(psycopg_pool.PoolTimeout):
                await waiting
        tell(pool)
        tell(pool)
        (idle,) = [state for state in read_pools(samples()) if state.name == "figures of a test"]
        assert (idle.available, idle.waiting, idle.requests, idle.timeouts) == (1, 0, 2, 1)
        assert idle.waited_seconds >= 0.2
