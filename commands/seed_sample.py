"""What the sample is made of: customers, their parcels, and each parcel's life within the last year."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from commands.tracking_codes import ALPHABET

PACKAGES_PER_CUSTOMER = 6

FIRST_NAMES, LAST_NAMES = (
    line.split() for line in Path(__file__).with_name("seed_names.txt").read_text(encoding="utf-8").splitlines()
)
BUILDINGS = ("Torres del Parque", "Edificio El Peñón", "Conjunto Los Álamos", "Mirador de Suba", "Altos de Chicó")
MOBILE = (*range(300, 306), *range(310, 324))
"""Colombian prefixes that are in use."""

LINES = len(MOBILE) * 10**7
CARRIERS = ("Servientrega", "Interrapidísimo", "Coordinadora", "Envía", "DHL", "Amazon", "Mercado Libre")
METHODS = ("CASH", "CASH", "CASH", "NEQUI", "NEQUI", "TRANSFER", "DAVIPLATA")
CONDITIONS = ("GOOD",) * 17 + ("FAIR", "FAIR", "OPENED", "DAMAGED")
TYPES = ("NORMAL",) * 4 + ("EXTRA_SIZED",)
REASONS = ("CUSTOMER_REQUEST", "RETURNED_TO_CARRIER", "UNCLAIMED", "STAFF_ERROR", "OTHER")
STATUSES = ("ANNOUNCED", "RECEIVED", "CANCELLED", "DELIVERED")
RECEIVED = 0.05
UP_TO_SHARES = (0.02, 0.02 + RECEIVED, 0.05 + RECEIVED)
"""Where each status's share ends, the last one's at 1: 2 % announced, 3 % cancelled, 90 % delivered."""

LONGEST_STAY = 45
LONGEST_LIFE = LONGEST_STAY + 4
"""Days from the announcement to the end of what has left: three before it is received, and one to spare."""

KEPT_DAYS = 3
FORGOTTEN = 0.1
FORGOTTEN_DAYS = 30
"""How long parcels have stood on the shelf: most some days, a few for weeks, which shows them as overdue."""

CODES = len(ALPHABET) ** 8
SPREAD = 523_287_123_457
"""Has no divisor in common with the number of codes or of phones: n times it visits each of them once."""

GUIDES = {
    "Interrapidísimo": "2400{:08d}",
    "Coordinadora": "7-{:010d}",
    "Envía": "014{:09d}",
    "DHL": "JD{:012d}",
    "Amazon": "TBA{:012d}",
    "Mercado Libre": "MEL-{:08d}-FMX",
}


@dataclass(frozen=True, slots=True)
class Customer:
    """Whose parcels come again and again."""

    customer_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """One package with its whole life; the number makes its codes."""

    package_id: str
    number: int
    customer: Customer
    carrier: str
    status: str
    site_id: str
    position_id: str | None
    announced_at: datetime
    received_at: datetime | None
    ended_at: datetime | None


class Sample:
    """Makes parcels by chance, from a seed of one's own: the same each time, for the same numbers and sites."""

    def __init__(
        self, chance: random.Random, count: int, first_package: int, sites: Sequence[str], now: datetime
    ) -> None:
        self.chance = chance
        self.count = count
        self.first_package = first_package
        self.sites = sites
        self.now = now
        self.customers: list[Customer] = []
        self.new_customers: list[tuple[Customer, datetime]] = []

    def _customer(self, announced_at: datetime, part: float) -> Customer:
        chance = self.chance
        if self.customers and chance.random() > 1 / PACKAGES_PER_CUSTOMER:
            return self.customers[int(chance.random() * len(self.customers))]
        name = f"{chance.choice(FIRST_NAMES)} {chance.choice(LAST_NAMES)} {chance.choice(LAST_NAMES)}"
        # Before the parcel that brings them, and before any that they will have later in the year.
        since = min(announced_at, self.now - timedelta(days=360 * (1 - part) + LONGEST_LIFE))
        customer = Customer(uuid7(since, chance), name)
        self.customers.append(customer)
        self.new_customers.append((customer, since))
        return customer

    def parcel(self, number: int) -> Parcel:
        """Make the sample's parcel of that number, which nobody has put on a shelf yet."""
        chance = self.chance
        status = STATUSES[bisect_right(UP_TO_SHARES, chance.random())]
        announced_at, received_at, ended_at = self._instants(status, number / self.count)
        return Parcel(
            uuid7(announced_at, chance),
            self.first_package + number,
            self._customer(announced_at, number / self.count),
            CARRIERS[int(chance.random() * len(CARRIERS))],
            status,
            self.sites[int(chance.random() * len(self.sites))],
            None,
            announced_at,
            received_at,
            ended_at,
        )

    def _instants(self, status: str, part: float) -> tuple[datetime, datetime | None, datetime | None]:
        """Give when the parcel was announced, received, and left: the year goes by from the first to the last."""
        chance, now = self.chance, self.now
        if status == "ANNOUNCED":
            return now - timedelta(days=29 * chance.random()), None, None
        if status == "RECEIVED":
            # Most are collected within days; a few stay for weeks and show as overdue.
            mean = FORGOTTEN_DAYS if chance.random() < FORGOTTEN else KEPT_DAYS
            received_at = now - timedelta(days=min(chance.expovariate(1 / mean), 70))
            return received_at - timedelta(hours=72 * chance.random()), received_at, None
        ended_at = now - timedelta(days=min(360 * (1 - part) + chance.random(), 360))
        if status == "CANCELLED" and chance.random() < 1 / 2:
            return ended_at - timedelta(days=29 * chance.random()), None, ended_at
        received_at = ended_at - timedelta(days=min(chance.expovariate(1 / 1.5), LONGEST_STAY))
        return received_at - timedelta(hours=72 * chance.random()), received_at, ended_at


def uuid7(at: datetime, chance: random.Random) -> str:
    """Make an id that sorts by its instant, as PostgreSQL's uuidv7() does."""
    bits = chance.getrandbits(74)
    return f"{int(at.timestamp() * 1000):012x}7{bits >> 62:03x}{2 << 62 | bits & (1 << 62) - 1:016x}"


def phone(number: int) -> str:
    """Give each number a mobile phone of its own."""
    line = number * SPREAD % LINES
    return f"+57{MOBILE[line // 10**7]}{line % 10**7:07d}"


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
    shape = GUIDES.get(carrier, "21{:08d}")
    return shape.format(number)


def guide_key(parcel: Parcel) -> str:
    """Give the guide as two of them are compared."""
    return guide_number(parcel.carrier, parcel.number).replace("-", "")
