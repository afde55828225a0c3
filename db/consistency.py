"""Read your own writes: tokens that name a change or a batch, and the wait until the read models hold it.

A command's token names its transaction, a query's the batch it saw. Both also name the incarnation, since transaction
ids and snapshots mean nothing in another life of the cluster.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import psycopg
from itsdangerous import BadSignature, Signer

from db.pools import Connection, connect
from infra import logs
from infra.errors import Malformed, Unavailable
from infra.keys import oldest_first

log = logs.get("consistency")

HEADER = "Consistency-Token"

CHANNEL = "paqueteria_batches"
"""The projector announces each batch here, after its commit."""

STAFF_CHANNEL = "paqueteria_staff"
"""A trigger announces here, with the commit, that what is known of somebody on the staff may be no longer so."""

POLL = 0.1
"""Seconds between looks at the checkpoint when no announcement comes: a lost one costs this much."""

SILENCE = 2.0
"""Seconds without an answer after which the watcher's connection is given up, though nobody has closed it."""

HEARING = 1.0
"""Seconds since the last answered look within which we are sure to have been told of what was announced before it."""

AWAY_PATIENCE = 0.05
"""Seconds that others wait for a connection of theirs while the watcher has lost its own."""

READ_CHECKPOINT = "SELECT incarnation, batch, snapshot::text FROM projection_checkpoint WHERE name = 'listing'"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the read models stand: every transaction that `snapshot` shows is in them."""

    incarnation: str
    batch: int
    snapshot: str

    def shows(self, xid: int) -> bool:
        """Tell what pg_visible_in_snapshot() tells, without asking the database."""
        xmin, xmax, running = self.snapshot.split(":")
        if xid < int(xmin):
            return True
        return xid < int(xmax) and str(xid) not in running.split(",")


@dataclass(frozen=True, slots=True)
class Token:
    """A change to be seen: transaction `xid` of a command, or `batch` of a query."""

    incarnation: str
    xid: int | None = None
    batch: int | None = None

    def held_by(self, checkpoint: Checkpoint) -> bool:
        """Tell whether read models at this checkpoint include the change; another incarnation is Malformed."""
        if self.incarnation != checkpoint.incarnation:
            raise Malformed(f"The {HEADER} is from before the database was restored")
        if self.xid is not None:
            return checkpoint.shows(self.xid)
        return self.batch is not None and checkpoint.batch >= self.batch

    def is_met_by(self, checkpoint: Checkpoint) -> bool:
        """Tell the same of what a cache remembers: upon another life's token nothing of it is good enough."""
        return self.incarnation == checkpoint.incarnation and self.held_by(checkpoint)


class _Signer(Signer):
    """Derives the keys once, and not again for each signature."""

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        """Give the key that a secret comes to."""
        if secret_key not in self._derived:
            self._derived[secret_key] = super().derive_key(secret_key)
        return self._derived[secret_key]

    @functools.cached_property
    def _derived(self) -> dict[str | bytes | None, bytes]:
        return {}


class TokenSigner:
    """Writes and reads tokens; a reader can't make one up, nor learn more from it than that it is one."""

    def __init__(self, key: str) -> None:
        self._signer = _Signer(oldest_first(key), salt="consistency-token")

    def sign(self, token: Token) -> str:
        """Write a token for a header."""
        number = f"x{token.xid}" if token.xid is not None else f"b{token.batch}"
        return self._signer.sign(f"{token.incarnation}.{number}").decode()

    def read(self, text: str) -> Token:
        """Read a header's token; one that isn't ours raises Malformed."""
        try:
            incarnation, number = self._signer.unsign(text).decode().split(".")
        except (BadSignature, ValueError):
            raise Malformed(f"The {HEADER} is not one of ours") from None
        if number.startswith("x"):
            return Token(incarnation, xid=int(number[1:]))
        return Token(incarnation, batch=int(number[1:]))


class CheckpointWatcher:
    """Follows the primary's checkpoint on a connection of its own, and wakes those who wait for it.

    The same connection hears of changes of staff: `staff_changes` counts them, and each time that one may have been
    missed. An answered look proves that every announcement from before it has been heard.

    Where nothing is read from the read models, a look each POLL is enough, and one for each batch would cost as much as
    a command's own statement: there it doesn't `hears_batches`.
    """

    def __init__(self, dsn: str, *, hears_batches: bool = True) -> None:
        self._dsn = dsn
        self._channels = [*([CHANNEL] if hears_batches else []), STAFF_CHANNEL]
        self._moved = asyncio.Condition()
        self._current: Checkpoint | None = None
        self.staff_changes = 0
        self.heard_until = 0.0
        self.is_away = False

    @property
    def current(self) -> Checkpoint | None:
        """The last checkpoint seen; None before the first look, and while the database is away."""
        return self._current

    @property
    def is_hearing(self) -> bool:
        """Tell whether what was announced a moment ago would be known by now."""
        return time.monotonic() < self.heard_until

    @property
    def patience(self) -> float | None:
        """How many seconds to wait for a connection; None is as long as a pool is set to."""
        return AWAY_PATIENCE if self.is_away else None

    async def run(self) -> None:
        """Listen and poll until cancelled; a dead connection is replaced."""
        while True:
            try:
                async with await connect(self._dsn, "checkpoint") as conn:
                    for channel in self._channels:
                        await conn.execute(f"LISTEN {channel}".encode())
                    self.staff_changes += 1
                    while True:
                        await self._look(conn)
                        await self._hear(conn, POLL)
            except (psycopg.Error, TimeoutError) as error:
                log.warning("checkpoint_connection_lost", error=logs.reason(error))
                self._current, self.is_away = None, True
                await asyncio.sleep(0.5)

    async def _hear(self, conn: Connection, seconds: float) -> None:
        async for notice in conn.notifies(timeout=seconds, stop_after=1):
            if notice.channel == STAFF_CHANNEL:
                self.staff_changes += 1

    async def _look(self, conn: Connection) -> None:
        asked_at = time.monotonic()
        async with asyncio.timeout(SILENCE):
            row = await (await conn.execute(READ_CHECKPOINT)).fetchone()
        await self._hear(conn, 0)  # what came along with the answer
        self.heard_until, self.is_away = asked_at + HEARING, False
        checkpoint = Checkpoint(*row) if row else None
        if checkpoint != self._current:
            async with self._moved:
                self._current = checkpoint
                self._moved.notify_all()

    async def wait_for(self, token: Token, seconds: float) -> None:
        """Return once the checkpoint holds the token; after `seconds` it is Unavailable, never silently older."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self._current is not None and token.held_by(self._current))
                return
        raise Unavailable("The listing doesn't include that change yet")

    async def batches(self) -> AsyncGenerator[Checkpoint, None]:
        """Yield each checkpoint as it moves on, the present one first; several moves may come as one."""
        last: Checkpoint | None = None
        while True:
            async with self._moved:
                while self._current is None or self._current == last:
                    await self._moved.wait()
                last = self._current
            yield last
