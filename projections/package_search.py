"""The words a package is found by; a row is written only when its words change, since their index is dear."""

import uuid
from collections.abc import Collection

from db.pools import Connection

UPSERT = """
INSERT INTO package_search (package_id, announced_at, text)
SELECT package_id, announced_at, text FROM package_search_source AS s
WHERE package_id = ANY(%(package_ids)s)
  AND NOT EXISTS (SELECT FROM package_search AS l WHERE l.package_id = s.package_id AND l.text = s.text)
ON CONFLICT (package_id) DO UPDATE SET text = excluded.text
"""

DELETE = "DELETE FROM package_search WHERE package_id = ANY(%(package_ids)s)"


async def project(conn: Connection, package_ids: Collection[uuid.UUID]) -> None:
    """Derive these packages' words again."""
    await conn.execute(UPSERT, {"package_ids": list(package_ids)})


async def forget(conn: Connection, package_ids: Collection[uuid.UUID]) -> None:
    """Drop the words of packages that are gone."""
    await conn.execute(DELETE, {"package_ids": list(package_ids)})
