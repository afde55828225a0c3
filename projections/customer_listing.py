"""The customers, with the words they are found by."""

import uuid
from collections.abc import Collection

from db.pools import Connection

UPSERT = """
INSERT INTO customer_listing AS l (
    customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text)
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text
FROM customer_listing_source WHERE customer_id = ANY(%(customer_ids)s)
ON CONFLICT (customer_id) DO UPDATE SET
    version = excluded.version, name = excluded.name, phone = excluded.phone, email = excluded.email,
    document = excluded.document, building = excluded.building, tower = excluded.tower,
    apartment = excluded.apartment, notes = excluded.notes, text = excluded.text
WHERE l.version <> excluded.version
"""


async def project(conn: Connection, customer_ids: Collection[uuid.UUID]) -> None:
    """Derive these customers' rows again; one whose version stands is left alone."""
    await conn.execute(UPSERT, {"customer_ids": list(customer_ids)})
