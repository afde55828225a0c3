"""What each batch changed, for those who follow along by server-sent events; kept for an hour."""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from db.pools import Connection

KEPT = timedelta(hours=1)

INSERT = """
INSERT INTO batch_changes (batch, packages, at)
SELECT %(batch)s, jsonb_agg(jsonb_build_object('package_id', package_id, 'status', status, 'version', version)), %(at)s
FROM package_listing WHERE package_id = ANY(%(package_ids)s)
HAVING count(*) > 0
"""


async def project(conn: Connection, package_ids: Collection[uuid.UUID], batch: int, at: datetime) -> None:
    """Note the batch's packages as they now are."""
    await conn.execute(INSERT, {"package_ids": list(package_ids), "batch": batch, "at": at})


async def forget_batch_changes(conn: Connection, now: datetime) -> None:
    """Drop what nobody will resume from any more."""
    await conn.execute("DELETE FROM batch_changes WHERE at < %(until)s", {"until": now - KEPT})
