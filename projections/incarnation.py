"""Notice that the database was restored, and begin another life: transaction ids of the old one mean nothing any more.

A dump comes into another cluster, whose system identifier differs; a restore to a point in time, and the promotion of a
standby that may have missed something, go on in the same cluster on another timeline.
"""

import secrets
from datetime import datetime

from db.pools import Connection
from infra import logs

log = logs.get("incarnation")

READ_IDENTITY = """
SELECT c.life, c.system_identifier, c.timeline, s.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8)
FROM projection_checkpoint AS c, pg_control_system() AS s WHERE c.name = 'listing'
"""

RECORD = """
UPDATE projection_checkpoint SET system_identifier = %(system_identifier)s, timeline = %(timeline)s
WHERE name = 'listing'
"""

# What writers put into the log from now on. The lock that this takes waits for all who have written in the old life.
NEXT_LIFE = "SELECT begin_change_log_life(%(life)s)"

FORGET_UNFINISHED = ("DELETE FROM unfinished_changes", "DELETE FROM parked_changes")

RENEW = """
UPDATE projection_checkpoint SET life = %(life)s, incarnation = %(incarnation)s, snapshot = pg_current_snapshot(),
    unread_from = pg_snapshot_xmin(pg_current_snapshot()), batch = batch + 1, at = %(now)s, needs_rebuild = true,
    system_identifier = %(system_identifier)s, timeline = %(timeline)s
WHERE name = 'listing'
"""

NEEDS_REBUILD = "SELECT needs_rebuild FROM projection_checkpoint WHERE name = 'listing'"


async def renew_if_restored(conn: Connection, now: datetime) -> bool:
    """Begin another life if this isn't the cluster and the timeline that the checkpoint speaks of; tell whether.

    `conn` must be in READ COMMITTED: the new snapshot is taken after the last writer of the old life has ended.
    """
    row = await (await conn.execute(READ_IDENTITY)).fetchone()
    if row is None:
        return False
    life, old_system, old_timeline, system, timeline = row
    here = {"system_identifier": system, "timeline": timeline}
    if (old_system, old_timeline) == (system, timeline):
        return False
    if old_system is None:
        await conn.execute(RECORD, here)
        return False
    async with conn.transaction():
        await conn.execute("SET LOCAL lock_timeout = '5s'")
        await conn.execute(NEXT_LIFE, {"life": life + 1})
        for statement in FORGET_UNFINISHED:
            await conn.execute(statement.encode())
        await conn.execute(RENEW, here | {"life": life + 1, "incarnation": secrets.token_hex(16), "now": now})
    log.warning("restored", old=f"{old_system}/{old_timeline}", new=f"{system}/{timeline}", life=life + 1)
    return True


async def needs_rebuild(conn: Connection) -> bool:
    """Tell whether the read models are still those of an earlier life."""
    row = await (await conn.execute(NEEDS_REBUILD)).fetchone()
    return row is not None and bool(row[0])
