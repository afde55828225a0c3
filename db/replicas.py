"""Where queries are read: on the standbys in turn, and on the primary whenever none of them will do.

What a standby shows is told by its checkpoint row, which is replicated like any other. Its own snapshot says nothing:
it calls transactions visible that are still open on the primary.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from db.consistency import READ_CHECKPOINT, Checkpoint, CheckpointWatcher
from db.pools import Pool, connect, make_pool
from infra import logs
from infra.http import AWAY
from infra.settings import Settings

log = logs.get("replicas")

EVERY = 0.25
"""Seconds between two looks at a standby's checkpoint."""

SILENCE = 1.0
"""Seconds without an answer after which nobody is sent to a standby, though nobody has closed the connection."""

LATE = 1.0
"""Seconds that a standby may be behind what the primary shows before nobody is sent there."""

PATIENCE = 0.25
"""Seconds that a query waits for a connection to a standby."""

ANSWERED_WITHIN = 5.0
"""Seconds that a query on a standby may take; what takes longer is asked of the primary."""

Row = tuple[Any, ...]


class Replica:
    """A standby: a pool of connections to it, and what it showed a moment ago."""

    def __init__(self, dsn: str, settings: Settings, number: int) -> None:
        self._dsn = dsn
        self.name = f"replica {number}"
        self.pool = make_pool(dsn, settings, self.name)
        self.checkpoint: Checkpoint | None = None

    async def follow(self) -> None:
        """Look at its checkpoint again and again, until cancelled; None is for one that doesn't answer."""
        while True:
            try:
                async with await connect(self._dsn, "replica's checkpoint") as conn:
                    while True:
                        async with asyncio.timeout(SILENCE):
                            row = await (await conn.execute(READ_CHECKPOINT)).fetchone()
                        self.checkpoint = Checkpoint(*row) if row else None
                        await asyncio.sleep(EVERY)
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("replica_away", replica=self.name, error=logs.told(error))
                self.checkpoint = None
                await asyncio.sleep(EVERY)

    async def fetch(self, statement: str, binds: dict[str, Any], *, prepare: bool | None) -> Row | None:
        """Give the statement's row, or None: the standby is away, or cancelled the query for what it had to replay."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN), self.pool.connection(PATIENCE) as conn:
                return await (await conn.execute(statement, binds, prepare=prepare)).fetchone()
        except (*AWAY, TimeoutError) as error:
            log.info("replica_passed_over", replica=self.name, error=logs.told(error))
            return None


class Readers:
    """Takes each query to whoever can answer it."""

    def __init__(self, primary: Pool, replicas: Sequence[Replica], watcher: CheckpointWatcher) -> None:
        self._primary = primary
        self.replicas = replicas
        self._watcher = watcher
        self._turns = itertools.count()
        self._shown: deque[tuple[float, Checkpoint]] = deque()

    async def fetch(
        self, statement: str, binds: dict[str, Any], is_good: Callable[[Row], bool], *, prepare: bool | None
    ) -> Row | None:
        """Give the row of a standby that `is_good`, else the primary's, whatever it is."""
        for replica in self._in_turn():
            row = await replica.fetch(statement, binds, prepare=prepare)
            if row is not None and is_good(row):
                return row
        async with self._primary.connection(self._watcher.patience) as conn:
            return await (await conn.execute(statement, binds, prepare=prepare)).fetchone()

    def _in_turn(self) -> Iterator[Replica]:
        """Go through the standbys that keep up, each query beginning with the next."""
        if not self.replicas:
            return
        expected = self._expected()
        first = next(self._turns) % len(self.replicas)
        for replica in (*self.replicas[first:], *self.replicas[:first]):
            if _keeps_up(replica.checkpoint, expected):
                yield replica

    def _expected(self) -> Checkpoint | None:
        """Give what the primary showed LATE seconds ago; the primary away, what is known of it."""
        now = time.monotonic()
        current = self._watcher.current
        if current is not None and (not self._shown or self._shown[-1][1] != current):
            self._shown.append((now, current))
        while len(self._shown) > 1 and self._shown[1][0] <= now - LATE:
            self._shown.popleft()
        return self._shown[0][1] if self._shown and self._shown[0][0] <= now - LATE else None


def _keeps_up(shown: Checkpoint | None, expected: Checkpoint | None) -> bool:
    if shown is None:
        return False
    return expected is None or (shown.incarnation == expected.incarnation and shown.batch >= expected.batch)
