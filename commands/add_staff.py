"""Add a member of staff, over HTTP or from the command line."""

import uuid
from typing import Annotated

from fastapi import Response
from psycopg.rows import class_row
from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from commands.transaction import CREATED, Context, Outcome, TheTransaction
from db import change_log
from db.documents import RoleName, StaffMember
from db.pools import Connection
from infra.auth import Role, allow, hash_password
from infra.clock import system_clock
from infra.errors import Conflict, Invalid
from infra.fields import Message, Name, errors_by_field
from infra.http import problems
from infra.routing import router

routes = router("staff")


Username = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{3,50}$", to_lower=True), Field(examples=["camila.rojas"])
]
# Spaces at its ends are part of a password.
Password = Annotated[
    str,
    StringConstraints(min_length=10, max_length=200, strip_whitespace=False),
    Field(examples=["una clave larga"], json_schema_extra={"format": "password"}),
]


class AddStaff(Message):
    """Who may sign in, as what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "camila.rojas",
                    "full_name": "Camila Rojas",
                    "role": "OPERATOR",
                    "password": "una clave larga",
                }
            ]
        }
    )

    username: Username
    full_name: Name
    role: RoleName
    password: Password = Field(repr=False)


# A name that is in use gives no row.
INSERT = """
INSERT INTO staff (username, full_name, role, password_hash, created_at)
VALUES (%(username)s, %(full_name)s, %(role)s, %(password_hash)s, %(now)s)
ON CONFLICT (username) DO NOTHING
RETURNING staff_id, username, full_name, role, active, version, created_at
"""


async def add(conn: Connection, context: Context, command: AddStaff, password_hash: str) -> StaffMember:
    """Add the person; a name that is in use is a Conflict."""
    values = command.model_dump(exclude={"password"}) | {"password_hash": password_hash, "now": context.now}
    async with conn.cursor(row_factory=class_row(StaffMember)) as cursor:
        member = await (await cursor.execute(INSERT, values)).fetchone()
    if member is None:
        raise Conflict("There is a member of staff of this name already")
    who = {"username": member.username, "full_name": member.full_name}
    data = {"after": {"staff_id": str(member.staff_id), "role": member.role, "active": True}}
    await change_log.append(conn, context.change("StaffAdded", version=1, data=data, person={"after": who}))
    return member


async def add_staff_account(conn: Connection, username: str, full_name: str, role: Role, password: str) -> uuid.UUID:
    """Add a person in the caller's transaction, for the command line. Raises Invalid and Conflict."""
    try:
        command = AddStaff(username=username, full_name=full_name, role=role.value, password=password)
    except ValidationError as error:
        raise Invalid(errors_by_field(error.errors())) from None
    member = await add(conn, Context(system_clock()), command, await hash_password(password))
    return member.staff_id


@routes.post("/staff", status_code=CREATED, response_model=StaffMember, responses=problems(401, 403, 409, 413, 415))
@allow(Role.ADMIN)
async def add_staff(command: AddStaff, transaction: TheTransaction) -> Response:
    """Let one more person sign in."""
    password_hash = await hash_password(command.password)

    async def handle(conn: Connection, context: Context) -> Outcome:
        member = await add(conn, context, command, password_hash)
        return Outcome(CREATED, member.model_dump_json(), 1, f"/api/v1/staff/{member.staff_id}")

    return await transaction.run(command, handle)
