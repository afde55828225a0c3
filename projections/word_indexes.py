"""The indexes that words are searched by: what is written to them waits in a list, until somebody sorts it in.

Without this it is whoever finds the list full: a batch of the projector, which others' changes then wait for, and every
search until then reads the list from end to end.
"""

import asyncio

import psycopg

from db.pools import Connection, connect
from infra import logs
from infra.settings import Settings

log = logs.get("word_indexes")

EVERY = 0.2
"""Seconds between two times: what has come in since is a matter of milliseconds."""

SORT_IN = """
SELECT sum(gin_clean_pending_list(i.indexrelid))
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
WHERE m.amname = 'gin' AND i.indrelid IN (to_regclass('package_search'), to_regclass('customer_listing'))
"""


async def keep_sorted(settings: Settings) -> None:
    """Sort in what waits, again and again, until cancelled."""
    async with await connect(settings.postgres_dsn, "word indexes") as conn:
        await conn.execute("SELECT set_config('lock_timeout', '1s', false)")
        while True:
            await sort_in(conn)
            await asyncio.sleep(EVERY)


async def sort_in(conn: Connection) -> None:
    """Do so once; an index that a rebuild swaps at this moment has its turn the next time."""
    try:
        await conn.execute(SORT_IN)
    except psycopg.Error as error:
        if conn.closed:
            raise
        log.info("not_sorted_in", reason=logs.reason(error))
