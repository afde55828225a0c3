"""Prove that the read side is what the write side says, by an oracle that shares no SQL with the read side's sources.

Both sides are read in one snapshot. What the checkpoint doesn't show yet is left out, for it isn't wrong, only on its
way; what is parked is not, and is named with its reason. The oracle is plainer than the views that define the listing
and spells out each figure. Parts of all keys are compared side by side, by a few connections that share the snapshot.
"""

import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from db.consistency import CHANNEL
from db.pools import Connection
from infra import logs
from infra.clock import Clock, system_clock
from infra.settings import Settings
from projections.derivation import derive
from projections.lanes import Lanes, Step, within
from projections.parking import Kind, derive_healthy, newest_change, park, unpark
from projections.projector import open_snapshots
from projections.rebuild import NEXT_BATCH, RECOUNT, discard_pages, rebuild
from projections.snapshot import Snapshot

log = logs.get("verify")

MOST_NAMED = 1000
"""Differences of one read model that are named one by one; the rest is told by its number."""

MOST_REPAIRED = 20_000
"""Differences that are repaired row by row; more than that is a rebuild, beside which the projector goes on."""

PARTS = 8
"""Of each read model: small enough for a part's rows to be joined in memory."""

# The keys whose rows a batch will still derive: of changes that none has read, and of those that one has begun.
ON_THE_WAY = """
WITH here AS (SELECT life, snapshot, unread_from FROM projection_checkpoint WHERE name = 'listing'),
unread AS (
    SELECT package_id, customer_id FROM change_log
    WHERE xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM here)
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM here)) AND life = (SELECT life FROM here)
      AND xid NOT IN (SELECT xid FROM parked_changes)),
packages_on_the_way AS (
    SELECT package_id FROM unread WHERE package_id IS NOT NULL
    UNION SELECT unnest(package_ids) FROM unfinished_changes
    UNION SELECT p.package_id FROM packages AS p
        JOIN unread AS u ON u.customer_id = p.customer_id AND u.package_id IS NULL),
customers_on_the_way AS (
    SELECT customer_id FROM unread WHERE customer_id IS NOT NULL
    UNION SELECT unnest(customer_ids) FROM unfinished_changes
    UNION SELECT p.customer_id FROM packages AS p JOIN packages_on_the_way USING (package_id))
SELECT ARRAY(TABLE packages_on_the_way), ARRAY(TABLE customers_on_the_way)
"""

PARKED = """
SELECT kind, key, 'parked since ' || instant(min(at)) || ': ' || (array_agg(reason ORDER BY xid DESC))[1]
FROM parked_changes GROUP BY kind, key ORDER BY kind, key
"""

SAMPLE = """
SELECT percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY {key}) FROM {model} TABLESAMPLE SYSTEM (1)
"""

EXPECTED_LISTING = """
WITH charged AS (
    SELECT package_id, sum(storage_days) AS days, sum(storage_fee) AS storage, sum(total) AS total
    FROM charges WHERE package_id BETWEEN %(first)s AND %(last)s GROUP BY package_id),
received AS (
    SELECT package_id, sum(amount) AS amount
    FROM payments WHERE package_id BETWEEN %(first)s AND %(last)s GROUP BY package_id)
SELECT k.package_id, k.version, k.tracking_code, k.guide_number, replace(k.guide_number, '-', '') AS guide_key,
       k.other_codes, CASE WHEN cardinality(k.other_codes) = 0 THEN k.other_codes ELSE
           ARRAY(SELECT replace(replace(upper(c), ' ', ''), '-', '') FROM unnest(k.other_codes)
               WITH ORDINALITY AS o (c, n) ORDER BY n) END AS other_code_keys,
       k.status, sites.code AS site, CASE WHEN k.status = 'RECEIVED' THEN taken.code END AS position, k.carrier,
       k.package_type, k.condition, k.recipient_name, k.customer_id, customers.name AS customer_name,
       customers.phone AS customer_phone, k.observations, k.cancellation_reason, k.announced_at, k.received_at,
       k.delivered_at, k.cancelled_at, priced.base_fee, tariffs.daily_storage,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.days END::integer AS storage_days,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.storage END::bigint AS storage_fee,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN priced.base_fee
            WHEN k.status <> 'RECEIVED' THEN charged.total END::bigint AS total,
       coalesce(received.amount, 0)::bigint AS paid
FROM packages AS k
JOIN tariffs ON tariffs.tariff_id = k.tariff_id
CROSS JOIN LATERAL (SELECT CASE WHEN k.package_type = 'EXTRA_SIZED' THEN tariffs.base_fee_extra_sized
                                WHEN k.package_type = 'NORMAL' OR k.package_type IS NULL THEN tariffs.base_fee_normal
                                END AS base_fee) AS priced
JOIN sites ON sites.site_id = k.site_id
JOIN customers ON customers.customer_id = k.customer_id
LEFT JOIN positions AS taken ON taken.package_id = k.package_id
LEFT JOIN charged ON charged.package_id = k.package_id
LEFT JOIN received ON received.package_id = k.package_id
WHERE k.package_id BETWEEN %(first)s AND %(last)s
"""

EXPECTED_SEARCH = """
SELECT k.package_id, k.announced_at, lower(unaccent(
    ' ' || c.name
    || CASE WHEN k.recipient_name <> c.name THEN ' ' || k.recipient_name ELSE '' END
    || CASE WHEN c.phone IS NULL THEN '' ELSE ' ' || c.phone END
    || ' ' || k.guide_number
    || CASE WHEN position('-' IN k.guide_number) > 0 THEN ' ' || replace(k.guide_number, '-', '') ELSE '' END
    || ' ' || k.tracking_code
    || ' ' || overlay(k.tracking_code PLACING '-' FROM 5 FOR 0)
    || CASE WHEN cardinality(k.other_codes) = 0 THEN '' ELSE ' ' || array_to_string(k.other_codes, ' ') END)) AS text
FROM packages AS k JOIN customers AS c ON c.customer_id = k.customer_id
WHERE k.package_id BETWEEN %(first)s AND %(last)s
"""

EXPECTED_CUSTOMERS = """
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at,
       lower(unaccent(' ' || name
           || coalesce(' ' || phone, '') || coalesce(' ' || email, '') || coalesce(' ' || document, '')
           || coalesce(' ' || building, '') || coalesce(' ' || tower, '') || coalesce(' ' || apartment, ''))) AS text
FROM customers WHERE customer_id BETWEEN %(first)s AND %(last)s
"""

EXPECTED_PAYMENTS = """
SELECT payment_id, package_id, (SELECT code FROM sites WHERE sites.site_id = payments.site_id) AS site, staff_id,
       method, amount, due, amount_reason, collected_by, at, reverses IS NOT NULL AS is_reversal
FROM payments WHERE payment_id BETWEEN %(first)s AND %(last)s
"""

EXPECTED_COUNTS = """
SELECT (SELECT code FROM sites WHERE sites.site_id = packages.site_id) || ' ' || status AS place, count(*) AS count
FROM packages GROUP BY site_id, status
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """A read model, its key, what the oracle says of it, and the column by which a change makes its rows dirty."""

    name: str
    key: str
    expected: str
    dirty_by: str

    @property
    def kind(self) -> Kind:
        """What a change that makes its rows dirty names."""
        return "package" if self.dirty_by == "package_id" else "customer"


COMPARED = (
    Compared("package_listing", "package_id", EXPECTED_LISTING, "package_id"),
    Compared("package_search", "package_id", EXPECTED_SEARCH, "package_id"),
    Compared("customer_listing", "customer_id", EXPECTED_CUSTOMERS, "customer_id"),
    Compared("payment_listing", "payment_id", EXPECTED_PAYMENTS, "package_id"),
)

# One pass over both sides; rows are compared whole, and only what differs is turned into JSON to say where.
DIFFERENCES = """
WITH expected AS ({expected}), actual AS (SELECT * FROM {model} WHERE {key} BETWEEN %(first)s AND %(last)s)
SELECT coalesce(e.{key}, a.{key}), coalesce(e.{by}, a.{by}),
       CASE WHEN row_number() OVER () <= {most} THEN jsonb_build_array(e, a) END
FROM expected AS e FULL JOIN actual AS a ON a.{key} = e.{key}
WHERE e IS DISTINCT FROM a AND coalesce(e.{by}, a.{by}) <> ALL(%(excused)s::uuid[])
"""

WRONG_COUNTS = """
WITH expected AS ({expected}), actual AS (SELECT site || ' ' || status AS place, count FROM package_counts),
     moving AS (
         SELECT (SELECT code FROM sites WHERE sites.site_id = p.site_id) || ' ' || p.status AS place
         FROM packages AS p WHERE p.package_id = ANY(%(excused)s::uuid[])
         UNION SELECT l.site || ' ' || l.status FROM package_listing AS l WHERE l.package_id = ANY(%(excused)s::uuid[]))
SELECT coalesce(e.place, a.place), coalesce(e.count, 0), coalesce(a.count, 0)
FROM expected AS e FULL JOIN actual AS a USING (place)
WHERE coalesce(e.count, 0) <> coalesce(a.count, 0) AND coalesce(e.place, a.place) NOT IN (SELECT place FROM moving)
"""

NOTE_OUTCOME = """
INSERT INTO verifications (name, verified_at, took, differences)
VALUES ('listing', %(at)s, %(took)s, %(differences)s)
ON CONFLICT (name) DO UPDATE
SET verified_at = excluded.verified_at, took = excluded.took, differences = excluded.differences
"""

IS_DUE = """
SELECT NOT EXISTS (SELECT FROM verifications WHERE verified_at > %(now)s - make_interval(secs => %(seconds)s))
"""

UNFINISHED = """
SELECT snapshot::text, ARRAY(
    SELECT xid::text::bigint FROM parked_changes UNION SELECT xid::text::bigint FROM unfinished_changes)
FROM projection_checkpoint WHERE name = 'listing'
"""

PARKED_XIDS = "SELECT DISTINCT xid::text::bigint FROM parked_changes"

SHOW_AGAIN = "UPDATE projection_checkpoint SET snapshot = %(snapshot)s::pg_snapshot WHERE name = 'listing'"

Excused = dict[Kind, list[uuid.UUID]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that isn't what it should be, or is missing, or shouldn't be there, or is parked."""

    model: Compared | None
    key: uuid.UUID | str
    dirty: uuid.UUID | None
    detail: str | None
    """What is and what should be; None where there are too many to name."""

    def __str__(self) -> str:
        return f"{self.model.name if self.model else 'package_counts'} {self.key}: {self.detail}"


def scheduled_verify(settings: Settings) -> Callable[[Connection, datetime], Awaitable[object]]:
    """Give the work of a job: verify if that is due, log each difference, repair nothing."""

    async def run(conn: Connection, now: datetime) -> None:
        row = await (await conn.execute(IS_DUE, {"now": now, "seconds": settings.verify_seconds})).fetchone()
        if row is not None and row[0]:
            await verify(settings, report=lambda said: log.error("difference", said=said), clock=lambda: now)

    return run


async def verify(
    settings: Settings,
    *,
    repair: bool = False,
    report: Callable[[str], None] = lambda _: None,
    clock: Clock = system_clock,
) -> int:
    """Name every difference and give their number; with `repair`, derive again what differs and what is parked."""
    started = time.perf_counter()
    async with await open_snapshots(settings.postgres_dsn, "verify") as conn:
        found = await _find(settings, conn)
        _report(found, report)
        await _note(conn, len(found), clock(), time.perf_counter() - started)
        if repair and 0 < len(found) <= MOST_REPAIRED:
            async with conn.transaction():
                batch = await _repair(conn, found, clock)
            await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(batch)))
            await discard_pages(settings)
    if repair and len(found) > MOST_REPAIRED:
        await rebuild(settings, clock=clock)
    return len(found)


async def _find(settings: Settings, conn: Connection) -> list[Difference]:
    """Compare everything in one snapshot; no transaction takes an id, from which each batch would have to scan."""
    async with Lanes.open(settings.postgres_dsn, "verify") as lanes, conn.transaction():
        await conn.execute("SET TRANSACTION READ ONLY")
        await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        row = await (await conn.execute("SELECT pg_export_snapshot()")).fetchone()
        exported = str(row[0]) if row else ""
        excused, parked = await _read_excused(conn), await _read_parked(conn)
        for difference in parked:
            if difference.model is not None and difference.dirty is not None:
                excused[difference.model.kind].append(difference.dirty)  # it is named already, with its reason
        found: dict[str, list[Difference]] = {compared.name: [] for compared in COMPARED}

        def step(compared: Compared, part: tuple[uuid.UUID, uuid.UUID]) -> Step:
            async def run(lane: Connection) -> None:
                found[compared.name] += await _compare(lane, compared, part, excused[compared.kind])

            return within(exported, run)

        steps = [step(compared, part) for compared in COMPARED for part in await _parts(conn, compared)]
        await lanes.run("comparing", steps)
        counts = await _compare_counts(conn, excused["package"])
    named = [difference for compared in COMPARED for difference in _name_first(found[compared.name])]
    return parked + named + counts


async def _read_excused(conn: Connection) -> Excused:
    row = await (await conn.execute(ON_THE_WAY)).fetchone()
    return {"package": list(row[0]), "customer": list(row[1])} if row else {"package": [], "customer": []}


async def _read_parked(conn: Connection) -> list[Difference]:
    models = {"package": COMPARED[0], "customer": COMPARED[2]}
    rows = await (await conn.execute(PARKED)).fetchall()
    return [Difference(models[kind], key, key, reason) for kind, key, reason in rows]


async def _parts(conn: Connection, compared: Compared) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Cut all keys into ranges of about as many rows each, first and last key included."""
    shares = [number / PARTS for number in range(1, PARTS)]
    sample = await conn.execute(SAMPLE.format(key=compared.key, model=compared.name).encode(), {"shares": shares})
    row = await sample.fetchone()
    firsts = [uuid.UUID(int=0), *sorted(set(row[0] or ()) - {uuid.UUID(int=0)} if row else ())]
    lasts = [uuid.UUID(int=first.int - 1) for first in firsts[1:]]
    return list(zip(firsts, [*lasts, uuid.UUID(int=2**128 - 1)], strict=True))


def _name_first(found: list[Difference]) -> list[Difference]:
    unnamed = [Difference(d.model, d.key, d.dirty, None) for d in found[MOST_NAMED:]]
    return found[:MOST_NAMED] + unnamed


def _report(found: list[Difference], report: Callable[[str], None]) -> None:
    for difference in found:
        if difference.detail is not None:
            report(str(difference))
    unnamed = Counter(difference.model.name for difference in found if difference.model and difference.detail is None)
    for name, number in unnamed.items():
        report(f"{name}: {number} more")


async def _note(conn: Connection, differences: int, now: datetime, seconds: float) -> None:
    values = {"at": now, "took": timedelta(seconds=seconds), "differences": differences}
    await conn.execute(NOTE_OUTCOME, values)


async def _compare(
    conn: Connection, compared: Compared, part: tuple[uuid.UUID, uuid.UUID], excused: Collection[uuid.UUID]
) -> list[Difference]:
    statement = DIFFERENCES.format(
        expected=compared.expected, model=compared.name, key=compared.key, by=compared.dirty_by, most=MOST_NAMED
    )
    values = {"first": part[0], "last": part[1], "excused": list(excused)}
    rows = await (await conn.execute(statement.encode(), values, prepare=False)).fetchall()
    return [Difference(compared, key, by, _describe(*sides) if sides else None) for key, by, sides in rows]


def _describe(expected: dict[str, Any] | None, actual: dict[str, Any] | None) -> str:
    if expected is None:
        return "is there, and should not be"
    if actual is None:
        return "is missing"
    fields = [name for name in expected if expected[name] != actual.get(name)]
    return "; ".join(f"{name} is {actual.get(name)!r}, and should be {expected[name]!r}" for name in fields)


async def _compare_counts(conn: Connection, excused: Collection[uuid.UUID]) -> list[Difference]:
    statement = WRONG_COUNTS.replace("{expected}", EXPECTED_COUNTS)
    rows = await (await conn.execute(statement.encode(), {"excused": list(excused)})).fetchall()
    return [Difference(None, place, None, f"is {actual}, and should be {expected}") for place, expected, actual in rows]


async def _repair(conn: Connection, found: list[Difference], clock: Clock) -> int:
    """Take out what differs and derive it again, with the projector held off; gives the batch that shows it."""
    await conn.execute("LOCK TABLE projection_checkpoint IN EXCLUSIVE MODE")
    dirty: dict[Kind, set[uuid.UUID]] = {"package": set(), "customer": set()}
    for difference in found:
        if difference.model is not None and difference.dirty is not None:
            dirty[difference.model.kind].add(difference.dirty)
    # Their counts are off by what is taken out, until they are counted anew.
    await conn.execute("UPDATE package_counts SET count = count + %s", (len(dirty["package"]),))
    before = {xid for (xid,) in await (await conn.execute(PARKED_XIDS)).fetchall()}
    await _derive(conn, "package", list(dirty["package"]), clock)
    await _derive(conn, "customer", list(dirty["customer"]), clock)
    await _show_again(conn, before)
    await conn.execute(sql.SQL(RECOUNT).format(listing=sql.Identifier("package_listing")))
    row = await (await conn.execute(NEXT_BATCH, {"now": clock()})).fetchone()
    batch = int(row[0]) if row else 0
    await conn.execute("UPDATE page_generations SET batch = %(batch)s", {"batch": batch})
    return batch


async def _derive(conn: Connection, kind: Kind, keys: list[uuid.UUID], clock: Clock) -> None:
    """Derive these keys again and unpark them; those that can't be derived are parked, and keep the rows they had."""

    async def put(part: Collection[uuid.UUID]) -> None:
        for compared in COMPARED:
            if compared.kind == kind:
                delete = f"DELETE FROM {compared.name} WHERE {compared.dirty_by} = ANY(%s)"
                await conn.execute(delete.encode(), (list(part),))
        await derive(conn, set(part) if kind == "package" else set(), set(part) if kind == "customer" else set())

    poison = await derive_healthy(conn, keys, put)
    await unpark(conn, kind, set(keys) - set(poison))
    for key, reason in poison.items():
        await park(conn, kind, {key: reason}, await newest_change(conn, kind, key), clock())


async def _show_again(conn: Connection, before: set[int]) -> None:
    """Let the checkpoint show the changes that nothing is parked of any more: their tokens are met."""
    row = await (await conn.execute(UNFINISHED)).fetchone()
    if row is None:
        return
    stored, done = Snapshot.parse(row[0]), before - set(row[1])
    if stored.hidden & done:
        await conn.execute(SHOW_AGAIN, {"snapshot": str(Snapshot(stored.xmax, stored.hidden - done))})
