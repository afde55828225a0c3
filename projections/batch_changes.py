"""What each batch changed, for those who follow along by server-sent events; kept for an hour."""

from datetime import datetime, timedelta

from db.pools import Connection

KEPT = timedelta(hours=1)

# The packages as they now are: the members of an array of JSON, as text.
PACKAGES = """
SELECT string_agg(jsonb_build_object('package_id', package_id, 'status', status, 'version', version)::text, ',')
FROM moved WHERE status IS NOT NULL
"""

NOTED = """
noted AS (
    INSERT INTO batch_changes (batch, packages, at)
    SELECT %(batch)s, %(packages)s::jsonb, %(at)s WHERE %(packages)s::jsonb <> '[]')
"""


async def forget_batch_changes(conn: Connection, now: datetime) -> None:
    """Drop what nobody will resume from any more."""
    await conn.execute("DELETE FROM batch_changes WHERE at < %(until)s", {"until": now - KEPT})
