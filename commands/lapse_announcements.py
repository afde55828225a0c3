"""Lapse announcements: those that nobody brought a parcel for in 30 days are cancelled, by the schedule."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from commands.packages import ANNOUNCEMENT_LASTS
from commands.transaction import CHUNK, Context, in_chunks
from db import change_log
from db.pools import Connection

FIND = """
SELECT package_id FROM packages
WHERE status = 'ANNOUNCED' AND announced_at < %(before)s
ORDER BY announced_at LIMIT %(chunk)s FOR NO KEY UPDATE SKIP LOCKED
"""

EXPIRE = """
UPDATE packages SET status = 'CANCELLED', cancelled_at = %(now)s, cancellation_reason = 'EXPIRED',
    version = version + 1
WHERE package_id = ANY(%(package_ids)s)
RETURNING package_id, version
"""


async def expire(conn: Connection, context: Context, package_ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, int]:
    """Cancel announcements that are locked already, and give their new versions."""
    if not package_ids:
        return {}
    rows = await conn.execute(EXPIRE, {"package_ids": list(package_ids), "now": context.now})
    versions: dict[uuid.UUID, int] = dict(await rows.fetchall())
    data = {"before": {"status": "ANNOUNCED"}, "after": {"status": "CANCELLED", "reason": "EXPIRED"}}
    changes = (
        context.change("PackageCancelled", package_id=package_id, version=version, data=data)
        for package_id, version in versions.items()
    )
    await change_log.append(conn, *changes)
    return versions


async def lapse_announcements(conn: Connection, now: datetime) -> int:
    """Cancel what has lapsed, in bounded transactions of the connection's own, and say how many."""

    async def chunk(conn: Connection) -> int:
        wanted = {"before": now - ANNOUNCEMENT_LASTS, "chunk": CHUNK}
        found = [package_id for (package_id,) in await (await conn.execute(FIND, wanted)).fetchall()]
        await expire(conn, Context(now), found)
        return len(found)

    return await in_chunks(conn, chunk)
