"""The change log: one row for every accepted command, written in its transaction, and the signal that there is one."""

import asyncio
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from db.pools import Connection, connect
from infra import logs

log = logs.get("change_log")

CHANNEL = "paqueteria_changes"
"""Whoever projects listens here. Sent after the commit: inside the transaction NOTIFY serialises commits."""

ANSWERED_WITHIN = 5.0
"""Seconds without an answer after which the connection is taken for lost: it can be dead without a word."""

COMMIT, SIGNAL = "COMMIT", f"NOTIFY {CHANNEL}"
"""Sent as one, and two transactions all the same: the first is over before the second begins."""

PAUSE = 0.003
"""Seconds between two signals at least; a burst of commands wakes the projector once."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one command changed. Personal values stand in `person` alone, which an erasure may empty later."""

    type: str
    at: datetime
    package_id: uuid.UUID | None = None
    customer_id: uuid.UUID | None = None
    actor: uuid.UUID | None = None
    version: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    person: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None


APPEND = """
INSERT INTO change_log (package_id, customer_id, type, actor, version, data, request_id, at)
SELECT package_id, customer_id, type, actor, version, data, request_id, at
FROM jsonb_to_recordset(%(changes)s) AS change (package_id uuid, customer_id uuid, type text, actor uuid,
    version integer, data jsonb, request_id text, at timestamptz)
"""

# A partition a month, from that of `first`; one that is there already is left alone.
ADD_MONTHS = """
SELECT add_change_log_month(
    (date_trunc('month', %(first)s::timestamptz AT TIME ZONE 'UTC') + n * interval '1 month')::date)
FROM generate_series(0, %(months)s) AS n
"""

MONTHS_AHEAD = 3


def rows(changes: Iterable[Change]) -> Jsonb:
    """Give the changes as APPEND takes them, for it and for statements that it is a part of."""
    return Jsonb(
        [
            {
                "package_id": change.package_id and str(change.package_id),
                "customer_id": change.customer_id and str(change.customer_id),
                "type": change.type,
                "actor": change.actor and str(change.actor),
                "version": change.version,
                "data": change.data | ({"person": change.person} if change.person else {}),
                "request_id": change.request_id,
                "at": change.at.isoformat(),
            }
            for change in changes
        ]
    )


async def append(conn: Connection, *changes: Change) -> None:
    """Write the changes into the log, in the caller's transaction."""
    await conn.execute(APPEND, {"changes": rows(changes)})


async def add_months(conn: Connection, first: datetime, months: int = MONTHS_AHEAD) -> None:
    """Make the log's partitions of the month of `first` and of so many after it, where there are none."""
    await conn.execute("SELECT set_config('lock_timeout', '2s', false)")
    await conn.execute(ADD_MONTHS, {"first": first, "months": months})


class ChangeSignal:
    """Wakes the projector after commits, at most once in PAUSE seconds, from a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pending = asyncio.Event()
        self._sent_at = -PAUSE

    async def commit(self, conn: Connection, last: str | None = None) -> TupleRow | None:
        """Commit, and signal: right behind it where nobody has for a while, else a moment later.

        `last` is a statement that goes along ahead of the commit; its row is given.
        """
        now = time.monotonic()
        is_due = now - self._sent_at >= PAUSE
        if is_due:
            self._sent_at = now
        sent = "; ".join([*([last] if last else []), COMMIT, *([SIGNAL] if is_due else [])])
        cursor = await conn.execute(sent.encode(), prepare=False)
        if not is_due:
            self.send()
        return await cursor.fetchone() if last else None

    def send(self) -> None:
        """Ask for a signal; returns at once. A signal that gets lost costs one poll of the projector."""
        self._pending.set()

    async def run(self) -> None:
        """Send what is asked for, until cancelled."""
        while True:
            try:
                async with await connect(self._dsn, "signal") as conn:
                    while True:
                        await self._pending.wait()
                        self._pending.clear()
                        self._sent_at = time.monotonic()
                        async with asyncio.timeout(ANSWERED_WITHIN):
                            await conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
                        await asyncio.sleep(PAUSE)
            except (psycopg.Error, TimeoutError) as error:
                log.warning("signal_connection_lost", error=logs.reason(error))
                await asyncio.sleep(0.5)
