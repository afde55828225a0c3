"""Keys by which machines sign in: made and revoked from the command line, shown once, kept as a digest."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from commands.transaction import Context
from db import change_log
from db.pools import Connection
from infra.auth import Role, api_key_digest, new_api_key
from infra.errors import Conflict, NotFound

ADD = """
INSERT INTO api_keys (staff_id, role, digest, created_at)
SELECT staff_id, %(role)s, %(digest)s, %(now)s FROM staff WHERE username = %(username)s AND active
RETURNING key_id, staff_id
"""

REVOKE = """
UPDATE api_keys SET revoked_at = %(now)s WHERE key_id = %(key_id)s AND revoked_at IS NULL RETURNING staff_id
"""

LIST = """
SELECT k.key_id, s.username, k.role, k.created_at, k.revoked_at
FROM api_keys AS k JOIN staff AS s USING (staff_id) ORDER BY k.created_at, k.key_id
"""


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A key as far as it can be told."""

    key_id: uuid.UUID
    username: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


async def add_api_key(conn: Connection, context: Context, username: str, role: Role) -> tuple[uuid.UUID, str]:
    """Make a key of this person's, with this role's rights at most; gives its id, and the key, which nobody can again.

    Nobody active of that name is NotFound.
    """
    key = new_api_key()
    values = {"username": username.lower(), "role": role, "digest": api_key_digest(key), "now": context.now}
    row = await (await conn.execute(ADD, values)).fetchone()
    if row is None:
        raise NotFound(f"Nobody active is called {username}")
    data = {"after": {"staff_id": str(row[1]), "key_id": str(row[0]), "role": role}}
    await change_log.append(conn, context.change("ApiKeyAdded", data=data))
    return row[0], key


async def revoke_api_key(conn: Connection, context: Context, key_id: uuid.UUID) -> None:
    """End a key at once, in every process; one that isn't there or has ended before is Conflict."""
    row = await (await conn.execute(REVOKE, {"key_id": key_id, "now": context.now})).fetchone()
    if row is None:
        raise Conflict(f"There is no key {key_id} in force")
    data = {"before": {"staff_id": str(row[0]), "key_id": str(key_id)}}
    await change_log.append(conn, context.change("ApiKeyRevoked", data=data))


async def list_api_keys(conn: Connection) -> list[ApiKeyRecord]:
    """Give every key that there ever was."""
    async with conn.cursor(row_factory=class_row(ApiKeyRecord)) as cursor:
        return await (await cursor.execute(LIST)).fetchall()
