"""Prove that the read side is what the write side says, by an oracle that shares no SQL with the read side's sources.

Both sides are read in one snapshot. What the checkpoint doesn't show yet is left out, for it isn't wrong, only on its
way. The oracle is slower and plainer than the views that define the listing: it groups where they look up row by row,
counts microseconds where they round up hours, and spells out each figure.
"""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from db.consistency import CHANNEL
from db.pools import Connection
from infra.clock import Clock, system_clock
from infra.settings import Settings
from projections.projector import derive, open_snapshots
from projections.rebuild import NEXT_BATCH, RECOUNT, discard_pages, rebuild

MOST_NAMED = 1000
"""Differences of one read model that are named one by one; the rest is told by its number."""

MOST_REPAIRED = 20_000
"""Differences that are repaired row by row; more than that is a rebuild, beside which the projector goes on."""

# The keys of changes that no batch has read, and all packages of customers among them.
ON_THE_WAY = """
CREATE TEMP TABLE on_the_way ON COMMIT DROP AS
WITH unread AS (
    SELECT g.package_id, g.customer_id FROM change_log AS g, projection_checkpoint AS c
    WHERE NOT pg_visible_in_snapshot(g.xid, c.snapshot) AND g.xid >= pg_snapshot_xmin(c.snapshot))
SELECT package_id AS key FROM unread WHERE package_id IS NOT NULL
UNION SELECT customer_id FROM unread WHERE customer_id IS NOT NULL
UNION SELECT p.package_id FROM packages AS p JOIN unread AS u ON u.customer_id = p.customer_id
UNION SELECT p.customer_id FROM packages AS p JOIN unread AS u ON u.package_id = p.package_id
"""

EXPECTED_LISTING = """
WITH priced AS (
    SELECT tariff_id, daily_storage, kind.package_type,
           CASE kind.package_type WHEN 'EXTRA_SIZED' THEN base_fee_extra_sized WHEN 'NORMAL' THEN base_fee_normal END
               AS base_fee
    FROM tariffs, (VALUES ('NORMAL'), ('EXTRA_SIZED')) AS kind (package_type)),
charged AS (
    SELECT package_id, sum(storage_days) AS days, sum(storage_fee) AS storage, sum(total) AS total
    FROM charges GROUP BY package_id),
received AS (SELECT package_id, sum(amount) AS amount FROM payments GROUP BY package_id)
SELECT k.package_id, k.version, k.tracking_code, k.guide_number, upper(regexp_replace(k.guide_number, '-', '', 'g'))
           AS guide_key,
       k.other_codes, ARRAY(SELECT regexp_replace(upper(c), '[ -]', '', 'g') FROM unnest(k.other_codes)
           WITH ORDINALITY AS o (c, n) ORDER BY n) AS other_code_keys,
       k.status, sites.code AS site, CASE WHEN k.status = 'RECEIVED' THEN taken.code END AS position, k.carrier,
       k.package_type, k.condition, k.recipient_name, k.customer_id, customers.name AS customer_name,
       customers.phone AS customer_phone, k.observations, k.cancellation_reason, k.announced_at, k.received_at,
       k.delivered_at, k.cancelled_at, priced.base_fee, priced.daily_storage,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.days END::integer AS storage_days,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.storage END::bigint AS storage_fee,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN priced.base_fee
            WHEN k.status <> 'RECEIVED' THEN charged.total END::bigint AS total,
       coalesce(received.amount, 0)::bigint AS paid
FROM packages AS k
JOIN priced ON priced.tariff_id = k.tariff_id AND priced.package_type = coalesce(k.package_type, 'NORMAL')
JOIN sites ON sites.site_id = k.site_id
JOIN customers ON customers.customer_id = k.customer_id
LEFT JOIN positions AS taken ON taken.package_id = k.package_id
LEFT JOIN charged ON charged.package_id = k.package_id
LEFT JOIN received ON received.package_id = k.package_id
"""

EXPECTED_SEARCH = """
SELECT k.package_id, k.announced_at, lower(unaccent(
    ' ' || c.name
    || CASE WHEN k.recipient_name <> c.name THEN ' ' || k.recipient_name ELSE '' END
    || CASE WHEN c.phone IS NULL THEN '' ELSE ' ' || c.phone END
    || ' ' || k.guide_number
    || CASE WHEN position('-' IN k.guide_number) > 0 THEN ' ' || replace(k.guide_number, '-', '') ELSE '' END
    || ' ' || k.tracking_code
    || ' ' || regexp_replace(k.tracking_code, '^(....)(....)$', '\\1-\\2')
    || CASE WHEN cardinality(k.other_codes) = 0 THEN '' ELSE ' ' || array_to_string(k.other_codes, ' ') END)) AS text
FROM packages AS k JOIN customers AS c ON c.customer_id = k.customer_id
"""

EXPECTED_CUSTOMERS = """
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at,
       lower(unaccent(' ' || name
           || coalesce(' ' || phone, '') || coalesce(' ' || email, '') || coalesce(' ' || document, '')
           || coalesce(' ' || building, '') || coalesce(' ' || tower, '') || coalesce(' ' || apartment, ''))) AS text
FROM customers
"""

EXPECTED_PAYMENTS = """
SELECT payment_id, package_id, (SELECT code FROM sites WHERE sites.site_id = payments.site_id) AS site, staff_id,
       method, amount, due, amount_reason, collected_by, at, reverses IS NOT NULL AS is_reversal
FROM payments
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


COMPARED = (
    Compared("package_listing", "package_id", EXPECTED_LISTING, "package_id"),
    Compared("package_search", "package_id", EXPECTED_SEARCH, "package_id"),
    Compared("customer_listing", "customer_id", EXPECTED_CUSTOMERS, "customer_id"),
    Compared("payment_listing", "payment_id", EXPECTED_PAYMENTS, "package_id"),
)

# One pass over both sides; rows are compared whole, and only what differs is turned into JSON to say where.
DIFFERENCES = """
WITH expected AS ({expected}), actual AS (SELECT * FROM {model})
SELECT coalesce(e.{key}, a.{key}), coalesce(e.{by}, a.{by}),
       CASE WHEN row_number() OVER () <= {most} THEN jsonb_build_array(e, a) END
FROM expected AS e FULL JOIN actual AS a ON a.{key} = e.{key}
WHERE e IS DISTINCT FROM a AND coalesce(e.{by}, a.{by}) NOT IN (SELECT key FROM on_the_way)
"""

WRONG_COUNTS = """
WITH expected AS ({expected}), actual AS (SELECT site || ' ' || status AS place, count FROM package_counts),
     moving AS (
         SELECT (SELECT code FROM sites WHERE sites.site_id = p.site_id) || ' ' || p.status AS place
         FROM packages AS p JOIN on_the_way AS o ON o.key = p.package_id
         UNION SELECT l.site || ' ' || l.status FROM package_listing AS l JOIN on_the_way AS o ON o.key = l.package_id)
SELECT coalesce(e.place, a.place), coalesce(e.count, 0), coalesce(a.count, 0)
FROM expected AS e FULL JOIN actual AS a USING (place)
WHERE coalesce(e.count, 0) <> coalesce(a.count, 0) AND coalesce(e.place, a.place) NOT IN (SELECT place FROM moving)
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that isn't what it should be, or is missing, or shouldn't be there."""

    model: Compared | None
    key: uuid.UUID | str
    dirty: uuid.UUID | None
    detail: str | None
    """What is and what should be; None where there are too many to name."""

    def __str__(self) -> str:
        return f"{self.model.name if self.model else 'package_counts'} {self.key}: {self.detail}"


async def verify(
    settings: Settings,
    *,
    repair: bool = False,
    report: Callable[[str], None] = lambda _: None,
    clock: Clock = system_clock,
) -> int:
    """Name every difference and give their number; with `repair`, derive what differs again."""
    async with await open_snapshots(settings.postgres_dsn, "verify") as conn:
        async with conn.transaction():
            await conn.execute("SET LOCAL work_mem = '256MB'")
            await conn.execute(ON_THE_WAY)
            await conn.execute("ANALYZE on_the_way")
            found = [difference for compared in COMPARED for difference in await _compare(conn, compared)]
            found += await _compare_counts(conn)
        _report(found, report)
        if repair and 0 < len(found) <= MOST_REPAIRED:
            async with conn.transaction():
                batch = await _repair(conn, found, clock)
            await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(batch)))
            await discard_pages(settings)
    if repair and len(found) > MOST_REPAIRED:
        await rebuild(settings, clock=clock)
    return len(found)


def _report(found: list[Difference], report: Callable[[str], None]) -> None:
    for difference in found:
        if difference.detail is not None:
            report(str(difference))
    unnamed = Counter(difference.model.name for difference in found if difference.model and difference.detail is None)
    for name, number in unnamed.items():
        report(f"{name}: {number} more")


async def _compare(conn: Connection, compared: Compared) -> list[Difference]:
    statement = DIFFERENCES.format(
        expected=compared.expected, model=compared.name, key=compared.key, by=compared.dirty_by, most=MOST_NAMED
    )
    rows = await (await conn.execute(statement.encode())).fetchall()
    return [Difference(compared, key, by, _describe(*sides) if sides else None) for key, by, sides in rows]


def _describe(expected: dict[str, Any] | None, actual: dict[str, Any] | None) -> str:
    if expected is None:
        return "is there, and should not be"
    if actual is None:
        return "is missing"
    fields = [name for name in expected if expected[name] != actual.get(name)]
    return "; ".join(f"{name} is {actual.get(name)!r}, and should be {expected[name]!r}" for name in fields)


async def _compare_counts(conn: Connection) -> list[Difference]:
    statement = WRONG_COUNTS.replace("{expected}", EXPECTED_COUNTS)
    rows = await (await conn.execute(statement.encode())).fetchall()
    return [Difference(None, place, None, f"is {actual}, and should be {expected}") for place, expected, actual in rows]


async def _repair(conn: Connection, found: list[Difference], clock: Clock) -> int:
    """Take out what differs and derive it again, with the projector held off; gives the batch that shows it."""
    await conn.execute("LOCK TABLE projection_checkpoint IN EXCLUSIVE MODE")
    dirty: dict[str, set[uuid.UUID]] = {"package_id": set(), "customer_id": set()}
    for compared in COMPARED:
        differing = [difference for difference in found if difference.model is compared]
        keys = [difference.key for difference in differing]
        delete = f"DELETE FROM {compared.name} WHERE {compared.key} = ANY(%s)"
        await conn.execute(delete.encode(), (keys,))
        dirty[compared.dirty_by] |= {difference.dirty for difference in differing if difference.dirty is not None}
    # Their counts are off by what was taken out, until they are counted anew.
    await conn.execute("UPDATE package_counts SET count = count + %s", (len(found),))
    await derive(conn, dirty["package_id"], dirty["customer_id"])
    await conn.execute(sql.SQL(RECOUNT).format(listing=sql.Identifier("package_listing")))
    row = await (await conn.execute(NEXT_BATCH, {"now": clock()})).fetchone()
    batch = int(row[0]) if row else 0
    await conn.execute("UPDATE page_generations SET batch = %(batch)s", {"batch": batch})
    return batch
