"""A key whose rows can't be derived is put aside with the reason, so that it holds up no other."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

import psycopg

from db.pools import Connection

Kind = Literal["package", "customer"]

Id = str | uuid.UUID
"""A key, as the database writes it or as Python does."""

SomeId = TypeVar("SomeId", str, uuid.UUID)

POISON = ("21", "22", "23", "54", "P0")
"""Classes of SQLSTATE that speak of the data: trying again changes nothing, as it would after a lost connection."""

LOOK_EVERY = 0.05
"""Seconds between looks whether a retry is done."""

MOST_FOUND = 1000
"""Poison keys at a time; where there are more, it is the source that is wrong, and nothing is put aside."""

# Parked since the first time, for the last reason.
PARK = """
INSERT INTO parked_changes (kind, key, xid, reason, at)
SELECT %(kind)s, key, %(xid)s::text::xid8, reason, %(at)s
FROM unnest(%(keys)s::uuid[], %(reasons)s::text[]) AS parked (key, reason)
ON CONFLICT (kind, key, xid) DO UPDATE SET reason = excluded.reason
"""

UNPARK = "DELETE FROM parked_changes WHERE kind = %(kind)s AND key = ANY(%(keys)s::uuid[])"

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


# The newest change of this life that named the key; a customer's are found by the log's indexes, as their own or their
# packages'.
NEWEST_CHANGE: dict[Kind, str] = {
    "package": """
SELECT coalesce((
    SELECT xid::text::bigint FROM change_log
    WHERE package_id = %(key)s AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
    ORDER BY position DESC LIMIT 1), 0)
""",
    "customer": """
SELECT coalesce(max(xid::text::bigint), 0) FROM (
    SELECT xid, life FROM change_log WHERE customer_id = %(key)s AND package_id IS NULL
    UNION ALL
    SELECT g.xid, g.life FROM packages AS p JOIN change_log AS g ON g.package_id = p.package_id
    WHERE p.customer_id = %(key)s AND g.customer_id = %(key)s) AS named
WHERE life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
""",
}


def is_poison(error: psycopg.Error) -> bool:
    """Tell whether the data is at fault, and not the connection, a lock or the server."""
    return (error.sqlstate or "")[:2] in POISON


def reason_of(error: psycopg.Error) -> str:
    """Give the first line of what the database said."""
    return str(error).strip().partition("\n")[0]


async def park(conn: Connection, kind: Kind, reasons: Mapping[SomeId, str], xid: int, at: datetime) -> None:
    """Put these keys aside, each for its reason, as named by transaction `xid` (0: by none that is known)."""
    values = {"kind": kind, "keys": list(reasons), "reasons": list(reasons.values()), "xid": str(xid), "at": at}
    await conn.execute(PARK, values)


async def newest_change(conn: Connection, kind: Kind, key: uuid.UUID) -> int:
    """Give the transaction that named the key last, which stands for all of it that isn't shown; 0 if none did."""
    row = await (await conn.execute(NEWEST_CHANGE[kind].encode(), {"key": key})).fetchone()
    return int(row[0]) if row else 0


async def unpark(conn: Connection, kind: Kind, keys: Collection[Id]) -> None:
    """Forget that these keys were put aside: their rows are derived."""
    await conn.execute(UNPARK, {"kind": kind, "keys": list(keys)})


async def derive_healthy(
    conn: Connection, keys: Sequence[SomeId], derive: Callable[[Sequence[SomeId]], Awaitable[object]]
) -> dict[SomeId, str]:
    """Call `derive` with all keys but those that fail, found by halving in savepoints; give these with the reasons."""
    found: dict[SomeId, str] = {}
    waiting = [keys]
    while waiting:
        part = waiting.pop()
        try:
            async with conn.transaction():
                await derive(part)
        except psycopg.Error as error:
            if not is_poison(error) or len(found) >= MOST_FOUND:
                raise
            if len(part) == 1:
                found[part[0]] = reason_of(error)
            else:
                waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
    return found


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
