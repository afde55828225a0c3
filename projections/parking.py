"""A key whose rows can't be derived is put aside with the reason, so that it holds up no other."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg

from db.pools import Connection

Kind = Literal["package", "customer"]

POISON = ("21", "22", "23", "54", "P0")
"""Classes of SQLSTATE that speak of the data: trying again changes nothing, as it would after a lost connection."""

LOOK_EVERY = 0.05
"""Seconds between looks whether a retry is done."""

# Parked since the first time, for the last reason.
PARK = """
INSERT INTO parked_changes (kind, key, xid, reason, at)
SELECT %(kind)s, key, %(xid)s::text::xid8, reason, %(at)s
FROM unnest(%(keys)s::uuid[], %(reasons)s::text[]) AS parked (key, reason)
ON CONFLICT (kind, key, xid) DO UPDATE SET reason = excluded.reason
"""

UNPARK = "DELETE FROM parked_changes WHERE kind = %(kind)s AND key = ANY(%(keys)s)"

LIST = """
SELECT kind, key, (array_agg(reason ORDER BY xid DESC))[1], min(at), count(*)
FROM parked_changes GROUP BY kind, key ORDER BY min(at), key
"""

# From one table to the other in one transaction: their changes are unfinished before, meanwhile and afterwards.
RETRY = """
WITH tried AS (DELETE FROM parked_changes RETURNING kind, key, xid)
INSERT INTO unfinished_changes (xid, part, package_ids, customer_ids)
SELECT xid, coalesce((SELECT max(u.part) FROM unfinished_changes AS u WHERE u.xid = t.xid), 0) + 1,
       coalesce(array_agg(key) FILTER (WHERE kind = 'package'), '{}'),
       coalesce(array_agg(key) FILTER (WHERE kind = 'customer'), '{}')
FROM tried AS t GROUP BY xid
"""


@dataclass(frozen=True, slots=True)
class Parked:
    """A key that is put aside: why, since when, and how many changes of it are waiting."""

    kind: Kind
    key: uuid.UUID
    reason: str
    since: datetime
    changes: int


def is_poison(error: psycopg.Error) -> bool:
    """Tell whether the data is at fault, and not the connection, a lock or the server."""
    return (error.sqlstate or "")[:2] in POISON


def reason_of(error: psycopg.Error) -> str:
    """Give the first line of what the database said."""
    return str(error).strip().partition("\n")[0]


async def park(conn: Connection, kind: Kind, reasons: Mapping[uuid.UUID, str], xid: int, at: datetime) -> None:
    """Put these keys aside, each for its reason, as named by transaction `xid` (0: by none that is known)."""
    values = {"kind": kind, "keys": list(reasons), "reasons": list(reasons.values()), "xid": str(xid), "at": at}
    await conn.execute(PARK, values)


async def unpark(conn: Connection, kind: Kind, keys: Collection[uuid.UUID]) -> None:
    """Forget that these keys were put aside: their rows are derived."""
    await conn.execute(UNPARK, {"kind": kind, "keys": list(keys)})


async def derive_healthy(
    conn: Connection, keys: Sequence[uuid.UUID], derive: Callable[[Sequence[uuid.UUID]], Awaitable[object]]
) -> dict[uuid.UUID, str]:
    """Call `derive` with all keys but those that fail, found by halving in savepoints; give these with the reasons."""
    try:
        async with conn.transaction():
            await derive(keys)
    except psycopg.Error as error:
        if not is_poison(error):
            raise
        if len(keys) == 1:
            return {keys[0]: reason_of(error)}
        half = len(keys) // 2
        return await derive_healthy(conn, keys[:half], derive) | await derive_healthy(conn, keys[half:], derive)
    return {}


async def list_parked(conn: Connection) -> list[Parked]:
    """Give every parked key once, the one that waits longest first."""
    return [Parked(*row) for row in await (await conn.execute(LIST)).fetchall()]


async def retry(conn: Connection) -> None:
    """Let the projector try everything that is parked again: as parts that are still to be done."""
    await conn.execute(RETRY)


async def retry_and_wait(conn: Connection, seconds: float) -> bool:
    """Let the projector try everything again, and tell whether it has within so many seconds."""
    await retry(conn)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await _is_unfinished(conn):  # noqa: ASYNC110 (the projector is another process)
                await asyncio.sleep(LOOK_EVERY)
            return True
    return False


async def _is_unfinished(conn: Connection) -> bool:
    row = await (await conn.execute("SELECT EXISTS (SELECT FROM unfinished_changes)")).fetchone()
    return row is not None and bool(row[0])
