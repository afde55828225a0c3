"""What each batch changed, for those who follow along by server-sent events; kept for an hour."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from db.pools import Connection
from projections.package_listing import Moved

KEPT = timedelta(hours=1)

INSERT = "INSERT INTO batch_changes (batch, packages, at) VALUES (%(batch)s, %(packages)s, %(at)s)"


async def project(conn: Connection, moved: Iterable[Moved], batch: int, at: datetime) -> None:
    """Note the batch's packages as they now are."""
    packages = [
        {"package_id": str(row.package_id), "status": row.status, "version": row.version}
        for row in moved
        if row.status is not None
    ]
    if packages:
        await conn.execute(INSERT, {"packages": Jsonb(packages), "batch": batch, "at": at})


async def forget_batch_changes(conn: Connection, now: datetime) -> None:
    """Drop what nobody will resume from any more."""
    await conn.execute("DELETE FROM batch_changes WHERE at < %(until)s", {"until": now - KEPT})
