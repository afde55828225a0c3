"""The projector: reads what has committed since its checkpoint, derives what that makes dirty, moves the checkpoint.

A batch is the change log's rows that are visible in the snapshot now and were not in the checkpoint's. A cursor over
positions would lose rows, since commits don't come in the order of positions; two snapshots lose none, and don't wait
for a transaction that stays open. Reading, deriving and moving the checkpoint are one REPEATABLE READ transaction:
under READ COMMITTED each statement would see more than the checkpoint then says.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import IsolationLevel
from redis.asyncio import Redis

from db import consistency
from db.page_cache import EpochKeeper
from db.pools import Connection, connect
from infra import logs, metrics
from infra.clock import Clock, system_clock
from projections import (
    batch_changes,
    customer_listing,
    package_counts,
    package_listing,
    package_search,
    page_generations,
    payment_listing,
)
from projections.snapshot import Snapshot

log = logs.get("projector")

SESSION = """
SELECT set_config('idle_in_transaction_session_timeout', '5s', false), set_config('lock_timeout', '10s', false)
"""
"""A process that freezes within a batch lets go of the checkpoint's row, so that another can lead."""

PLANS = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false)"
"""A batch finds every row by a key, be it one or thousands: planned once, where planning each took most of its time."""

LARGEST_BATCH = 5000
"""Log rows; a single transaction of more is still one batch."""

QUIET_TRANSACTIONS = 1000
"""Transactions without a change after which the checkpoint moves all the same, so that no scan begins far back."""

READ_CHECKPOINT = """
SELECT batch, snapshot::text, pg_current_snapshot()::text FROM projection_checkpoint WHERE name = 'listing'
"""

# A row for each transaction: its number, how many log rows it has, when it was made, and the keys that it makes dirty.
BY_TRANSACTION = """
SELECT xid::text::bigint, count(*), max(at),
       coalesce(array_agg(DISTINCT package_id) FILTER (WHERE package_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL AND package_id IS NULL), '{}'),
       bool_or(package_id IS NULL AND customer_id IS NULL)
FROM
"""

# The bounds are scalar subqueries: known before the scan, they let it use the index on xid. Joined, it reads the log.
READ_CHANGES = f"""{BY_TRANSACTION} (
    SELECT xid, package_id, customer_id, at FROM change_log
    WHERE xid >= (SELECT pg_snapshot_xmin(snapshot) FROM projection_checkpoint WHERE name = 'listing')
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
    ORDER BY xid
    LIMIT %(limit)s) AS unread
GROUP BY xid ORDER BY xid
"""

READ_ONE = f"{BY_TRANSACTION} change_log WHERE xid = %(xid)s::text::xid8 GROUP BY xid"

PACKAGES_OF_CUSTOMERS = "SELECT package_id FROM packages WHERE customer_id = ANY(%(customer_ids)s)"

MOVE_CHECKPOINT = """
UPDATE projection_checkpoint SET snapshot = %(snapshot)s::pg_snapshot, batch = %(batch)s, at = %(at)s
WHERE name = 'listing' AND batch = %(old_batch)s
"""

COUNT_LAG = """
SELECT count(*) FROM change_log
WHERE xid >= (SELECT pg_snapshot_xmin(snapshot) FROM projection_checkpoint WHERE name = 'listing')
  AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
"""


class Fenced(Exception):
    """Somebody else moved the checkpoint: what was derived here is thrown away with its transaction."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction makes dirty, by the keys that its log rows name."""

    xid: int
    rows: int
    at: datetime
    package_ids: list[uuid.UUID]
    customer_ids: list[uuid.UUID]
    whole_customer_ids: list[uuid.UUID]
    """Customers whose every package it makes dirty."""
    is_reference: bool
    """It names neither: a site, a tariff, staff."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction of the projector took in, in log rows; with none, `number` is the old one."""

    number: int
    changes: int
    scopes: frozenset[str]
    is_last: bool
    made_at: tuple[datetime, ...] = ()
    """When each transaction that it took in says that it was made."""

    @property
    def base(self) -> int:
        """The batch that it was made upon."""
        return self.number - 1 if self.changes else self.number


async def read_changes(conn: Connection, limit: int) -> tuple[list[Change], int | None]:
    """Read whole transactions, about `limit` rows of them, and the first transaction left out (None: all was read)."""
    rows = await (await conn.execute(READ_CHANGES, {"limit": limit + 1})).fetchall()
    changes = [Change(*row) for row in rows]
    if sum(change.rows for change in changes) <= limit:
        return changes, None
    end = changes[-1].xid
    if len(changes) == 1:  # one transaction larger than a batch: it is taken whole
        rows = await (await conn.execute(READ_ONE, {"xid": str(end)})).fetchall()
        return [Change(*row) for row in rows], end + 1
    return changes[:-1], end


async def project_batch(conn: Connection, clock: Clock, *, largest: int = LARGEST_BATCH) -> Batch:
    """Take in the next batch in one transaction. Raises Fenced, or a database error; either changes nothing."""
    try:
        async with conn.transaction():
            return await _project(conn, clock, largest)
    except psycopg.errors.SerializationFailure as error:
        raise Fenced from error


async def _project(conn: Connection, clock: Clock, largest: int) -> Batch:
    row = await (await conn.execute(READ_CHECKPOINT)).fetchone()
    if row is None:
        raise Fenced
    old_batch, stored, current = row
    changes, end = await read_changes(conn, largest)
    if not changes and Snapshot.parse(current).xmax - Snapshot.parse(stored).xmax < QUIET_TRANSACTIONS:
        return Batch(old_batch, 0, frozenset(), is_last=True)
    snapshot = Snapshot.parse(stored).advanced(Snapshot.parse(current), end)
    number = old_batch + 1 if changes else old_batch
    scopes = await _derive(conn, changes, number, clock()) if changes else frozenset[str]()
    moved = await conn.execute(
        MOVE_CHECKPOINT, {"snapshot": str(snapshot), "batch": number, "old_batch": old_batch, "at": clock()}
    )
    if moved.rowcount != 1:
        raise Fenced
    rows = sum(change.rows for change in changes)
    return Batch(number, rows, scopes, end is None, tuple(change.at for change in changes))


async def _derive(conn: Connection, changes: list[Change], batch: int, at: datetime) -> frozenset[str]:
    # First the checkpoint, then the read models: in the order of a rebuild's swap, so that neither waits for the other.
    await conn.execute("LOCK TABLE projection_checkpoint IN ROW EXCLUSIVE MODE")
    package_ids = {package_id for change in changes for package_id in change.package_ids}
    customer_ids = {customer_id for change in changes for customer_id in change.customer_ids}
    if whole := [customer_id for change in changes for customer_id in change.whole_customer_ids]:
        rows = await conn.execute(PACKAGES_OF_CUSTOMERS, {"customer_ids": whole})
        package_ids |= {package_id for (package_id,) in await rows.fetchall()}
    moved, scopes = await derive(conn, package_ids, customer_ids)
    if any(change.is_reference for change in changes):
        scopes |= {"reference"}
    await page_generations.project(conn, scopes, batch)
    await batch_changes.project(conn, moved, batch, at)
    return frozenset(scopes)


async def derive(
    conn: Connection, package_ids: set[uuid.UUID], customer_ids: set[uuid.UUID]
) -> tuple[list[package_listing.Moved], set[str]]:
    """Derive the read models of these keys again; tell how packages moved, and the scopes whose pages that changes."""
    moved: list[package_listing.Moved] = []
    if package_ids:
        moved = await package_listing.project(conn, package_ids)
        await package_search.project(conn, package_ids)
        if gone := [row.package_id for row in moved if row.status is None]:
            await package_search.forget(conn, gone)
        await payment_listing.project(conn, package_ids)
        await package_counts.project(conn, moved)
    owners = {row.customer_id for row in moved if row.customer_id is not None}
    changed = await customer_listing.project(conn, customer_ids | owners)
    return moved, page_generations.scopes_of(moved, changed)


async def count_lag(conn: Connection) -> int:
    """Count the committed log rows that no batch has read: against the log's true end, not against what was read."""
    row = await (await conn.execute(COUNT_LAG)).fetchone()
    return int(row[0]) if row else 0


async def announce(conn: Connection, keeper: EpochKeeper, batch: Batch) -> None:
    """Tell the cache and the waiting readers of a batch that has committed."""
    await keeper.announce(batch.scopes, batch.number)
    await conn.execute("SELECT pg_notify(%s, %s)", (consistency.CHANNEL, str(batch.number)))


async def project_pending(
    conn: Connection,
    keeper: EpochKeeper,
    clock: Clock = system_clock,
    *,
    largest: int = LARGEST_BATCH,
    known: int | None = None,
) -> int:
    """Take in all that has committed by now, batch by batch, announce each, and give the last one's number.

    `known` is the batch that the caller saw last: upon another one somebody else has moved the checkpoint, a rebuild
    or a repair that may have died before it told the cache, so that no page from before is believed any more.
    """
    while True:
        started = time.perf_counter()
        batch = await project_batch(conn, clock, largest=largest)
        if known is not None and batch.base != known:
            log.info("moved_by_another", batch=batch.base, expected=known)
            await keeper.begin_anew()
        known = batch.number
        if batch.changes:
            _measure(batch, time.perf_counter() - started, clock())
            await announce(conn, keeper, batch)
        if batch.is_last:
            return known


def _measure(batch: Batch, seconds: float, now: datetime) -> None:
    metrics.PROJECTION_BATCH_SECONDS.observe(seconds)
    metrics.PROJECTED_CHANGES.inc(batch.changes)
    for made_at in batch.made_at:
        metrics.COMMIT_TO_VISIBLE_SECONDS.observe((now - made_at).total_seconds())


async def open_projector(dsn: str, name: str = "projector") -> Connection:
    """Open a connection for batches."""
    conn = await open_snapshots(dsn, name)
    await conn.execute(PLANS)
    return conn


async def open_snapshots(dsn: str, name: str) -> Connection:
    """Open a connection on which every transaction is one snapshot."""
    conn = await connect(dsn, name)
    await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await conn.execute(SESSION)
    return conn


async def catch_up(dsn: str, redis: Redis, clock: Clock = system_clock) -> None:
    """Take in all that has committed by now, without being the leader; for one-off work beside a standing service."""
    async with await open_projector(dsn, "catch-up") as conn:
        await project_pending(conn, EpochKeeper(redis), clock)
