"""How the scheduled jobs went, for whoever leads next and for whoever looks."""

from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from db.pools import Connection

NOTE = """
INSERT INTO scheduled_runs (job, ran_at, took, outcome, found)
VALUES (%(job)s, %(ran_at)s, %(took)s, %(outcome)s, %(found)s)
ON CONFLICT (job) DO UPDATE SET ran_at = excluded.ran_at, took = excluded.took, outcome = excluded.outcome,
    found = excluded.found
"""

FIND = """
SELECT job, ran_at, extract(epoch FROM took)::float8 AS took_seconds, outcome, found FROM scheduled_runs ORDER BY job
"""

RESTS = """
SELECT EXISTS (SELECT FROM scheduled_runs WHERE job = %(job)s AND outcome = 'done' AND ran_at > %(since)s)
"""


async def note(conn: Connection, job: str, ran_at: datetime, seconds: float, outcome: str, found: object) -> None:
    """Remember a job's last run: `done` or `failed`, and what it found."""
    values: dict[str, Any] = {"job": job, "ran_at": ran_at, "took": timedelta(seconds=seconds), "outcome": outcome}
    await conn.execute(NOTE, values | {"found": None if found is None else Jsonb(found)})


async def rests(conn: Connection, job: str, seconds: float, now: datetime) -> bool:
    """Tell whether a job was done within so many seconds, by whoever led then."""
    row = await (await conn.execute(RESTS, {"job": job, "since": now - timedelta(seconds=seconds)})).fetchone()
    return bool(row and row[0])
