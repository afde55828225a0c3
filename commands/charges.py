"""What a parcel cost when it left: computed by the server, by the one rule, and frozen."""

import uuid
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from commands.transaction import Context
from db.pools import Connection

PRICE = """
SELECT l.base_fee, fee.storage_days, fee.storage_fee, fee.total
FROM package_listing_source AS l
CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, %(now)s) AS fee
WHERE l.package_id = %(package_id)s
"""

FREEZE = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, staff_id, at)
VALUES (%(package_id)s, %(base_fee)s, %(storage_days)s, %(storage_fee)s, %(total)s, %(due)s, %(staff_id)s, %(now)s)
"""

REVERSE = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, reverses, staff_id, at)
SELECT package_id, -base_fee, -storage_days, -storage_fee, -total, -due, charge_id, %(staff_id)s, %(now)s
FROM charges AS c
WHERE package_id = %(package_id)s AND reverses IS NULL
  AND NOT EXISTS (SELECT FROM charges AS r WHERE r.reverses = c.charge_id)
"""


@dataclass(frozen=True, slots=True)
class Price:
    """What a parcel in storage costs at an instant, in pesos."""

    base_fee: int
    storage_days: int
    storage_fee: int
    total: int


async def price(conn: Connection, package_id: uuid.UUID, context: Context) -> Price:
    """Price a parcel in storage at the command's instant."""
    async with conn.cursor(row_factory=class_row(Price)) as cursor:
        priced = await (await cursor.execute(PRICE, {"package_id": package_id, "now": context.now})).fetchone()
    if priced is None:
        raise LookupError(package_id)
    return priced


def charge(package_id: uuid.UUID, priced: Price, context: Context, *, due: int) -> dict[str, Any]:
    """Give what FREEZE writes as the parcel leaves; `due` is 0 where nobody pays it, as for a cancelled one."""
    return {
        "package_id": package_id,
        "base_fee": priced.base_fee,
        "storage_days": priced.storage_days,
        "storage_fee": priced.storage_fee,
        "total": priced.total,
        "due": due,
        "staff_id": context.staff_id,
        "now": context.now,
    }


async def reverse(conn: Connection, package_id: uuid.UUID, context: Context) -> None:
    """Take back the charge that stands, by a row of the opposite sign."""
    values = {"package_id": package_id, "staff_id": context.staff_id, "now": context.now}
    await conn.execute(REVERSE, values)
