"""Money as the summary reads it: append-only, like its source."""

import uuid
from collections.abc import Collection

from db.pools import Connection

INSERT = """
INSERT INTO payment_listing (
    payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal)
SELECT payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal
FROM payment_listing_source WHERE package_id = ANY(%(package_ids)s)
ON CONFLICT (payment_id) DO NOTHING
"""


async def project(conn: Connection, package_ids: Collection[uuid.UUID]) -> None:
    """Add what these packages have had paid, or paid back."""
    await conn.execute(INSERT, {"package_ids": list(package_ids)})
