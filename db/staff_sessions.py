"""Who a session belongs to: asked once, and remembered for as long as a change of staff would be heard of at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from db.consistency import CheckpointWatcher
from db.pools import Pool
from infra.auth import ApiKey, Credential, Identity, Role
from infra.clock import Clock
from infra.http import AWAY

FIND_SESSION = """
SELECT staff_id, username, full_name, role FROM staff_sessions
WHERE staff_id = %(staff_id)s AND session_generation = %(generation)s
"""

FIND_API_KEY = "SELECT staff_id, username, full_name, role FROM api_key_holders WHERE digest = %(digest)s"

MOST_REMEMBERED = 10_000

LAST_KNOWN_FOR = timedelta(minutes=5)
"""With the database away nobody can be looked up; who was known so recently may still read what is marked as stale."""


def _lookup(session: Credential) -> tuple[str, dict[str, Any]]:
    if isinstance(session, ApiKey):
        return FIND_API_KEY, {"digest": session.digest}
    return FIND_SESSION, {"staff_id": session.staff_id, "generation": session.generation}


@dataclass(frozen=True, slots=True)
class Remembered:
    """Who it was, and when the database said so."""

    identity: Identity
    at: datetime


class StaffSessions:
    """Remembers who callers are. What is asked of the primary is right until the watcher hears of a change of staff."""

    def __init__(self, pool: Pool, watcher: CheckpointWatcher, clock: Clock) -> None:
        self._pool = pool
        self._watcher = watcher
        self._clock = clock
        self._remembered: dict[Credential, Remembered] = {}
        self._heard = 0

    async def _identify(self, session: Credential) -> Identity | None:
        """Look the person up; None when the session was ended or the person dismissed."""
        async with self._pool.connection(self._watcher.patience) as conn:
            row = await (await conn.execute(*_lookup(session))).fetchone()
        return Identity(row[0], row[1], row[2], Role(row[3])) if row else None

    async def recognise(self, session: Credential) -> Identity | None:
        """Give the person of a session, from memory where that is as good as asking."""
        known = self._known().get(session)
        if known is not None and self._watcher.is_hearing:
            return known.identity
        changes = self._watcher.staff_changes
        try:
            identity = await self._identify(session)
        except AWAY:
            if (known := self._known().get(session)) and self._clock() - known.at <= LAST_KNOWN_FOR:
                return known.identity
            raise
        if identity is not None and changes == self._watcher.staff_changes:
            self._remember(session, identity)
        return identity

    def remembers(self, session: Credential) -> bool:
        """Tell whether nothing that was heard since the session was looked up can have changed whose it is."""
        return session in self._known()

    def _known(self) -> dict[Credential, Remembered]:
        if self._heard != self._watcher.staff_changes:
            self._remembered.clear()
            self._heard = self._watcher.staff_changes
        return self._remembered

    def _remember(self, session: Credential, identity: Identity) -> None:
        known = self._known()
        if len(known) >= MOST_REMEMBERED:
            del known[next(iter(known))]
        known[session] = Remembered(identity, self._clock())
