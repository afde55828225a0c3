"""Change a member of staff: name, role, password, or whether they may sign in at all."""

import uuid
from typing import Any

from fastapi import Response
from psycopg.rows import class_row
from pydantic import ConfigDict, Field

from commands.add_staff import Password
from commands.patches import UNSET, Patch, before_and_after
from commands.transaction import OK, Context, Outcome, TheVersionedTransaction
from db import change_log
from db.documents import RoleName, StaffMember
from db.pools import Connection
from infra.auth import Role, allow, hash_password
from infra.errors import Conflict, NotFound
from infra.fields import Name
from infra.http import problems
from infra.routing import router

routes = router("staff")


class ChangeStaff(Patch):
    """What is to change; a new password, another role and a dismissal end the person's sessions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"full_name": "Camila Rojas Díaz"}]})

    full_name: Name = UNSET
    role: RoleName = UNSET
    password: Password = Field(default=UNSET, repr=False)
    active: bool = UNSET


# All of them, in one order, by everybody who might take one away: two admins who demote each other meet here.
LOCK_ADMINS = "SELECT staff_id FROM staff WHERE role = 'ADMIN' AND active ORDER BY staff_id FOR UPDATE"

LOCK = """
SELECT staff_id, username, full_name, role, active, version, created_at
FROM staff WHERE staff_id = %(staff_id)s FOR UPDATE
"""

UPDATE = """
UPDATE staff SET full_name = %(full_name)s, role = %(role)s, active = %(active)s, version = %(version)s,
    password_hash = coalesce(%(password_hash)s, password_hash),
    session_generation = session_generation + %(ends_sessions)s::integer
WHERE staff_id = %(staff_id)s
"""


async def handle(
    conn: Connection, context: Context, staff_id: uuid.UUID, command: ChangeStaff, password_hash: str | None
) -> Outcome:
    """Change what is named; to take away the last active ADMIN is a Conflict."""
    admins = [row[0] for row in await (await conn.execute(LOCK_ADMINS)).fetchall()]
    async with conn.cursor(row_factory=class_row(StaffMember)) as cursor:
        member = await (await cursor.execute(LOCK, {"staff_id": staff_id})).fetchone()
    if member is None:
        raise NotFound("There is no such member of staff")
    context.if_match.check(member.version)
    given = command.given()
    given.pop("password", None)
    changed = member.model_copy(update=given | {"version": member.version + 1})
    if admins == [staff_id] and not (changed.active and changed.role == Role.ADMIN):
        raise Conflict("This is the last active ADMIN")
    ends_sessions = password_hash is not None or (member.role, member.active) != (changed.role, changed.active)
    values = {"password_hash": password_hash, "ends_sessions": ends_sessions}
    await conn.execute(UPDATE, changed.model_dump() | values)
    names = {"full_name": given.pop("full_name")} if "full_name" in given else {}
    before = member.model_dump(mode="json")
    data: dict[str, Any] = {"staff_id": str(staff_id), **before_and_after(before, given)}
    if password_hash is not None:
        data["password_changed"] = True
    person = before_and_after(before, names)
    await change_log.append(conn, context.change("StaffChanged", version=changed.version, data=data, person=person))
    return Outcome(OK, changed.model_dump_json(), changed.version)


@routes.patch("/staff/{staff_id}", response_model=StaffMember, responses=problems(401, 403, 404, 409, 412, 413, 415))
@allow(Role.ADMIN)
async def change_staff(staff_id: uuid.UUID, command: ChangeStaff, transaction: TheVersionedTransaction) -> Response:
    """Change a member of staff; a field that is left out stays as it is."""
    password_hash = await hash_password(command.password) if command.password else None
    return await transaction.run(command, lambda conn, context: handle(conn, context, staff_id, command, password_hash))
