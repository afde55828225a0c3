"""The projector: reads what has committed since its checkpoint, derives what that makes dirty, moves the checkpoint.

A batch is the change log's rows that are visible in the snapshot now and were not in the checkpoint's. A cursor over
positions would lose rows, since commits don't come in the order of positions; two snapshots lose none, and don't wait
for a transaction that stays open. Reading, deriving and moving the checkpoint are one REPEATABLE READ transaction:
under READ COMMITTED each statement would see more than the checkpoint then says.

What was read and isn't finished, the rest of a large change or a key that can't be derived, stays hidden in the
checkpoint's snapshot, so that no Consistency-Token is told it is in.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg import IsolationLevel
from redis.asyncio import Redis

from db import consistency
from db.page_cache import EpochKeeper
from db.pools import Connection, connect
from infra import logs, metrics, tracing
from infra.clock import Clock, system_clock
from projections import page_generations, parking
from projections.batch_changes import Noted
from projections.changes import (
    AT_ONCE,
    Change,
    Key,
    Packages,
    Part,
    Unread,
    forget_part,
    keep_parts,
    next_part,
    of,
    read_changes,
    read_packages,
)
from projections.derivation import Derived, derive, derive_what_can_be
from projections.snapshot import Snapshot

log = logs.get("projector")

SESSION = """
SELECT set_config('idle_in_transaction_session_timeout', '5s', false), set_config('lock_timeout', '10s', false)
"""
"""A process that freezes within a batch lets go of the checkpoint's row, so that another can lead."""

PLANS = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false)"
"""A batch finds every row by a key, be it one or thousands: planned once, where planning each took most of its time."""

LARGEST_BATCH = 5000
"""Log rows that a batch takes in."""

KEYS_OF_A_ROW = 2
"""A package and its customer: a batch has no more keys than this for each log row that it may take in."""

BATCH_PATIENCE = 60.0
"""Seconds after which a batch is taken for lost: a connection can be dead without a word."""

QUIET_TRANSACTIONS = 1000
"""Transactions without a change after which the checkpoint moves all the same, so that no scan begins far back."""

HOLD_CHECKPOINT = "LOCK TABLE projection_checkpoint IN ROW EXCLUSIVE MODE"

UNFINISHED = """
ARRAY(SELECT xid::text::bigint FROM unfinished_changes), ARRAY(SELECT xid::text::bigint FROM parked_changes)
"""

# Prepared by each connection for itself, since it is sent along with what begins the transaction. A day is left for
# clocks that are set back.
READ_CHECKPOINT = f"""
PREPARE read_checkpoint AS
SELECT batch, snapshot::text, pg_current_snapshot()::text,
       greatest(unread_since - interval '1 day', '2000-01-01T00:00:00Z'),
       {UNFINISHED}
FROM projection_checkpoint WHERE name = 'listing'
"""

BEGIN = f"BEGIN ISOLATION LEVEL {{level}}; {HOLD_CHECKPOINT}; EXECUTE read_checkpoint"
"""First the checkpoint, then the read models: in the order of a rebuild's swap, so that neither waits for the other."""

READ_PARKED = "SELECT DISTINCT kind, key::text FROM parked_changes"

READ_MADE_AT = "SELECT max(at) FROM change_log WHERE xid = %(xid)s::text::xid8"

READ_REQUESTS = """
SELECT DISTINCT request_id FROM change_log
WHERE xid = ANY(%(xids)s::text[]::xid8[]) AND request_id IS NOT NULL LIMIT %(most)s
"""

MOVE_CHECKPOINT = f"""
WITH {page_generations.RAISED}
UPDATE projection_checkpoint SET snapshot = %(snapshot)s::pg_snapshot, batch = %(batch)s, at = %(at)s,
    unread_from = %(unread_from)s::text::xid8,
    unread_since = CASE WHEN %(unread_from)s::text::xid8 >= pg_snapshot_xmax(snapshot) THEN snapshot_at
                        ELSE unread_since END,
    snapshot_at = CASE WHEN %(is_whole)s THEN now() ELSE snapshot_at END
WHERE name = 'listing' AND batch = %(old_batch)s
"""


class Fenced(Exception):
    """Somebody else moved the checkpoint: what was derived here is thrown away with its transaction."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction of the projector took in; with nothing in it, `number` is the old one."""

    number: int
    changes: int
    """Log rows, each counted by the batch that read it."""
    scopes: frozenset[str]
    is_new: bool
    is_last: bool
    made_at: tuple[datetime, ...] = ()
    """When each transaction that is in now, and wasn't before, says that it was made."""
    xids: tuple[int, ...] = ()
    """The transactions that it read."""
    has_part: bool = False
    """It took in a part of a large change."""

    @property
    def base(self) -> int:
        """The batch that it was made upon."""
        return self.number - 1 if self.is_new else self.number


@dataclass(slots=True)
class Work:
    """What a batch derives: the keys of changes that it takes in whole, and one part of a larger one."""

    whole: dict[int, list[Key]] = field(default_factory=dict)
    large: dict[int, list[Key]] = field(default_factory=dict)
    """Changes that are taken in parts from now on."""
    part: Part | None = None

    def keys(self) -> set[Key]:
        """Name the keys, each once."""
        return {key for keys in self.whole.values() for key in keys} | set(self.part.keys if self.part else ())

    def named_by(self, key: Key) -> list[int]:
        """Tell which of the changes name the key."""
        naming = [xid for xid, keys in self.whole.items() if key in keys]
        return [*naming, self.part.xid] if self.part is not None and key in self.part.keys else naming


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Transactions that were read and aren't in: some of their parts are to be done, some of their keys are parked."""

    in_parts: frozenset[int]
    parked: frozenset[int]

    @property
    def xids(self) -> frozenset[int]:
        """Name them all, but for 0, which stands for none that is known."""
        return (self.in_parts | self.parked) - {0}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the read models were when a batch began, what it sees, and where what is unread begins."""

    batch: int
    stored: Snapshot
    current: Snapshot
    since: datetime
    unfinished: Unfinished


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a batch moves the checkpoint to: `end` is the first transaction that it leaves unread, if it leaves any."""

    batch: int
    at: datetime
    scopes: Collection[str]
    unfinished: frozenset[int]
    end: int | None


async def project_batch(
    conn: Connection, clock: Clock, *, largest: int = LARGEST_BATCH, is_brief: bool = False
) -> Batch:
    """Take in the next batch in one transaction. Raises Fenced, or a database error; either changes nothing.

    One that `is_brief` leaves the rest of a large change for the next batch, if there is anything else to take in.
    Where data can't be derived the batch is done again with more care, and the keys that are at fault are parked.
    """
    try:
        try:
            async with _begun(conn) as checkpoint:
                return await _project(conn, checkpoint, clock, largest, is_brief=is_brief)
        except psycopg.Error as error:
            if not parking.is_poison(error):
                raise
            log.warning("batch_done_again", reason=parking.reason_of(error))
        async with _begun(conn) as checkpoint:
            return await _project(conn, checkpoint, clock, largest, is_careful=True)
    except psycopg.errors.SerializationFailure as error:
        raise Fenced from error


@contextlib.asynccontextmanager
async def _begun(conn: Connection) -> AsyncIterator[Checkpoint]:
    """Begin a transaction and read the checkpoint, in one way there and back; leaving commits, or undoes it all."""
    level = (conn.isolation_level or IsolationLevel.READ_COMMITTED).name.replace("_", " ")
    try:
        begun = await conn.execute(BEGIN.format(level=level).encode(), prepare=False)
        begun.nextset()
        begun.nextset()
        row = await begun.fetchone()
        if row is None:
            raise Fenced
        stored, current = map(Snapshot.parse, row[1:3])
        yield Checkpoint(row[0], stored, current, row[3], Unfinished(*map(frozenset, row[4:])))
    except BaseException:
        with contextlib.suppress(psycopg.OperationalError):  # the connection is gone, and its transaction with it
            await conn.rollback()
        raise
    await conn.commit()


async def _project(
    conn: Connection,
    checkpoint: Checkpoint,
    clock: Clock,
    largest: int,
    *,
    is_careful: bool = False,
    is_brief: bool = False,
) -> Batch:
    old_batch, unfinished = checkpoint.batch, checkpoint.unfinished
    changes, end = await read_changes(conn, largest, Unread(checkpoint.since, unfinished.xids))
    work, changes, end = _plan(changes, await read_packages(conn, changes), end, largest)
    is_new = bool(changes or unfinished.in_parts)
    if not is_new and checkpoint.current.xmax - checkpoint.stored.xmax < QUIET_TRANSACTIONS:
        return Batch(old_batch, 0, frozenset(), is_new=False, is_last=True)
    number, at, derived = old_batch + is_new, clock(), Derived()
    if is_new:
        for xid, large in work.large.items():
            await keep_parts(conn, xid, large)
        if (unfinished.in_parts or work.large) and not (is_brief and work.whole):
            work.part = await next_part(conn)
        derived = await _derive(conn, work, unfinished, Noted(number, at), is_careful=is_careful)
        if any(change.is_reference for change in changes):
            derived.scopes.add("reference")
        if unfinished.xids or work.large or is_careful:
            unfinished = await _read_unfinished(conn)
    await _move(conn, checkpoint, Moved(number, at, derived.scopes, unfinished.xids, end))
    made_at = [change.at for change in changes if change.xid not in unfinished.xids]
    if work.part is not None and work.part.xid not in unfinished.xids:
        row = await (await conn.execute(READ_MADE_AT, {"xid": str(work.part.xid)})).fetchone()
        made_at += row or ()
    rows, is_last = sum(change.rows for change in changes), end is None and not unfinished.in_parts
    return Batch(
        number,
        rows,
        frozenset(derived.scopes),
        is_new=is_new,
        is_last=is_last,
        made_at=tuple(made_at),
        xids=tuple(change.xid for change in changes),
        has_part=work.part is not None,
    )


async def _move(conn: Connection, checkpoint: Checkpoint, moved: Moved) -> None:
    """Move the checkpoint. Raises Fenced where somebody else has."""
    snapshot = checkpoint.stored.advanced(checkpoint.current, moved.end, moved.unfinished)
    binds = {
        "snapshot": str(snapshot),
        "unread_from": str(snapshot.first_hidden(besides=moved.unfinished)),
        "batch": moved.batch,
        "old_batch": checkpoint.batch,
        "is_whole": moved.end is None,
        "at": moved.at,
        "scopes": list(moved.scopes),
    }
    if (await conn.execute(MOVE_CHECKPOINT, binds)).rowcount != 1:
        raise Fenced


def _plan(
    changes: list[Change], packages: Packages, end: int | None, largest: int
) -> tuple[Work, list[Change], int | None]:
    """Choose what the batch takes in, and what it leaves unread after all, since there are too many keys."""
    work, total = Work(), 0
    for number, change in enumerate(changes):
        keys = change.keys(packages)
        if len(keys) > AT_ONCE:
            work.large[change.xid] = keys
            continue
        total += len(keys)
        if total > largest * KEYS_OF_A_ROW and number:
            return work, changes[:number], change.xid
        work.whole[change.xid] = keys
    return work, changes, end


async def _read_unfinished(conn: Connection) -> Unfinished:
    row = await (await conn.execute(f"SELECT {UNFINISHED}".encode())).fetchone()
    in_parts, parked = row or ((), ())
    return Unfinished(frozenset(in_parts), frozenset(parked))


async def _derive(conn: Connection, work: Work, unfinished: Unfinished, noted: Noted, *, is_careful: bool) -> Derived:
    keys = work.keys()
    parked = set[Key](await (await conn.execute(READ_PARKED)).fetchall()) if unfinished.parked else set[Key]()
    derived = await (
        derive_what_can_be(conn, keys, parked, noted)
        if is_careful
        else derive(conn, of(keys, "package"), of(keys, "customer"), noted)
    )
    await _park(conn, work, derived, noted.at)
    await _unpark(conn, (keys & parked) - derived.reasons.keys())
    if work.part is not None:
        await forget_part(conn, work.part)
    return derived


async def _park(conn: Connection, work: Work, derived: Derived, at: datetime) -> None:
    for (kind, key), reason in derived.reasons.items():
        log.error("parked", kind=kind, key=key)  # its reason may quote the row: see `project --parked`
        for xid in work.named_by((kind, key)):
            await parking.park(conn, kind, {key: reason}, xid, at)


async def _unpark(conn: Connection, healed: Collection[Key]) -> None:
    for kind, key in healed:
        log.info("healed", kind=kind, key=key)
        await parking.unpark(conn, kind, [key])


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

    A large change's parts take turns with what else has changed, which so waits for one of them at most.
    """
    is_brief = False
    while True:
        started = time.perf_counter()
        async with asyncio.timeout(BATCH_PATIENCE):
            batch = await project_batch(conn, clock, largest=largest, is_brief=is_brief)
        is_brief = batch.has_part
        if known is not None and batch.base != known:
            log.info("moved_by_another", batch=batch.base, expected=known)
            await keeper.begin_anew()
        known = batch.number
        if batch.is_new:
            seconds = time.perf_counter() - started
            _measure(batch, seconds, clock())
            if tracing.is_on():
                await _trace(conn, keeper, batch, seconds)
            await announce(conn, keeper, batch)
        if batch.is_last:
            return known


def _measure(batch: Batch, seconds: float, now: datetime) -> None:
    metrics.PROJECTION_BATCH_SECONDS.observe(seconds)
    metrics.PROJECTION_BATCH_CHANGES.observe(batch.changes)
    metrics.PROJECTED_CHANGES.inc(batch.changes)
    for made_at in batch.made_at:
        metrics.COMMIT_TO_VISIBLE_SECONDS.observe((now - made_at).total_seconds())


async def _trace(conn: Connection, keeper: EpochKeeper, batch: Batch, seconds: float) -> None:
    """Tell of the batch in the traces of the commands in it, and let readers who show it know whose they are."""
    binds = {"xids": [str(xid) for xid in batch.xids], "most": tracing.MOST_FOLLOWED}
    found = [request_id for (request_id,) in await (await conn.execute(READ_REQUESTS, binds)).fetchall()]
    for request_id in found:
        tracing.tell_consequence(request_id, "project", seconds, batch=batch.number, changes=batch.changes)
    await keeper.name_requests(batch.number, found)


async def open_projector(dsn: str, name: str = "projector") -> Connection:
    """Open a connection for batches."""
    return await open_snapshots(dsn, name, PLANS, READ_CHECKPOINT)


async def open_snapshots(dsn: str, name: str, *more: str) -> Connection:
    """Open a connection on which every transaction is one snapshot, set up by `more` statements."""
    async with contextlib.AsyncExitStack() as stack:
        conn = await stack.enter_async_context(await connect(dsn, name))
        await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        for statement in (SESSION, *more):
            await conn.execute(statement.encode())
        stack.pop_all()  # an interruption until here closes it
        return conn


async def catch_up(dsn: str, redis: Redis, clock: Clock = system_clock) -> None:
    """Take in all that has committed by now, without being the leader; for one-off work beside a standing service."""
    async with await open_projector(dsn, "catch-up") as conn:
        await project_pending(conn, EpochKeeper(redis), clock)
