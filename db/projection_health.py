"""How far the read models are from the log's true end, measured in the database and never by what a projector says."""

import asyncio
import itertools
import math
from dataclasses import dataclass
from datetime import datetime

import psycopg

from db import shop_figures
from db.leadership import IS_LED
from db.pools import Connection, connect
from infra import logs, metrics
from infra.clock import Clock
from infra.errors import Unavailable

log = logs.get("health")

EVERY = 2.0
"""Seconds between two looks of a process."""

SHOP_EVERY = 5
"""Looks between two at what the shop itself does."""

SILENCE = 10.0
"""Seconds without an answer after which the connection is taken for lost: it can be dead without a word."""

MOST_COUNTED = 100_000
"""Log rows; beyond, it is enough to know that there are so many."""

LATE = 5.0
"""Seconds that a change may wait for its batch before readiness warns of it."""

MISSED_REFRESHES = 5
"""Intervals that a materialized view may be old before readiness warns of it."""

OLD_TRANSACTION = 10.0
"""Seconds after which an open transaction is named."""

SESSION = "SELECT set_config('statement_timeout', '5s', false), set_config('lock_timeout', '2s', false)"

# The bounds are scalar subqueries: known before the scan, they let it use the index on xid. Joined, it reads the log.
# What is below the snapshot's xmin is visible in it, so that the later of the two bounds leaves nothing out.
UNREAD = """
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM projection_checkpoint
                  WHERE name = 'listing')
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND logged_at >= (SELECT unread_since - interval '1 day' FROM projection_checkpoint WHERE name = 'listing')
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
      AND xid NOT IN (SELECT xid FROM parked_changes UNION SELECT xid FROM unfinished_changes)
    ORDER BY xid
    LIMIT %(most)s) AS counted
"""

UNFINISHED = """
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid = ANY (ARRAY(SELECT DISTINCT xid FROM unfinished_changes))
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
    ORDER BY xid
    LIMIT %(most)s) AS counted
"""

# A view that never was refreshed has no record, and is the one to be missed most.
VIEWS = """
SELECT coalesce(array_agg(m.matviewname::text ORDER BY m.matviewname), '{}') AS names,
       array_agg(r.refreshed_at ORDER BY m.matviewname) AS refreshed,
       array_agg(extract(epoch FROM r.took)::float8 ORDER BY m.matviewname) AS took
FROM pg_matviews AS m LEFT JOIN view_refreshes AS r ON r.view = m.matviewname
WHERE m.schemaname = 'public'
"""

# Another system's checkpoint, or one that has seen what is still to come, is of another life: nothing it says holds.
MEASURE = f"""
SELECT c.incarnation, c.batch, c.at,
       c.needs_rebuild OR pg_snapshot_xmax(c.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
           OR coalesce(c.system_identifier <> (SELECT system_identifier FROM pg_control_system()), false),
       unread.changes, unfinished.changes, least(unread.since, unfinished.since),
       (SELECT count(*) FROM (SELECT DISTINCT kind, key FROM parked_changes) AS keys),
       {IS_LED},
       v.verified_at, v.differences, views.names, views.refreshed, views.took
FROM projection_checkpoint AS c
CROSS JOIN ({UNREAD}) AS unread CROSS JOIN ({UNFINISHED}) AS unfinished CROSS JOIN ({VIEWS}) AS views
LEFT JOIN verifications AS v ON v.name = c.name
WHERE c.name = 'listing'
"""

FIND_OLD_TRANSACTIONS = "SELECT pid, application_name, age, state, since FROM old_transactions(%(old)s)"


@dataclass(frozen=True, slots=True)
class View:
    """A materialized view's last refresh; one that never was has an infinite age."""

    refreshed_at: datetime | None
    took_seconds: float | None
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What the last proof that both sides are equal found."""

    verified_at: datetime
    age_seconds: float
    differences: int


@dataclass(frozen=True, slots=True)
class Health:
    """The read models against the log's true end; counts are of log rows, up to MOST_COUNTED each."""

    incarnation: str
    batch: int
    projected_at: datetime
    needs_rebuild: bool
    """The checkpoint is of another life of the cluster: what the read models show, and these counts, mean little."""
    unread: int
    unfinished: int
    """Of changes that are in only in part, since they touch more keys than a batch takes."""
    since: datetime | None
    """When the oldest of them was made."""
    lag_seconds: float
    parked: int
    """Packages and customers whose rows can't be derived."""
    led: bool
    """Whether anybody projects at all."""
    views: dict[str, View]
    verification: Verification | None

    @property
    def lag(self) -> int:
        """Give the committed log rows that the read models don't hold in full."""
        return self.unread + self.unfinished


@dataclass(frozen=True, slots=True)
class OldTransaction:
    """A session of this database whose open transaction holds back where batches begin to read, and vacuum."""

    pid: int
    application_name: str
    seconds: float
    state: str | None
    since: datetime


async def measure(conn: Connection, now: datetime) -> Health:
    """Measure on the primary, in one statement and so in one snapshot; Unavailable without a checkpoint."""
    row = await (await conn.execute(MEASURE, {"most": MOST_COUNTED})).fetchone()
    if row is None:
        raise Unavailable("The projections are being set up")
    incarnation, batch, at, needs_rebuild, unread, unfinished, since, parked, led, *others = row
    verified_at, differences, names, refreshed, took = others
    return Health(
        incarnation=incarnation,
        batch=batch,
        projected_at=at,
        needs_rebuild=needs_rebuild,
        unread=unread,
        unfinished=unfinished,
        since=since,
        lag_seconds=_age(since, now) if since else 0.0,
        parked=parked,
        led=led,
        views={
            name: View(refreshed_at, seconds, _age(refreshed_at, now))
            for name, refreshed_at, seconds in zip(names, refreshed or (), took or (), strict=True)
        },
        verification=Verification(verified_at, _age(verified_at, now), differences) if verified_at else None,
    )


def _age(instant: datetime | None, now: datetime) -> float:
    return max(0.0, (now - instant).total_seconds()) if instant else math.inf


async def old_transactions(conn: Connection) -> list[OldTransaction]:
    """Find who holds a transaction open for longer than OLD_TRANSACTION by the server's clock, the oldest first."""
    found = await conn.execute(FIND_OLD_TRANSACTIONS, {"old": OLD_TRANSACTION})
    return [OldTransaction(*row) for row in await found.fetchall()]


def warnings(health: Health, refresh_seconds: float) -> dict[str, str]:
    """Say by name what a reader should know: a sentence each; nothing to say is calm."""
    said: dict[str, str] = {}
    late = [] if health.led else ["nobody projects at the moment"]
    if health.lag and (late or health.lag_seconds > LATE):
        more = " or more" if MOST_COUNTED in (health.unread, health.unfinished) else ""
        late.append(f"behind by {health.lag}{more} changes for {health.lag_seconds:.0f} s")
    if late:
        said["projection"] = "; ".join(late)
    if health.parked:
        said["parked"] = f"{health.parked} packages or customers are parked: their rows can't be derived"
    if health.needs_rebuild:
        said["rebuild"] = "the read models are being rebuilt after a restore"
    missed = [
        f"{name} not refreshed for {view.age_seconds:.0f} s" if view.refreshed_at else f"{name} never refreshed"
        for name, view in health.views.items()
        if view.age_seconds > MISSED_REFRESHES * refresh_seconds
    ]
    if missed:
        said["views"] = "; ".join(missed)
    if health.verification and health.verification.differences:
        said["verify"] = f"the last verification found {health.verification.differences} differences"
    return said


async def watch(dsn: str, clock: Clock) -> None:
    """Keep this process's gauges true and name old transactions in the log, until cancelled; then they tell nothing."""
    _forget()
    try:
        await _look_on(dsn, clock)
    finally:
        _forget()


async def _look_on(dsn: str, clock: Clock) -> None:
    named: set[tuple[int, datetime]] = set()
    while True:
        try:
            async with await connect(dsn, "health") as conn:
                await conn.execute(SESSION)
                for look in itertools.count():
                    async with asyncio.timeout(SILENCE):
                        health, old = await measure(conn, clock()), await old_transactions(conn)
                        if look % SHOP_EVERY == 0:
                            await shop_figures.show(conn, clock())
                    _show(health, old, clock())
                    named = _name(old, named)
                    await asyncio.sleep(EVERY)
        except (psycopg.Error, Unavailable, TimeoutError) as error:
            _forget()
            log.warning("health_not_measured", error=logs.reason(error))
            await asyncio.sleep(EVERY)


def _show(health: Health, old: list[OldTransaction], now: datetime) -> None:
    metrics.PROJECTION_LAG.set(health.lag)
    metrics.PROJECTION_LAG_SECONDS.set(health.lag_seconds)
    metrics.PROJECTION_PARKED.set(health.parked)
    metrics.PROJECTION_LED.set(health.led)
    metrics.PROJECTION_NEEDS_REBUILD.set(health.needs_rebuild)
    if health.verification:
        metrics.VERIFY_DIFFERENCES.set(health.verification.differences)
        metrics.VERIFIED_AT.set(health.verification.verified_at.timestamp())
    metrics.VIEW_AGE_SECONDS.clear()
    for name, view in health.views.items():
        metrics.VIEW_AGE_SECONDS.set(view.age_seconds, name)
    metrics.OLD_TRANSACTION_SECONDS.clear()
    for one in old:
        metrics.OLD_TRANSACTION_SECONDS.set(one.seconds, str(one.pid), one.application_name)
    metrics.HEALTH_MEASURED_AT.set(now.timestamp())


def _forget() -> None:
    """What isn't known is no number: the last one seen, or a zero, would look like calm."""
    for gauge in (
        metrics.PROJECTION_LAG,
        metrics.PROJECTION_LAG_SECONDS,
        metrics.PROJECTION_PARKED,
        metrics.PROJECTION_LED,
        metrics.PROJECTION_NEEDS_REBUILD,
    ):
        gauge.set(math.nan)
    metrics.VIEW_AGE_SECONDS.clear()
    metrics.OLD_TRANSACTION_SECONDS.clear()
    metrics.VERIFY_DIFFERENCES.clear()
    metrics.VERIFIED_AT.clear()
    shop_figures.forget()


def _name(old: list[OldTransaction], named: set[tuple[int, datetime]]) -> set[tuple[int, datetime]]:
    """Log each old transaction once."""
    for one in old:
        if (one.pid, one.since) not in named:
            log.warning(
                "old_transaction",
                pid=one.pid,
                application=one.application_name,
                state=one.state,
                seconds=round(one.seconds, 1),
            )
    return {(one.pid, one.since) for one in old}
