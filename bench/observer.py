"""An observer of the read models, who knows nothing of the projector but what it commits and announces."""

import contextlib
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from db.consistency import CHANNEL, READ_CHECKPOINT, Checkpoint
from db.pools import Connection, connect
from infra.settings import Settings
from infra.tasks import running

COMMITTED = """
SELECT xid::text::bigint, extract(epoch FROM pg_xact_commit_timestamp(xid::xid))::float8
FROM change_log WHERE xid >= %(since)s::text::xid8 AND type <> ALL(%(without)s) GROUP BY xid
"""

POLL = 0.05
"""Seconds between looks when nothing is announced."""


@dataclass(slots=True)
class Observer:
    """Notes each checkpoint, and the instant by which it could be read."""

    since: int
    seen: list[tuple[float, Checkpoint]] = field(default_factory=list)

    async def watch(self, conn: Connection) -> None:
        """Look whenever a batch is announced, as a waiting reader does."""
        await conn.execute(f"LISTEN {CHANNEL}".encode())
        while True:
            row = await (await conn.execute(READ_CHECKPOINT)).fetchone()
            if row is not None and (not self.seen or self.seen[-1][1].snapshot != row[2]):
                self.seen.append((time.time(), Checkpoint(*row)))
            async for _ in conn.notifies(timeout=POLL, stop_after=1):
                pass

    def visible_at(self, xid: int) -> float | None:
        """Tell when a change could first be seen; once shown, a change stays so."""
        index = bisect_left(self.seen, True, key=lambda seen: seen[1].shows(xid))  # noqa: FBT003
        return self.seen[index][0] if index < len(self.seen) else None

    async def delays(self, settings: Settings, without: tuple[str, ...] = ()) -> dict[int, float]:
        """Give each change's milliseconds from its commit, as the server noted it, until it could be seen.

        The commit's instant is from before its flush to disk, and the observer has been told and has looked: what
        is given is too much rather than too little. `without` leaves out types of changes.
        """
        async with await connect(settings.postgres_dsn, "bench") as conn:
            rows = await conn.execute(COMMITTED, {"since": str(self.since), "without": list(without)})
            committed: dict[int, float] = dict(await rows.fetchall())
        visible = {xid: self.visible_at(xid) for xid in committed}
        return {xid: (at - committed[xid]) * 1000 for xid, at in visible.items() if at is not None}


@contextlib.asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Observer]:
    """Observe while the block lasts."""
    async with await connect(settings.postgres_dsn, "observer") as conn:
        row = await (await conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")).fetchone()
        observer = Observer(row[0] if row else 0)
        async with running(observer.watch(conn)):
            yield observer
