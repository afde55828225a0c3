"""Which scopes' pages a batch changes; see `db.page_cache` for what a generation is."""

import uuid
from collections.abc import Collection, Iterable

from db.pools import Connection
from projections.package_listing import Moved

RAISE = """
INSERT INTO page_generations (scope, batch)
SELECT scope, %(batch)s FROM unnest(%(scopes)s::text[]) AS scope
ON CONFLICT (scope) DO UPDATE SET batch = excluded.batch
"""


def scopes_of(moved: Iterable[Moved], customer_ids: Collection[uuid.UUID]) -> set[str]:
    """Name the scopes whose pages can show what has moved, from where it left and where it came to."""
    scopes = {f"customer:{customer_id}" for customer_id in customer_ids}
    if customer_ids:
        scopes.add("customers")
    for row in moved:
        scopes.add("all")
        if row.status is not None:
            scopes |= {f"status:{row.status}", f"customer:{row.customer_id}"}
        if row.old_status is not None:
            scopes |= {f"status:{row.old_status}", f"customer:{row.old_customer_id}"}
    return scopes


async def project(conn: Connection, scopes: Collection[str], batch: int) -> None:
    """Give the scopes this batch as their generation."""
    await conn.execute(RAISE, {"scopes": list(scopes), "batch": batch})
