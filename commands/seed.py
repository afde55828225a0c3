"""Believable parcels of the last year, in all states, for demonstrations and measurements: written by COPY."""

import json
import random
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from db.pools import Connection, connect
from infra.clock import Clock, system_clock
from infra.settings import Settings

Report = Callable[[str, int, int], None]

CHUNK = 2000
"""Packages in one transaction: small enough for a running projector to take in between other people's changes."""

PACKAGES_PER_CUSTOMER = 6
PACKAGES_PER_SITE = 200_000
OCCUPIED = 0.9
"""The share of positions that is taken where parcels were seeded, at the most."""

FIRST_NAMES, LAST_NAMES = (
    line.split() for line in Path(__file__).with_name("seed_names.txt").read_text(encoding="utf-8").splitlines()
)
BUILDINGS = ("Torres del Parque", "Edificio El Peñón", "Conjunto Los Álamos", "Mirador de Suba", "Altos de Chicó")
CARRIERS = ("Servientrega", "Interrapidísimo", "Coordinadora", "Envía", "DHL", "Amazon", "Mercado Libre")
METHODS = ("CASH", "CASH", "CASH", "NEQUI", "NEQUI", "TRANSFER", "DAVIPLATA")
CONDITIONS = ("GOOD",) * 17 + ("FAIR", "FAIR", "OPENED", "DAMAGED")
REASONS = ("CUSTOMER_REQUEST", "RETURNED_TO_CARRIER", "UNCLAIMED", "STAFF_ERROR", "OTHER")
STATUSES = ("ANNOUNCED", "RECEIVED", "CANCELLED", "DELIVERED")
SHARES = (0.02, 0.05, 0.03, 0.90)
WAIVED = 0.01
"""Of deliveries: those whose storage nobody charged."""

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
CODES = len(ALPHABET) ** 8
SPREAD = 523_287_123_457
"""Has no divisor in common with the number of codes or of phones: n times it visits each of them once."""

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

FREE_POSITIONS = """
SELECT position_id FROM positions WHERE site_id = %(site_id)s AND package_id IS NULL ORDER BY ordinal
"""

ADD_POSITIONS = """
INSERT INTO positions (site_id, code, ordinal)
SELECT %(site_id)s, chr(65 + (n / 6500) %% 26) || chr(65 + n / 250 %% 26) || '-' || lpad((n %% 250 + 1)::text, 3, '0'),
       (SELECT max(ordinal) FROM positions WHERE site_id = %(site_id)s) + n + 1
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""

TAKE_POSITIONS = """
UPDATE positions AS p SET package_id = t.package_id
FROM unnest(%(position_ids)s::uuid[], %(package_ids)s::uuid[]) AS t (position_id, package_id)
WHERE p.position_id = t.position_id
"""

# The fee's one rule prices the seeded parcels too.
CHARGE = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, staff_id, at)
SELECT p.package_id, l.base_fee, fee.storage_days, fee.storage_fee, fee.total,
       CASE p.status WHEN 'DELIVERED' THEN fee.total ELSE 0 END, %(staff_id)s, coalesce(p.delivered_at, p.cancelled_at)
FROM packages AS p
JOIN tariffs AS t USING (tariff_id)
CROSS JOIN LATERAL (SELECT base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized)) AS l (base_fee)
CROSS JOIN LATERAL package_fee(
    l.base_fee, t.daily_storage, p.received_at, coalesce(p.delivered_at, p.cancelled_at)) AS fee
WHERE p.package_id = ANY(%(package_ids)s) AND p.received_at IS NOT NULL AND p.status IN ('DELIVERED', 'CANCELLED')
"""

PAY = """
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, staff_id, at)
SELECT p.package_id, p.site_id, t.method, CASE WHEN t.is_waived THEN c.base_fee ELSE c.due END, c.due,
       CASE WHEN t.is_waived AND c.storage_fee > 0 THEN 'Cliente frecuente' END, %(staff_id)s, p.delivered_at
FROM unnest(%(package_ids)s::uuid[], %(methods)s::text[], %(waived)s::boolean[]) AS t (package_id, method, is_waived)
JOIN packages AS p ON p.package_id = t.package_id
JOIN charges AS c ON c.package_id = p.package_id
"""

COPY_CUSTOMERS = "COPY customers (customer_id, name, phone, building, tower, apartment, created_at) FROM STDIN"

COPY_PACKAGES = """
COPY packages (package_id, guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id, carrier,
    package_type, condition, status, position_id, tariff_id, cancellation_reason, announced_at, received_at,
    delivered_at, cancelled_at, version) FROM STDIN
"""

COPY_CONSENTS = "COPY consents (customer_id, package_id, policy_version, channel, at) FROM STDIN"

COPY_LOG = "COPY change_log (package_id, customer_id, type, actor, version, data, at) FROM STDIN"


@dataclass(frozen=True, slots=True)
class Customer:
    """Whose parcels come again and again."""

    customer_id: uuid.UUID
    name: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """One package with its whole life."""

    package_id: uuid.UUID
    number: int
    customer: Customer
    status: str
    site_id: uuid.UUID
    position_id: uuid.UUID | None
    announced_at: datetime
    received_at: datetime | None
    ended_at: datetime | None


class Seeder:
    """Makes rows from a seed number; numbers continue where the database's own stop, so that nothing meets twice."""

    def __init__(self, conn: Connection, count: int, now: datetime, number: int) -> None:
        self.conn = conn
        self.count = count
        self.now = now
        self.number = number
        self.chance = random.Random()  # noqa: S311 (a sample, not a secret)
        self.customers: list[Customer] = []
        self.shelves: list[list[uuid.UUID]] = []
        self.sites: list[uuid.UUID] = []
        self.staff_id = uuid.UUID(int=0)
        self.tariffs: list[tuple[datetime, uuid.UUID]] = []
        self.next_package = 0
        self.next_customer = 0
        self.written_customers = 0

    async def prepare(self) -> None:
        """Make the seed's staff, sites and positions, and see what is there already."""
        self.staff_id = await self._one(STAFF)
        self.next_package = await self._one("SELECT count(*) FROM packages")
        self.next_customer = await self._one("SELECT count(*) FROM customers")
        self.chance.seed(f"{self.number}/{self.next_package}")  # the same each time, on the same database
        rows = await self.conn.execute("SELECT valid_from, tariff_id FROM tariffs ORDER BY valid_from")
        self.tariffs = [(row[0], row[1]) for row in await rows.fetchall()]
        sites = 1 + (self.count - 1) // PACKAGES_PER_SITE
        for number in range(sites):
            self.sites.append(await self._site(number))
            self.shelves.append(await self._shelf(self.sites[number], 1 + int(self.count * SHARES[1] / sites * 1.2)))

    async def _one(self, statement: str, values: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        row = await (await self.conn.execute(statement.encode(), values)).fetchone()
        return row[0] if row else None

    async def _site(self, number: int) -> uuid.UUID:
        code = "PRINCIPAL" if number == 0 else f"SEDE-{number + 1}"
        address = f"Calle {10 + 7 * number} # {5 + number}-20, Bogotá"
        values = {"code": code, "name": f"Sede {number + 1}", "address": address, "hours": "Lun-Sáb 8:00-19:00"}
        site_id: uuid.UUID = await self._one(SITE, values)
        return site_id

    async def _shelf(self, site_id: uuid.UUID, parcels: int) -> list[uuid.UUID]:
        """Give free positions for that many parcels, with some to spare; what the site lacks is added."""
        wanted = int(parcels / OCCUPIED) + 10
        free = await (await self.conn.execute(FREE_POSITIONS, {"site_id": site_id})).fetchall()
        if len(free) < wanted:
            added = "SELECT count(*) FROM positions WHERE site_id = %(site_id)s AND code LIKE '__-___'"
            first = await self._one(added, {"site_id": site_id})
            values = {"site_id": site_id, "first": first, "last": first + wanted - len(free) - 1}
            await self.conn.execute(ADD_POSITIONS, values)
            free = await (await self.conn.execute(FREE_POSITIONS, {"site_id": site_id})).fetchall()
        return [position_id for (position_id,) in free][:parcels][::-1]

    async def write(self, size: int) -> None:
        """Write that many packages, with all that belongs to them, in the caller's transaction."""
        parcels = [self._parcel() for _ in range(size)]
        await self._write_customers()
        standing = [parcel for parcel in parcels if parcel.position_id is not None]
        values = {
            "position_ids": [parcel.position_id for parcel in standing],
            "package_ids": [parcel.package_id for parcel in standing],
        }
        await self.conn.execute(TAKE_POSITIONS, values)
        await self._copy(COPY_PACKAGES, (self._package_row(parcel) for parcel in parcels))
        await self._copy(COPY_CONSENTS, (self._consent_row(parcel) for parcel in parcels))
        await self._copy(COPY_LOG, (row for parcel in parcels for row in self._log_rows(parcel)))
        ids = [parcel.package_id for parcel in parcels]
        await self.conn.execute(CHARGE, {"package_ids": ids, "staff_id": self.staff_id})
        delivered = [parcel.package_id for parcel in parcels if parcel.status == "DELIVERED"]
        payments = {
            "package_ids": delivered,
            "methods": [self.chance.choice(METHODS) for _ in delivered],
            "waived": [self.chance.random() < WAIVED for _ in delivered],
            "staff_id": self.staff_id,
        }
        await self.conn.execute(PAY, payments)

    async def _copy(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        async with self.conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                await copy.write_row(row)

    def _parcel(self) -> Parcel:
        chance = self.chance
        status = chance.choices(STATUSES, SHARES)[0]
        site = chance.randrange(len(self.sites))
        if status == "RECEIVED" and not self.shelves[site]:
            status = "DELIVERED"  # more came by chance than the shelf was made for
        announced_at, received_at, ended_at = self._instants(status)
        number, self.next_package = self.next_package, self.next_package + 1
        return Parcel(
            uuid7(announced_at, chance),
            number,
            self._customer(),
            status,
            self.sites[site],
            self.shelves[site].pop() if status == "RECEIVED" else None,
            announced_at,
            received_at,
            ended_at,
        )

    def _instants(self, status: str) -> tuple[datetime, datetime | None, datetime | None]:
        """Give when the parcel was announced, received, and left; nothing lies in the future."""
        chance = self.chance
        if status == "ANNOUNCED":
            return self.now - timedelta(days=chance.uniform(0, 29)), None, None
        if status == "RECEIVED":
            # Most are collected within days; a few stay for weeks and show as overdue.
            received_at = self.now - timedelta(days=min(chance.expovariate(1 / 4), 70))
            return received_at - timedelta(hours=chance.uniform(0, 72)), received_at, None
        ended_at = self.now - timedelta(days=chance.uniform(0, 360))
        if status == "CANCELLED" and chance.random() < 1 / 2:
            return ended_at - timedelta(days=chance.uniform(0, 29)), None, ended_at
        received_at = ended_at - timedelta(days=min(chance.expovariate(1 / 1.5), 45))
        return received_at - timedelta(hours=chance.uniform(0, 72)), received_at, ended_at

    def _customer(self) -> Customer:
        if self.customers and self.chance.random() > 1 / PACKAGES_PER_CUSTOMER:
            return self.chance.choice(self.customers)
        names = (self.chance.choice(FIRST_NAMES), self.chance.choice(LAST_NAMES), self.chance.choice(LAST_NAMES))
        customer = Customer(uuid7(self.now - timedelta(days=365), self.chance), " ".join(names))
        self.customers.append(customer)
        return customer

    async def _write_customers(self) -> None:
        new = self.customers[self.written_customers :]
        self.written_customers = len(self.customers)
        await self._copy(COPY_CUSTOMERS, (self._customer_row(customer) for customer in new))

    def _customer_row(self, customer: Customer) -> Sequence[Any]:
        number, self.next_customer = self.next_customer, self.next_customer + 1
        line = number * SPREAD % (20 * 10**7)
        phone = f"+573{line // 10**7:02d}{line % 10**7:07d}"
        place = (self.chance.choice(BUILDINGS), str(self.chance.randint(1, 9)), str(self.chance.randint(101, 1904)))
        return (customer.customer_id, customer.name, phone, *place, self.now - timedelta(days=365))

    def _package_row(self, parcel: Parcel) -> Sequence[Any]:
        chance = self.chance
        is_received = parcel.received_at is not None
        carrier = chance.choice(CARRIERS)
        return (
            parcel.package_id,
            guide_number(carrier, parcel.number),
            [f"LPN{parcel.number:010d}"] if chance.random() < 1 / 4 else [],
            tracking_code(parcel.number),
            parcel.customer.customer_id,
            parcel.customer.name,
            parcel.site_id,
            carrier,
            chance.choices(("NORMAL", "EXTRA_SIZED"), (4, 1))[0] if is_received else None,
            chance.choice(CONDITIONS) if is_received else None,
            parcel.status,
            parcel.position_id,
            self._tariff(parcel.announced_at),
            chance.choice(REASONS) if parcel.status == "CANCELLED" else None,
            parcel.announced_at,
            parcel.received_at,
            parcel.ended_at if parcel.status == "DELIVERED" else None,
            parcel.ended_at if parcel.status == "CANCELLED" else None,
            1 + is_received + (parcel.ended_at is not None),
        )

    def _tariff(self, at: datetime) -> uuid.UUID:
        return self.tariffs[max(0, bisect_right(self.tariffs, at, key=lambda tariff: tariff[0]) - 1)][1]

    def _consent_row(self, parcel: Parcel) -> Sequence[Any]:
        return (parcel.customer.customer_id, parcel.package_id, "2026-11", "WEB", parcel.announced_at)

    def _log_rows(self, parcel: Parcel) -> list[Sequence[Any]]:
        """Tell the parcel's life; its customer is named once, with the announcement."""
        steps: list[tuple[str, datetime, str, uuid.UUID | None, uuid.UUID | None]] = [
            ("PackageAnnounced", parcel.announced_at, "ANNOUNCED", None, parcel.customer.customer_id)
        ]
        if parcel.received_at is not None:
            steps.append(("PackageReceived", parcel.received_at, "RECEIVED", self.staff_id, None))
        if parcel.ended_at is not None:
            type_ = f"Package{parcel.status.title()}"
            steps.append((type_, parcel.ended_at, parcel.status, self.staff_id, None))
        return [
            (parcel.package_id, customer_id, type_, actor, version, json.dumps({"after": {"status": status}}), at)
            for version, (type_, at, status, actor, customer_id) in enumerate(steps, 1)
        ]


def uuid7(at: datetime, chance: random.Random) -> uuid.UUID:
    """Make an id that sorts by its instant, as PostgreSQL's uuidv7() does."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62))


def tracking_code(number: int) -> str:
    """Give each number a code of its own, scattered over all there are."""
    rest = number * SPREAD % CODES
    letters = []
    for _ in range(8):
        rest, letter = divmod(rest, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters)


def guide_number(carrier: str, number: int) -> str:
    """Write a waybill in the shape of its carrier, each number once."""
    shapes = {
        "Interrapidísimo": f"2400{number:08d}",
        "Coordinadora": f"7-{number:010d}",
        "Envía": f"014{number:09d}",
        "DHL": f"JD{number:012d}",
        "Amazon": f"TBA{number:012d}",
        "Mercado Libre": f"MEL-{number:08d}-FMX",
    }
    return shapes.get(carrier, f"21{number:08d}")


async def seed(
    settings: Settings, count: int, report: Report = lambda *_: None, *, number: int = 1, clock: Clock = system_clock
) -> None:
    """Write `count` packages more; the projector takes them in chunk by chunk, or a rebuild all at once."""
    async with await connect(settings.postgres_dsn, "seed") as conn:
        seeder = Seeder(conn, count, clock(), number)
        async with conn.transaction():
            await seeder.prepare()
        for done in range(0, count, CHUNK):
            report("writing packages", done, count)
            async with conn.transaction():
                await seeder.write(min(CHUNK, count - done))
        report("writing packages", count, count)
        await conn.execute("ANALYZE")
