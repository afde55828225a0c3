"""The listing: one row a package, derived again from the normalized tables whenever a change names the package."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from db.pools import Connection

UPSERT = """
INSERT INTO package_listing AS l (
    package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site, position,
    carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone, observations,
    cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee, daily_storage, storage_days,
    storage_fee, total, paid)
SELECT
    package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site, position,
    carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone, observations,
    cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee, daily_storage, storage_days,
    storage_fee, total, paid
FROM package_listing_source WHERE package_id = ANY(%(package_ids)s)
ON CONFLICT (package_id) DO UPDATE SET
    version = excluded.version, tracking_code = excluded.tracking_code, guide_number = excluded.guide_number,
    guide_key = excluded.guide_key, other_codes = excluded.other_codes, other_code_keys = excluded.other_code_keys,
    status = excluded.status, site = excluded.site, position = excluded.position, carrier = excluded.carrier,
    package_type = excluded.package_type, condition = excluded.condition, recipient_name = excluded.recipient_name,
    customer_id = excluded.customer_id, customer_name = excluded.customer_name,
    customer_phone = excluded.customer_phone, observations = excluded.observations,
    cancellation_reason = excluded.cancellation_reason, announced_at = excluded.announced_at,
    received_at = excluded.received_at, delivered_at = excluded.delivered_at, cancelled_at = excluded.cancelled_at,
    base_fee = excluded.base_fee, daily_storage = excluded.daily_storage, storage_days = excluded.storage_days,
    storage_fee = excluded.storage_fee, total = excluded.total, paid = excluded.paid
RETURNING OLD.site, OLD.status, OLD.customer_id, NEW.site, NEW.status, NEW.customer_id, NEW.package_id, NEW.version
"""

DELETE = """
DELETE FROM package_listing WHERE package_id = ANY(%(package_ids)s)
RETURNING site, status, customer_id, NULL, NULL, NULL, package_id, NULL
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a row stood before (None for a new one) and where it stands now (None for one that is gone)."""

    old_site: str | None
    old_status: str | None
    old_customer_id: uuid.UUID | None
    site: str | None
    status: str | None
    customer_id: uuid.UUID | None
    package_id: uuid.UUID
    version: int | None


async def project(conn: Connection, package_ids: Collection[uuid.UUID]) -> list[Moved]:
    """Derive these packages' rows again and tell how each moved."""
    rows = await (await conn.execute(UPSERT, {"package_ids": list(package_ids)})).fetchall()
    moved = [Moved(*row) for row in rows]
    if gone := set(package_ids) - {row.package_id for row in moved}:  # no command deletes, but a hand may have
        rows = await (await conn.execute(DELETE, {"package_ids": list(gone)})).fetchall()
        moved += [Moved(*row) for row in rows]
    return moved
