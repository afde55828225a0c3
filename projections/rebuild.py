"""Fill read models anew from the normalized tables, while the old ones serve.

A shadow table is filled from the source view in one snapshot, indexed, brought up to date from the log as the projector
is, and swapped in by rename in one short transaction. Killed anywhere before that, the old table goes on serving, and
the next rebuild begins with a new shadow. Rows that can't be derived are parked and left out. A read
model whose index is dear is compared first, and mended where hardly a row is wrong, unless it was itself asked for.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from datetime import datetime

import psycopg
from psycopg import sql

from db.consistency import CHANNEL
from db.page_cache import discard_everything
from db.pools import Connection
from db.redis_clients import REDIS_AWAY, make_redis
from infra import logs
from infra.clock import Clock, system_clock
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections import shadows
from projections.changes import PACKAGES_OF_CUSTOMERS
from projections.lanes import Lanes, Report, Step, first_of, within
from projections.parking import Kind, newest_change, park
from projections.projector import open_snapshots
from projections.shadows import FEW_DIFFERENCES, READ_MODELS, Part, ReadModel, Shadow
from projections.snapshot import Snapshot

log = logs.get("rebuild")

SWAP_WITHIN = 180.0
"""Seconds of tries, for whoever reads long: an export, a dump."""

SWAP_PATIENCE = "SET LOCAL lock_timeout = '150ms'"
"""While a swap waits for readers to finish, the next readers wait for it."""

SWAP_PAUSE = 0.3
"""Seconds between two tries, in which readers get on."""

VACUUM_PATIENCE = "SET LOCAL lock_timeout = '5s'"
"""An automatic vacuum or analyze gives way to whoever has waited for a second; readers and writers go on meanwhile."""

FEW_CHANGES = 200
"""Log rows: what the swap may still have to take in, while readers wait for it."""

REBUILT_ALONG = {"package_listing": ("package_search",)}
"""What the projector makes of a change in the listing's row, which after a rebuild of that alone it won't see."""

ONE_AT_A_TIME = "SELECT pg_try_advisory_lock(hashtextextended('paqueteria.rebuild', 0))"

HOLD_CHECKPOINT = "LOCK TABLE projection_checkpoint IN EXCLUSIVE MODE"

CHANGED_SINCE = """
SELECT package_id, customer_id FROM change_log
WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot) AND xid < pg_snapshot_xmax(pg_current_snapshot())
  AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
  AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
"""

RECOUNT = """
MERGE INTO package_counts AS c
USING (SELECT site, status, count(*) FROM {listing} GROUP BY site, status) AS t
ON c.site = t.site AND c.status = t.status
WHEN MATCHED THEN UPDATE SET count = t.count
WHEN NOT MATCHED THEN INSERT (site, status, count) VALUES (t.site, t.status, t.count)
WHEN NOT MATCHED BY SOURCE THEN UPDATE SET count = 0
"""

# Every page may have changed.
NEXT_BATCH = "UPDATE projection_checkpoint SET batch = batch + 1, at = %(now)s WHERE name = 'listing' RETURNING batch"

PARKED_SINCE = "SELECT kind, key, min(at) FROM parked_changes GROUP BY kind, key"

# What is in now is parked no more; nor is what another life's transaction named, whose number means nothing here.
FORGET_PARKED = """
DELETE FROM parked_changes AS k
WHERE (k.kind, k.key) NOT IN (SELECT kind, key FROM unnest(%(kinds)s::text[], %(keys)s::uuid[]) AS left_out (kind, key))
   OR NOT EXISTS (SELECT FROM change_log AS g JOIN projection_checkpoint AS c ON c.life = g.life WHERE g.xid = k.xid)
"""

READ_HIDDEN = """
SELECT pg_current_snapshot()::text, coalesce(array_agg(DISTINCT xid::text::bigint) FILTER (WHERE xid > '0'), '{}')
FROM parked_changes
"""

# Nothing is left that still stands behind the new snapshot, but what is parked: its tokens are not met.
MOVE_WHOLE = """
UPDATE projection_checkpoint SET snapshot = %(snapshot)s::pg_snapshot, needs_rebuild = false,
    unread_from = pg_snapshot_xmin(pg_current_snapshot())
WHERE name = 'listing'
"""


async def rebuild(
    settings: Settings, name: str | None = None, report: Report = lambda *_: None, clock: Clock = system_clock
) -> None:
    """Rebuild one read model, or all. Raises ConfigurationError for an unknown one, or beside another rebuild."""
    models, is_whole = () if name == "package_counts" else _chosen(name), name in (None, "all")
    async with await open_snapshots(settings.postgres_dsn, "rebuild") as conn:
        row = await (await conn.execute(ONE_AT_A_TIME)).fetchone()
        if row is None or not row[0]:
            raise ConfigurationError("Another rebuild is running")
        made = [await shadows.plan(conn, model) for model in models]
        snapshot = await _build(settings, conn, made, report, name)
        report("catching up", 0, 1)
        batch = await _catch_up_and_swap(conn, made, snapshot, clock(), is_whole=is_whole)
        await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(batch)))
        report("catching up", 1, 1)
    await discard_pages(settings)


async def discard_pages(settings: Settings) -> None:
    """End the cache's epoch at once; the projector begins another, as it does when it meets a batch not its own."""
    async with make_redis(settings) as redis:
        try:
            await discard_everything(redis)
        except REDIS_AWAY as error:
            log.warning("page_cache_away", error=repr(error))


def _chosen(name: str | None) -> Sequence[ReadModel]:
    if name in (None, "all"):
        return READ_MODELS
    names = (name, *REBUILT_ALONG.get(name or "", ()))
    chosen = [model for model in READ_MODELS if model.name in names]
    if not chosen:
        known = ", ".join(model.name for model in READ_MODELS)
        raise ConfigurationError(f"There is no read model {name}: there are {known}, package_counts, and all")
    return chosen


async def _build(settings: Settings, conn: Connection, made: Sequence[Shadow], report: Report, name: str | None) -> str:
    """Make the shadows from one snapshot, and tell which snapshot."""
    try:
        async with Lanes.open(settings.postgres_dsn, "rebuild", report) as lanes:
            async with conn.transaction():
                await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                row = await (await conn.execute("SELECT pg_current_snapshot()::text, pg_export_snapshot()")).fetchone()
                snapshot, exported = row or ("", "")
                async with asyncio.TaskGroup() as group:
                    for shadow in made:
                        may_stay = shadow.model.is_dear and shadow.model.name != name
                        group.create_task(_fill(lanes, shadow, exported, may_stay=may_stay))
            # The snapshot is let go of first: only then a vacuum can tell that everybody sees the rows.
            async with asyncio.TaskGroup() as group:
                for shadow in made:
                    if shadow.mends is None:
                        group.create_task(_index(lanes, shadow))
    except* (psycopg.Error, OSError, ConfigurationError) as failures:
        raise first_of(failures) from None
    return str(snapshot)


async def _fill(lanes: Lanes, shadow: Shadow, exported: str, *, may_stay: bool) -> None:
    """Fill the shadow, unless what serves may stay and hardly differs from its source."""
    if may_stay and await _is_nearly_right(lanes, shadow, exported):
        return
    async with lanes.one() as conn:
        await shadows.create(conn, shadow)

    def step(part: Part) -> Step:
        return within(exported, lambda conn: shadows.fill(conn, shadow, part))

    await lanes.run(f"filling {shadow.model.name}", [step(part) for part in shadow.parts])


async def _is_nearly_right(lanes: Lanes, shadow: Shadow, exported: str) -> bool:
    found: set[uuid.UUID] = set()
    is_right = True

    def step(part: Part) -> Step:
        async def run(conn: Connection) -> None:
            nonlocal is_right
            if is_right:
                differing = await shadows.differing(conn, shadow, part)
                found.update(differing or ())
                is_right = differing is not None and len(found) <= FEW_DIFFERENCES

        return within(exported, run)

    await lanes.run(f"comparing {shadow.model.name}", [step(part) for part in shadow.parts])
    if is_right:
        shadow.mends = found
    return is_right


async def _index(lanes: Lanes, shadow: Shadow) -> None:
    async with lanes.one() as conn:
        # Vacuumed, so that the first readers find what index-only scans need, instead of making it.
        await conn.execute(shadow.say("VACUUM {shadow}"))
        indexes = await shadows.indexes_of(conn, shadow)

    def step(name: str, definition: str) -> Step:
        return lambda conn: shadows.index(conn, shadow, name, definition)

    await lanes.run(f"indexing {shadow.model.name}", [step(name, definition) for name, definition, _ in indexes])
    async with lanes.one() as conn:
        await shadows.finish(conn, shadow, [name for name, _, is_primary in indexes if is_primary])


async def _catch_up_and_swap(
    conn: Connection, made: Sequence[Shadow], snapshot: str, now: datetime, *, is_whole: bool
) -> int:
    """Take in what has committed since the fill until little is left, then that under the swap's locks."""
    deadline = time.monotonic() + SWAP_WITHIN
    while time.monotonic() < deadline:
        changes = FEW_CHANGES + 1
        while changes > FEW_CHANGES:
            async with conn.transaction():
                snapshot, changes = await catch_up(conn, made, snapshot)
        try:
            async with conn.transaction():
                return await _swap(conn, made, snapshot, now, is_whole=is_whole)
        except psycopg.errors.LockNotAvailable:
            log.info("swap_waits_for_readers")
            await asyncio.sleep(SWAP_PAUSE)
    raise ConfigurationError("Readers never let go of the read models long enough to swap them; nothing has changed")


async def catch_up(conn: Connection, made: Sequence[Shadow], snapshot: str) -> tuple[str, int]:
    """Take in what `snapshot` doesn't show; gives the snapshot that it was read in, and how many changes there were."""
    row = await (await conn.execute("SELECT pg_current_snapshot()::text")).fetchone()
    changes = await (await conn.execute(CHANGED_SINCE, {"snapshot": snapshot})).fetchall()
    whole = [customer_id for package_id, customer_id in changes if package_id is None and customer_id is not None]
    of_customers = await (await conn.execute(PACKAGES_OF_CUSTOMERS, {"customer_ids": whole})).fetchall()
    theirs = {uuid.UUID(package_id) for _, package_id in of_customers}
    dirty = {
        "package_id": list({package_id for package_id, _ in changes if package_id} | theirs),
        "customer_id": list({customer_id for _, customer_id in changes if customer_id}),
    }
    for shadow in made:
        keys = dirty[shadow.model.key]
        if shadow.mends is not None:
            shadow.mends.update(keys)
        elif keys:
            await shadows.derive(conn, shadow, keys)
    return str(row[0]) if row else snapshot, len(changes)


async def _swap(conn: Connection, made: Sequence[Shadow], snapshot: str, now: datetime, *, is_whole: bool) -> int:
    replacing = [shadow for shadow in made if shadow.mends is None]
    await conn.execute(VACUUM_PATIENCE)
    for shadow in replacing:
        await conn.execute(shadow.say("LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE"))
    # Locked before the transaction's snapshot is taken: from here on nobody projects, and all that was is visible.
    await conn.execute(HOLD_CHECKPOINT)
    await catch_up(conn, made, snapshot)
    for shadow in made:
        if shadow.mends:
            await shadows.mend(conn, shadow)
    for shadow in replacing:
        await shadows.keep(conn, shadow)
    listing = next((shadow.say("{shadow}") for shadow in made if shadow.model.name == "package_listing"), None)
    if listing is not None or not made:
        await conn.execute(sql.SQL(RECOUNT).format(listing=listing or sql.Identifier("package_listing")))
    row = await (await conn.execute(NEXT_BATCH, {"now": now})).fetchone()
    batch = int(row[0]) if row else 0
    await conn.execute("UPDATE page_generations SET batch = %(batch)s", {"batch": batch})
    await _park(conn, made, now, is_whole=is_whole)
    if is_whole:
        await conn.execute("DELETE FROM unfinished_changes")
        await _move_checkpoint(conn)
    await _rename(conn, replacing)
    return batch


async def _park(conn: Connection, made: Sequence[Shadow], now: datetime, *, is_whole: bool) -> None:
    """Park what is left out; after a rebuild of everything, nothing else is parked any more."""
    left_out: dict[tuple[Kind, uuid.UUID], str] = {}
    for shadow in made:
        left_out |= {(shadow.model.kind, key): reason for key, reason in shadow.poison.items()}
    since = {(kind, key): at for kind, key, at in await (await conn.execute(PARKED_SINCE)).fetchall()}
    if is_whole:
        values = {"kinds": [kind for kind, _ in left_out], "keys": [key for _, key in left_out]}
        await conn.execute(FORGET_PARKED, values)
    for (kind, key), reason in left_out.items():
        await park(conn, kind, {key: reason}, await newest_change(conn, kind, key), since.get((kind, key), now))
        log.warning("parked", kind=kind, key=str(key))


async def _move_checkpoint(conn: Connection) -> None:
    row = await (await conn.execute(READ_HIDDEN)).fetchone()
    if row is None:
        return
    current = Snapshot.parse(row[0])
    hidden = current.hidden | {xid for xid in row[1] if xid < current.xmax}
    await conn.execute(MOVE_WHOLE, {"snapshot": str(Snapshot(current.xmax, frozenset(hidden)))})


async def _rename(conn: Connection, replacing: Sequence[Shadow]) -> None:
    """Put the shadows in their places: all that readers wait for."""
    await conn.execute(SWAP_PATIENCE)
    for shadow in replacing:
        await conn.execute(shadow.say("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    for shadow in replacing:
        await shadows.rename(conn, shadow)
