"""The customers, with the words they are found by; a row is written only when it changes, since their index is dear."""

import uuid
from collections.abc import Collection

from db.pools import Connection

UPSERT = """
INSERT INTO customer_listing (
    customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text)
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text
FROM customer_listing_source AS s
WHERE customer_id = ANY(%(customer_ids)s)
  AND NOT EXISTS (
    SELECT FROM customer_listing AS l WHERE l.customer_id = s.customer_id
    AND (l.version, l.name, l.phone, l.email, l.document, l.building, l.tower, l.apartment, l.notes, l.text)
        IS NOT DISTINCT FROM
        (s.version, s.name, s.phone, s.email, s.document, s.building, s.tower, s.apartment, s.notes, s.text))
ON CONFLICT (customer_id) DO UPDATE SET
    version = excluded.version, name = excluded.name, phone = excluded.phone, email = excluded.email,
    document = excluded.document, building = excluded.building, tower = excluded.tower,
    apartment = excluded.apartment, notes = excluded.notes, text = excluded.text
RETURNING customer_id
"""


async def project(conn: Connection, customer_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Derive these customers' rows again, and tell which of them changed."""
    rows = await conn.execute(UPSERT, {"customer_ids": list(customer_ids)})
    return {customer_id for (customer_id,) in await rows.fetchall()}
