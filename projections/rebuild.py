"""Fill read models anew from the normalized tables, while the old ones serve.

A shadow table is filled from the source view in one snapshot, indexed, brought up to date from the log as the projector
is, and swapped in by rename in one short transaction. Killed anywhere before that, the old table goes on serving, and
the next rebuild begins with a new shadow.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from redis.exceptions import RedisError

from db.connections import make_redis
from db.consistency import CHANNEL
from db.page_cache import EPOCH_KEY
from db.pools import Connection
from infra import logs
from infra.clock import Clock, system_clock
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections.changes import PACKAGES_OF_CUSTOMERS
from projections.projector import open_snapshots

log = logs.get("rebuild")

Report = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""

SWAP_WITHIN = 180.0
"""Seconds of tries, for whoever reads long: an export, a dump."""

SWAP_PATIENCE = "SET LOCAL lock_timeout = '150ms'"
"""While a swap waits for readers to finish, the next readers wait for it."""

SWAP_PAUSE = 0.3
"""Seconds between two tries, in which readers get on."""

VACUUM_PATIENCE = "SET LOCAL lock_timeout = '5s'"
"""An automatic vacuum or analyze gives way to whoever has waited for a second; readers and writers go on meanwhile."""

LANES = 2
"""Read models that are filled and indexed at a time."""

LANE_MEMORY = "SELECT set_config('work_mem', '128MB', false), set_config('maintenance_work_mem', '256MB', false)"

FEW_CHANGES = 200
"""Log rows: what the swap may still have to take in, while readers wait for it."""


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A table that one view defines; `key` says which of a change's ids its rows are found by."""

    name: str
    key: str

    @property
    def source(self) -> sql.Identifier:
        """The view."""
        return sql.Identifier(f"{self.name}_source")

    @property
    def table(self) -> sql.Identifier:
        """The table that serves."""
        return sql.Identifier(self.name)

    @property
    def shadow(self) -> sql.Identifier:
        """The table that is being filled."""
        return sql.Identifier(f"{self.name}_shadow")


READ_MODELS = (
    ReadModel("package_listing", "package_id"),
    ReadModel("package_search", "package_id"),
    ReadModel("customer_listing", "customer_id"),
    ReadModel("payment_listing", "package_id"),
)

ONE_AT_A_TIME = "SELECT pg_try_advisory_lock(hashtextextended('paqueteria.rebuild', 0))"

INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisprimary
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = %(table)s::regclass
ORDER BY i.indisprimary DESC, c.relname
"""

CHANGED_SINCE = """
SELECT package_id, customer_id FROM change_log
WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
"""

COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

RECOUNT = """
MERGE INTO package_counts AS c
USING (SELECT site, status, count(*) FROM {listing} GROUP BY site, status) AS t
ON c.site = t.site AND c.status = t.status
WHEN MATCHED THEN UPDATE SET count = t.count
WHEN NOT MATCHED THEN INSERT (site, status, count) VALUES (t.site, t.status, t.count)
WHEN NOT MATCHED BY SOURCE THEN UPDATE SET count = 0
"""

# Every page may have changed. The checkpoint's snapshot moves only if nothing is left that still stands behind it.
NEXT_BATCH = """
UPDATE projection_checkpoint SET batch = batch + 1, at = %(now)s,
    snapshot = CASE WHEN %(is_whole)s THEN pg_current_snapshot() ELSE snapshot END,
    needs_rebuild = needs_rebuild AND NOT %(is_whole)s
WHERE name = 'listing' RETURNING batch
"""


async def rebuild(
    settings: Settings, name: str | None = None, report: Report = lambda *_: None, clock: Clock = system_clock
) -> None:
    """Rebuild one read model, or all. Raises ConfigurationError for an unknown one, or beside another rebuild."""
    models = () if name == "package_counts" else _chosen(name)
    async with await open_snapshots(settings.postgres_dsn, "rebuild") as conn:
        row = await (await conn.execute(ONE_AT_A_TIME)).fetchone()
        if row is None or not row[0]:
            raise ConfigurationError("Another rebuild is running")
        snapshot = await _build(settings, conn, models, report)
        report("catching up", 0, 1)
        batch = await _catch_up_and_swap(conn, models, snapshot, clock(), is_whole=name in (None, "all"))
        await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(batch)))
        report("catching up", 1, 1)
    await discard_pages(settings)


async def discard_pages(settings: Settings) -> None:
    """End the cache's epoch at once; the projector begins another, as it does when it meets a batch not its own."""
    async with make_redis(settings) as redis:
        try:
            await redis.delete(EPOCH_KEY)
        except (RedisError, OSError) as error:
            log.warning("page_cache_away", error=repr(error))


def _chosen(name: str | None) -> Sequence[ReadModel]:
    if name in (None, "all"):
        return READ_MODELS
    chosen = [model for model in READ_MODELS if model.name == name]
    if not chosen:
        known = ", ".join(model.name for model in READ_MODELS)
        raise ConfigurationError(f"There is no read model {name}: there are {known}, package_counts, and all")
    return chosen


async def _build(settings: Settings, conn: Connection, models: Sequence[ReadModel], report: Report) -> str:
    """Make the shadows from one snapshot, several at a time, and tell which snapshot."""
    for model in models:
        await conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(model.shadow))
    waiting = list(models)
    filled = [asyncio.Event() for _ in models]

    async def work(exported: str) -> None:
        async with await open_snapshots(settings.postgres_dsn, "rebuild") as lane:
            await lane.execute(LANE_MEMORY)
            while waiting:
                model, is_filled = waiting.pop(0), filled[-1 - len(waiting)]
                report(f"filling {model.name}", 0, 1)
                await _fill(lane, model, exported)
                is_filled.set()
                report(f"filling {model.name}", 1, 1)
                report(f"indexing {model.name}", 0, 1)
                await _index(lane, model)
                report(f"indexing {model.name}", 1, 1)

    try:
        async with asyncio.TaskGroup() as group, conn.transaction():
            await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            row = await (await conn.execute("SELECT pg_current_snapshot()::text, pg_export_snapshot()")).fetchone()
            snapshot, exported = row or ("", "")
            for _ in range(LANES):
                group.create_task(work(exported))
            for is_filled in filled:
                await is_filled.wait()
    except* (psycopg.Error, OSError) as failures:
        raise failures.exceptions[0] from None
    return str(snapshot)


async def _fill(conn: Connection, model: ReadModel, exported: str) -> None:
    async with conn.transaction():
        await conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(exported)))
        await conn.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
                model.shadow, model.table
            )
        )
        columns = await _columns(conn, model)
        await conn.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(model.shadow, columns, columns, model.source)
        )


async def _columns(conn: Connection, model: ReadModel) -> sql.Composed:
    rows = await (await conn.execute(COLUMNS, {"table": model.name})).fetchall()
    return sql.SQL(", ").join(sql.Identifier(column) for (column,) in rows)


async def _index(conn: Connection, model: ReadModel) -> None:
    indexes = await (await conn.execute(INDEXES, {"table": model.name})).fetchall()
    for name, definition, is_primary in indexes:
        shadow = f"{name}_shadow"
        statement = definition.replace(
            f" INDEX {name} ON public.{model.name} ", f" INDEX {shadow} ON {model.name}_shadow "
        )
        await conn.execute(statement.encode())
        if is_primary:
            await conn.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}").format(
                    model.shadow, sql.Identifier(shadow), sql.Identifier(shadow)
                )
            )
    # Vacuumed, so that the first readers find what index-only scans need, instead of making it.
    await conn.execute(sql.SQL("VACUUM (ANALYZE) {}").format(model.shadow))


async def _catch_up_and_swap(
    conn: Connection, models: Sequence[ReadModel], snapshot: str, now: datetime, *, is_whole: bool
) -> int:
    """Take in what has committed since the fill until little is left, then that under the swap's locks."""
    deadline = time.monotonic() + SWAP_WITHIN
    while time.monotonic() < deadline:
        changes = FEW_CHANGES + 1
        while changes > FEW_CHANGES:
            async with conn.transaction():
                snapshot, changes = await _catch_up(conn, models, snapshot)
        try:
            async with conn.transaction():
                return await _swap(conn, models, snapshot, now, is_whole=is_whole)
        except psycopg.errors.LockNotAvailable:
            log.info("swap_waits_for_readers")
            await asyncio.sleep(SWAP_PAUSE)
    raise ConfigurationError("Readers never let go of the read models long enough to swap them; nothing has changed")


async def _catch_up(conn: Connection, models: Sequence[ReadModel], snapshot: str) -> tuple[str, int]:
    row = await (await conn.execute("SELECT pg_current_snapshot()::text")).fetchone()
    changes = await (await conn.execute(CHANGED_SINCE, {"snapshot": snapshot})).fetchall()
    whole = [customer_id for package_id, customer_id in changes if package_id is None and customer_id is not None]
    of_customers = await (await conn.execute(PACKAGES_OF_CUSTOMERS, {"customer_ids": whole})).fetchall()
    dirty = {
        "package_id": list({package_id for package_id, _ in changes if package_id} | {key for _, key in of_customers}),
        "customer_id": list({customer_id for _, customer_id in changes if customer_id}),
    }
    for model in models:
        if keys := dirty[model.key]:
            key, columns = sql.Identifier(model.key), await _columns(conn, model)
            await conn.execute(sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(model.shadow, key), (keys,))
            await conn.execute(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {} = ANY(%s)").format(
                    model.shadow, columns, columns, model.source, key
                ),
                (keys,),
            )
    return str(row[0]) if row else snapshot, len(changes)


async def _swap(conn: Connection, models: Sequence[ReadModel], snapshot: str, now: datetime, *, is_whole: bool) -> int:
    await conn.execute(VACUUM_PATIENCE)
    for model in models:
        await conn.execute(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(model.table))
    # Locked before the transaction's snapshot is taken: from here on nobody projects, and all that was is visible.
    await conn.execute("LOCK TABLE projection_checkpoint IN EXCLUSIVE MODE")
    await _catch_up(conn, models, snapshot)
    listing = next((model.shadow for model in models if model.name == "package_listing"), None)
    if listing is not None or not models:
        await conn.execute(sql.SQL(RECOUNT).format(listing=listing or sql.Identifier("package_listing")))
    row = await (await conn.execute(NEXT_BATCH, {"is_whole": is_whole, "now": now})).fetchone()
    batch = int(row[0]) if row else 0
    await conn.execute("UPDATE page_generations SET batch = %(batch)s", {"batch": batch})
    await _rename(conn, models)
    return batch


async def _rename(conn: Connection, models: Sequence[ReadModel]) -> None:
    """Put the shadows in their places: all that readers wait for."""
    await conn.execute(SWAP_PATIENCE)
    for model in models:
        await conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(model.table))
    for model in models:
        indexes = await (await conn.execute(INDEXES, {"table": model.name})).fetchall()
        await conn.execute(sql.SQL("DROP TABLE {}").format(model.table))
        await conn.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(model.shadow, model.table))
        for name, _, _ in indexes:
            await conn.execute(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(sql.Identifier(f"{name}_shadow"), sql.Identifier(name))
            )
