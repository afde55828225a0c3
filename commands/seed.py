"""Believable parcels of the last year, in all states, for demonstrations and measurements: written by COPY."""

import asyncio
import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from commands.customers import POLICY_VERSION
from commands.seed_sample import (
    BUILDINGS,
    CONDITIONS,
    METHODS,
    REASONS,
    RECEIVED,
    TYPES,
    Customer,
    Parcel,
    Sample,
    guide_key,
    guide_number,
    phone,
    tracking_code,
)
from db.leadership import IS_LED
from db.pools import Connection, connect
from infra.clock import Clock, system_clock
from infra.errors import ConfigurationError
from infra.settings import Settings

Report = Callable[[str, int, int], None]

CHUNK = 1000
"""Packages in one transaction: small enough for a running projector to take in between other people's changes."""

LANES = 2
"""Transactions at a time, each lane with customers of its own: a parcel's customer must have committed before it."""

PATIENCE = 10.0
"""Seconds that a chunk waits for a running projector to show the one before: others' changes come in between."""

PACKAGES_PER_SITE = 200_000
OCCUPIED = 0.9
"""The share of positions that is taken where parcels were seeded, at the most."""

WAIVED = 0.01
"""Of deliveries: those whose storage nobody charged."""

NULL = r"\N"

ONE_AT_A_TIME = "SELECT pg_try_advisory_lock(hashtextextended('paqueteria.seed', 0))"

SESSION = "SET synchronous_commit = off"

STAFF = """
INSERT INTO staff (username, full_name, role, password_hash, active)
VALUES ('seed', 'Datos de muestra', 'OPERATOR', '!', false)
ON CONFLICT (username) DO UPDATE SET full_name = excluded.full_name
RETURNING staff_id
"""

SITE = """
INSERT INTO sites (code, name, address, opening_hours) VALUES (%(code)s, %(name)s, %(address)s, %(hours)s)
ON CONFLICT (code) DO UPDATE SET code = excluded.code
RETURNING site_id
"""

FREE_POSITIONS = "SELECT count(*) FROM positions WHERE site_id = %(site_id)s AND package_id IS NULL"

ADD_POSITIONS = """
INSERT INTO positions (site_id, code, ordinal)
SELECT %(site_id)s, chr(65 + (n / 6500) %% 26) || chr(65 + n / 250 %% 26) || '-' || lpad((n %% 250 + 1)::text, 3, '0'),
       (SELECT coalesce(max(ordinal), -1) FROM positions WHERE site_id = %(site_id)s) + n - %(first)s::int + 1
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""

# The lowest free places, as a clerk is given them: what somebody else is taking at this moment is passed over.
TAKE_POSITIONS = """
WITH free AS (
    SELECT position_id FROM positions
    WHERE site_id = %(site_id)s AND package_id IS NULL AND ordinal %% %(lanes)s = %(lane)s
    ORDER BY ordinal LIMIT cardinality(%(package_ids)s::uuid[]) FOR UPDATE SKIP LOCKED)
UPDATE positions AS p SET package_id = t.package_id
FROM (SELECT position_id, row_number() OVER () AS n FROM free) AS f
JOIN unnest(%(package_ids)s::uuid[]) WITH ORDINALITY AS t (package_id, n) USING (n)
WHERE p.position_id = f.position_id
RETURNING replace(p.package_id::text, '-', ''), p.position_id::text
"""

# The fee's one rule prices the seeded parcels too.
CHARGE_AND_PAY = """
WITH gone AS (
    SELECT p.package_id, p.site_id, p.status, coalesce(p.delivered_at, p.cancelled_at) AS at, b.base_fee,
           fee.storage_days, fee.storage_fee, fee.total, t.method, t.is_waived
    FROM unnest(%(package_ids)s::uuid[], %(methods)s::text[], %(waived)s::boolean[])
        AS t (package_id, method, is_waived)
    JOIN packages AS p USING (package_id)
    JOIN tariffs AS f USING (tariff_id)
    CROSS JOIN LATERAL base_fee(p.package_type, f.base_fee_normal, f.base_fee_extra_sized) AS b (base_fee)
    CROSS JOIN LATERAL package_fee(
        b.base_fee, f.daily_storage, p.received_at, coalesce(p.delivered_at, p.cancelled_at)) AS fee),
charged AS (
    INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, staff_id, at)
    SELECT package_id, base_fee, storage_days, storage_fee, total, CASE status WHEN 'DELIVERED' THEN total ELSE 0 END,
           %(staff_id)s, at FROM gone)
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, staff_id, at)
SELECT package_id, site_id, method, CASE WHEN is_waived THEN base_fee ELSE total END, total,
       CASE WHEN is_waived AND storage_fee > 0 THEN 'Cliente frecuente' END, %(staff_id)s, at
FROM gone WHERE status = 'DELIVERED'
"""

COPY_CUSTOMERS = "COPY customers (customer_id, name, phone, building, tower, apartment, created_at) FROM STDIN"

COPY_PACKAGES = """
COPY packages (package_id, guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id, carrier,
    package_type, condition, status, position_id, tariff_id, cancellation_reason, announced_at, received_at,
    delivered_at, cancelled_at, version) FROM STDIN
"""

COPY_CONSENTS = "COPY consents (customer_id, package_id, policy_version, channel, at) FROM STDIN"

COPY_LOG = "COPY change_log (package_id, customer_id, type, actor, version, data, at) FROM STDIN"

TAKEN_PHONES = "SELECT phone FROM customers WHERE phone = ANY(%(keys)s)"
TAKEN_CODES = "SELECT tracking_code FROM packages WHERE tracking_code = ANY(%(keys)s)"
TAKEN_GUIDES = "SELECT guide_key FROM packages WHERE guide_key = ANY(%(keys)s) AND status <> 'CANCELLED'"

# Whether the read models show the transaction, and whether anybody is at work on that.
IS_SHOWN = f"""
SELECT pg_visible_in_snapshot(%(xid)s::text::xid8, snapshot), {IS_LED}
FROM projection_checkpoint WHERE name = 'listing'
"""


class Shop:
    """What the lanes share: where parcels can stand, and the numbers that the database's own leave free."""

    def __init__(self, conn: Connection, count: int, now: datetime) -> None:
        self.conn = conn
        self.count = count
        self.now = now
        self.sites: list[str] = []
        self.staff_id = ""
        self.tariffs: list[tuple[datetime, str]] = []
        self.is_empty = True
        self.first_package = 0
        self.first_customer = 0
        self._spare = itertools.count()

    async def prepare(self) -> None:
        """Make the seed's staff, sites and positions, and see what is there already."""
        self.staff_id = str(await self._one(STAFF))
        self.first_package = await self._one("SELECT count(*) FROM packages")
        self.first_customer = await self._one("SELECT count(*) FROM customers")
        self.is_empty = not self.first_customer
        self._spare = itertools.count(self.first_package + self.count)
        rows = await self.conn.execute("SELECT valid_from, tariff_id FROM tariffs ORDER BY valid_from")
        self.tariffs = [(row[0], str(row[1])) for row in await rows.fetchall()]
        sites = 1 + (self.count - 1) // PACKAGES_PER_SITE
        for number in range(sites):
            self.sites.append(await self._site(number))
            await self._add_positions(self.sites[number], int(self.count * RECEIVED / sites * 1.2) + 1)

    async def _one(self, statement: str, values: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        row = await (await self.conn.execute(statement.encode(), values)).fetchone()
        return row[0] if row else None

    async def _site(self, number: int) -> str:
        code = "PRINCIPAL" if number == 0 else f"SEDE-{number + 1}"
        address = f"Calle {10 + 7 * number} # {5 + number}-20, Bogotá"
        values = {"code": code, "name": f"Sede {number + 1}", "address": address, "hours": "Lun-Sáb 8:00-19:00"}
        return str(await self._one(SITE, values))

    async def _add_positions(self, site_id: str, parcels: int) -> None:
        """Add what the site lacks for that many parcels, with some to spare."""
        lacking = int(parcels / OCCUPIED) + 10 - await self._one(FREE_POSITIONS, {"site_id": site_id})
        if lacking > 0:
            added = "SELECT count(*) FROM positions WHERE site_id = %(site_id)s AND code LIKE '__-___'"
            first = await self._one(added, {"site_id": site_id})
            await self.conn.execute(ADD_POSITIONS, {"site_id": site_id, "first": first, "last": first + lacking - 1})

    async def taken(self, conn: Connection, statement: str, keys: Iterable[str]) -> Collection[str]:
        """Tell which of the keys somebody else has; in an empty shop nobody."""
        if self.is_empty:
            return ()
        rows = await conn.execute(statement.encode(), {"keys": list(keys)})
        return {key for (key,) in await rows.fetchall()}

    async def renumbered(self, conn: Connection, parcels: list[Parcel]) -> list[Parcel]:
        """Give another number to a parcel whose code or guide somebody else's has."""
        while True:
            codes = await self.taken(conn, TAKEN_CODES, (tracking_code(parcel.number) for parcel in parcels))
            guides = await self.taken(conn, TAKEN_GUIDES, map(guide_key, parcels))
            if not codes and not guides:
                return parcels
            parcels = [
                replace(parcel, number=next(self._spare))
                if tracking_code(parcel.number) in codes or guide_key(parcel) in guides
                else parcel
                for parcel in parcels
            ]

    def tariff(self, at: datetime) -> str:
        """Name the tariff that was in force."""
        return self.tariffs[max(0, bisect_right(self.tariffs, at, key=lambda tariff: tariff[0]) - 1)][1]


class Lane:
    """Makes every so many-th chunk from a seed number, and writes it."""

    def __init__(self, shop: Shop, conn: Connection, lane: int, number: int) -> None:
        self.shop = shop
        self.conn = conn
        # The same each time, on the same database.
        self.chance = random.Random(f"{number}/{shop.first_package}/{lane}")  # noqa: S311 (a sample, not a secret)
        self.lane = lane
        self.sample = Sample(self.chance, shop.count, shop.first_package, shop.sites, shop.now)
        self._lines = itertools.count(shop.first_customer + lane, LANES)

    async def write(self, numbers: range) -> str:
        """Write these packages of the seed with all that belongs to them, in one transaction, and name that."""
        conn = self.conn
        async with conn.transaction():
            parcels = await self.shop.renumbered(conn, [self.sample.parcel(number) for number in numbers])
            parcels = await self._placed(parcels)
            await self._write_customers()
            await copy_rows(conn, COPY_PACKAGES, map(self._package_row, parcels))
            await copy_rows(conn, COPY_CONSENTS, map(self._consent_row, parcels))
            await copy_rows(conn, COPY_LOG, (row for parcel in parcels for row in self._log_rows(parcel)))
            gone = [parcel for parcel in parcels if parcel.received_at is not None and parcel.ended_at is not None]
            values: dict[str, Any] = {
                "package_ids": [parcel.package_id for parcel in gone],
                "methods": [self.chance.choice(METHODS) for _ in gone],
                "waived": [self.chance.random() < WAIVED for _ in gone],
                "staff_id": self.shop.staff_id,
            }
            await conn.execute(CHARGE_AND_PAY, values)
            row = await (await conn.execute("SELECT pg_current_xact_id()::text")).fetchone()
        return str(row[0]) if row else ""

    async def _placed(self, parcels: list[Parcel]) -> list[Parcel]:
        """Put what was received on the shelves; what finds no place has just been collected."""
        places: dict[str, str] = {}
        for site_id in self.shop.sites:
            received = [p.package_id for p in parcels if p.status == "RECEIVED" and p.site_id == site_id]
            values = {"site_id": site_id, "package_ids": received, "lanes": LANES, "lane": self.lane}
            places |= dict(await (await self.conn.execute(TAKE_POSITIONS, values)).fetchall())
        return [
            parcel
            if parcel.status != "RECEIVED"
            else replace(parcel, position_id=places[parcel.package_id])
            if parcel.package_id in places
            else replace(parcel, status="DELIVERED", ended_at=self.shop.now)
            for parcel in parcels
        ]

    async def _write_customers(self) -> None:
        rows: list[Sequence[str]] = []
        while len(rows) < len(self.sample.new_customers):
            lines = [phone(next(self._lines)) for _ in self.sample.new_customers[len(rows) :]]
            taken = await self.shop.taken(self.conn, TAKEN_PHONES, lines)
            free = [line for line in lines if line not in taken]
            rows += map(self._customer_row, self.sample.new_customers[len(rows) :], free)
        self.sample.new_customers = []
        await copy_rows(self.conn, COPY_CUSTOMERS, rows)

    def _customer_row(self, new: tuple[Customer, datetime], line: str) -> Sequence[str]:
        chance = self.chance
        customer, since = new
        place = (chance.choice(BUILDINGS), str(chance.randint(1, 9)), str(chance.randint(101, 1904)))
        return (customer.customer_id, customer.name, line, *place, since.isoformat())

    def _package_row(self, parcel: Parcel) -> Sequence[str]:
        chance = self.chance
        is_received = parcel.received_at is not None
        received_at = text(parcel.received_at)
        ended_at = text(parcel.ended_at)
        return (
            parcel.package_id,
            guide_number(parcel.carrier, parcel.number),
            f"{{LPN{parcel.number:010d}}}" if chance.random() < 1 / 4 else "{}",
            tracking_code(parcel.number),
            parcel.customer.customer_id,
            parcel.customer.name,
            parcel.site_id,
            parcel.carrier,
            TYPES[int(chance.random() * len(TYPES))] if is_received else NULL,
            CONDITIONS[int(chance.random() * len(CONDITIONS))] if is_received else NULL,
            parcel.status,
            parcel.position_id or NULL,
            self.shop.tariff(parcel.announced_at),
            chance.choice(REASONS) if parcel.status == "CANCELLED" else NULL,
            parcel.announced_at.isoformat(),
            received_at,
            ended_at if parcel.status == "DELIVERED" else NULL,
            ended_at if parcel.status == "CANCELLED" else NULL,
            str(1 + is_received + (parcel.ended_at is not None)),
        )

    def _consent_row(self, parcel: Parcel) -> Sequence[str]:
        return (parcel.customer.customer_id, parcel.package_id, POLICY_VERSION, "WEB", parcel.announced_at.isoformat())

    def _log_rows(self, parcel: Parcel) -> list[Sequence[str]]:
        """Tell the parcel's life; its customer is named once, with the announcement."""
        package_id, ended = parcel.package_id, parcel.status
        announced_at = parcel.announced_at.isoformat()
        rows = [
            (package_id, parcel.customer.customer_id, "PackageAnnounced", NULL, "1", after("ANNOUNCED"), announced_at)
        ]
        if parcel.received_at is not None:
            received_at = parcel.received_at.isoformat()
            rows.append((package_id, NULL, "PackageReceived", self.shop.staff_id, "2", after("RECEIVED"), received_at))
        if parcel.ended_at is not None:
            version, type_ = str(len(rows) + 1), f"Package{ended.title()}"
            rows.append(
                (package_id, NULL, type_, self.shop.staff_id, version, after(ended), parcel.ended_at.isoformat())
            )
        return list(rows)


async def copy_rows(conn: Connection, statement: str, rows: Iterable[Sequence[str]]) -> None:
    """Send rows of values that need no escape, as COPY's own text: many times as fast as value by value."""
    lines = "".join(["\t".join(row) + "\n" for row in rows])
    async with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        await copy.write(lines)


def text(at: datetime | None) -> str:
    """Write an instant, or none, for COPY."""
    return NULL if at is None else at.isoformat()


def after(status: str) -> str:
    """Write what a step's log row says of it."""
    return f'{{"after": {{"status": "{status}"}}}}'


class Pace:
    """Keeps each lane two chunks ahead of a running projector at most; with none at work, a rebuild comes after."""

    def __init__(self) -> None:
        self.is_kept = True

    async def keep(self, conn: Connection, xid: str) -> None:
        """Return once the transaction shows, or when it turns out that nobody is going to show it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while self.is_kept and xid:
            row = await (await conn.execute(IS_SHOWN, {"xid": xid})).fetchone()
            is_shown, is_projecting = row or (False, False)
            if is_shown:
                return
            self.is_kept = is_projecting and asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)


async def seed(
    settings: Settings, count: int, report: Report = lambda *_: None, *, number: int = 1, clock: Clock = system_clock
) -> bool:
    """Write `count` packages more, and tell whether a projector has shown them all; if not, a rebuild does so fastest.

    Raises ConfigurationError beside another seed.
    """
    async with await connect(settings.postgres_dsn, "seed") as conn:
        if not (await (await conn.execute(ONE_AT_A_TIME)).fetchone() or [False])[0]:
            raise ConfigurationError("Another seed is running")
        shop = Shop(conn, count, clock())
        async with conn.transaction():
            await shop.prepare()
        is_shown = await _write_packages(settings, shop, number, report)
        await conn.execute("ANALYZE")
    return is_shown


async def _write_packages(settings: Settings, shop: Shop, number: int, report: Report) -> bool:
    pace, count, written = Pace(), shop.count, 0
    report("writing packages", written, count)

    async def write(lane_number: int) -> None:
        nonlocal written
        async with await connect(settings.postgres_dsn, "seed") as conn:
            await conn.execute(SESSION)
            lane, before = Lane(shop, conn, lane_number, number), ""
            for start in range(lane_number * CHUNK, count, LANES * CHUNK):
                numbers = range(start, min(start + CHUNK, count))
                xid = await lane.write(numbers)
                written += len(numbers)
                report("writing packages", written, count)
                await pace.keep(conn, before)
                before = xid
            await pace.keep(conn, before)

    try:
        async with asyncio.TaskGroup() as lanes:
            for lane_number in range(LANES):
                lanes.create_task(write(lane_number))
    except* (psycopg.Error, OSError) as failures:
        raise failures.exceptions[0] from None
    return pace.is_kept
