"""What each batch changed, for those who follow along by server-sent events; kept for an hour."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from db.pools import Connection

KEPT = timedelta(hours=1)

# The packages as they now are, as text: it is stored as such, and quicker to write than by a function of JSON. Nothing
# in it needs escaping. A batch that is derived piece by piece, for keys that can't be, notes each piece.
NOTED = """
noted AS (
    INSERT INTO batch_changes AS b (batch, packages, at)
    SELECT %(batch)s::bigint, ('[' || packages || ']')::json, %(at)s::timestamptz
    FROM (SELECT string_agg('{"status": "' || status || '", "version": ' || version || ', "package_id": "' || package_id
                            || '"}', ', ')
          FROM moved WHERE status IS NOT NULL) AS m (packages)
    WHERE %(batch)s::bigint IS NOT NULL AND packages IS NOT NULL
    ON CONFLICT (batch) DO UPDATE SET packages = (b.packages::jsonb || excluded.packages::jsonb)::json)
"""


@dataclass(frozen=True, slots=True)
class Noted:
    """For which batch its changes are noted, and its time."""

    batch: int
    at: datetime


async def forget_batch_changes(conn: Connection, now: datetime) -> None:
    """Drop what nobody will resume from any more."""
    await conn.execute("DELETE FROM batch_changes WHERE at < %(until)s", {"until": now - KEPT})
