"""How far each standby is behind the primary, by what it has replayed of the primary's log."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence

import psycopg

from db.pools import Connection, connect
from infra import logs, metrics
from infra.tasks import running

log = logs.get("replica_health")

EVERY = 1.0
"""Seconds between two looks."""

SILENCE = 5.0
"""Seconds without an answer after which a server is taken for away."""

KEPT = 3600
"""How many of the primary's positions are remembered; a standby that is further behind is that far at least."""

# As numbers: a position of the log is a count of bytes.
WRITTEN = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"
REPLAYED = """
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint
"""


class Written:
    """Where the primary's log ended, and when that was seen."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=KEPT)

    def see(self, position: int, now: float) -> None:
        """Note where it ends now."""
        if not self._seen or position != self._seen[-1][1]:
            self._seen.append((now, position))

    def forget(self) -> None:
        """Know nothing: another server may be the primary by now."""
        self._seen.clear()

    def lag(self, replayed: int, now: float) -> float:
        """Tell for how many seconds there has been something that isn't replayed; not a number where nobody knows."""
        if not self._seen:
            return math.nan
        return next((now - at for at, position in self._seen if position > replayed), 0.0)


async def watch(primary: str, replicas: Sequence[str]) -> None:
    """Keep the gauges of the standbys true, until cancelled; then they tell nothing."""
    written = Written()
    followed = [_follow(dsn, f"replica {number}", written) for number, dsn in enumerate(replicas, 1)]
    try:
        async with running(*([_follow_primary(primary, written)] if replicas else []), *followed):
            await asyncio.Event().wait()
    finally:
        metrics.REPLICA_LAG_SECONDS.clear()
        metrics.REPLICA_UP.clear()


async def _follow_primary(dsn: str, written: Written) -> None:
    while True:
        try:
            async with await connect(dsn, "replica health") as conn:
                while True:
                    written.see(await _ask(conn, WRITTEN), time.monotonic())
                    await asyncio.sleep(EVERY)
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("primary_not_measured", error=type(error).__name__)
            written.forget()
            await asyncio.sleep(EVERY)


async def _follow(dsn: str, name: str, written: Written) -> None:
    while True:
        try:
            async with await connect(dsn, "replica health") as conn:
                while True:
                    metrics.REPLICA_LAG_SECONDS.set(written.lag(await _ask(conn, REPLAYED), time.monotonic()), name)
                    metrics.REPLICA_UP.set(1, name)
                    await asyncio.sleep(EVERY)
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("replica_not_measured", replica=name, error=type(error).__name__)
            metrics.REPLICA_LAG_SECONDS.set(math.nan, name)
            metrics.REPLICA_UP.set(0, name)
            await asyncio.sleep(EVERY)


async def _ask(conn: Connection, question: str) -> int:
    async with asyncio.timeout(SILENCE):
        row = await (await conn.execute(question.encode())).fetchone()
    return int(row[0]) if row else 0
