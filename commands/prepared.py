"""Statements that are sent along with a transaction's begin or its commit, so that they cost no way of their own.

What goes along with another statement can't bind values, and would be planned each time: each connection of the
commands prepares these once, and their values are of types that need no quoting.
"""

import uuid
import weakref
from dataclasses import dataclass
from datetime import datetime

from db.package_document import PACKAGE_DOCUMENT, PRICED
from db.pools import Connection
from infra.auth import ApiKey, Caller

BEGIN = """
BEGIN;
SELECT incarnation, pg_current_xact_id()::text::bigint, {role} FROM projection_checkpoint WHERE name = 'listing'
"""
"""Gives what a Consistency-Token names, and whether the session still holds."""

BEGIN_FOR_ANYONE = BEGIN.format(role="NULL")

STAMP = BEGIN.removeprefix("\nBEGIN;\n")

PREPARE = f"""
PREPARE stamp_for_session (uuid, integer) AS {
    STAMP.format(role="(SELECT role FROM staff_sessions WHERE staff_id = $1 AND session_generation = $2)")
};
PREPARE stamp_for_key (bytea) AS {STAMP.format(role="(SELECT role FROM api_key_holders WHERE digest = $1)")};
PREPARE package (uuid, timestamptz) AS
SELECT {PACKAGE_DOCUMENT}::text FROM package_listing_source AS l {PRICED.replace("%(now)s", "$2")}
WHERE l.package_id = $1
"""

LAST = "SELECT FROM pg_prepared_statements WHERE name = 'package'"

_prepared: weakref.WeakSet[Connection] = weakref.WeakSet()


async def prepare(conn: Connection) -> None:
    """Prepare them on a connection that hasn't them; one that has only some of them afterwards is closed."""
    if conn in _prepared:
        return
    if not (await conn.execute(LAST)).rowcount:
        try:
            await conn.execute(PREPARE.encode(), prepare=False)
        except BaseException:
            await conn.close()
            raise
    _prepared.add(conn)


def forget(conn: Connection) -> None:
    """Know that something is rolled back here, after which the driver may drop all that is prepared on a connection."""
    _prepared.discard(conn)


def begin(caller: Caller | None) -> str:
    """Begin, and look the caller up again: who let them in may remember a session that has just been ended."""
    if caller is None:
        return BEGIN_FOR_ANYONE
    session = caller.verified.session
    if isinstance(session, ApiKey):
        return rf"BEGIN; EXECUTE stamp_for_key ('\x{session.digest.hex()}')"
    return f"BEGIN; EXECUTE stamp_for_session ('{session.staff_id}', {session.generation:d})"


@dataclass(frozen=True, slots=True)
class Shown:
    """A package as the listing shows it at an instant, once the command has done with it."""

    package_id: uuid.UUID
    at: datetime

    def statement(self) -> str:
        """Give what reads it, as JSON text."""
        return f"EXECUTE package ('{self.package_id}', '{self.at.isoformat()}')"
