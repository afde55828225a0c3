"""Change a customer: it shows in every listing row of theirs."""

import uuid
from typing import Annotated, Any

from fastapi import Response
from psycopg.rows import class_row
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from commands.patches import UNSET, Patch, before_and_after
from commands.transaction import OK, Context, Outcome, TheVersionedTransaction
from db import change_log
from db.documents import Customer
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Conflict, NotFound
from infra.fields import Name, OptionalLine, OptionalPhone, OptionalText
from infra.http import problems
from infra.routing import router

routes = router("customers")


def _absent_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


Email = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[\x21-\x3f\x41-\x7e]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"),
    Field(examples=["maria@example.com"]),
]
OptionalEmail = Annotated[Email | None, BeforeValidator(_absent_if_blank)]


class ChangeCustomer(Patch):
    """What is to change; null clears everything but the name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"building": "Torres del Parque", "apartment": "1203"}]})

    name: Name = UNSET
    phone: OptionalPhone = None
    email: OptionalEmail = None
    document: OptionalLine = None
    building: OptionalLine = None
    tower: OptionalLine = None
    apartment: OptionalLine = None
    notes: OptionalText = None


LOCK = """
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at
FROM customers WHERE customer_id = %(customer_id)s FOR UPDATE
"""

FIND_PHONE = "SELECT FROM customers WHERE phone = %(phone)s AND customer_id <> %(customer_id)s"

UPDATE = """
UPDATE customers SET name = %(name)s, phone = %(phone)s, email = %(email)s, document = %(document)s,
    building = %(building)s, tower = %(tower)s, apartment = %(apartment)s, notes = %(notes)s, version = %(version)s
WHERE customer_id = %(customer_id)s
"""


async def handle(conn: Connection, context: Context, customer_id: uuid.UUID, command: ChangeCustomer) -> Outcome:
    """Change what is named; a phone that is another customer's is a Conflict."""
    async with conn.cursor(row_factory=class_row(Customer)) as cursor:
        customer = await (await cursor.execute(LOCK, {"customer_id": customer_id})).fetchone()
    if customer is None:
        raise NotFound("There is no such customer")
    context.if_match.check(customer.version)
    given = command.given()
    if command.phone and await (await conn.execute(FIND_PHONE, given | {"customer_id": customer_id})).fetchone():
        raise Conflict("This phone number belongs to another customer")
    version: dict[str, Any] = {"version": customer.version + 1}
    changed = customer.model_copy(update=given | version)
    await conn.execute(UPDATE, changed.model_dump())
    change = context.change(
        "CustomerChanged",
        customer_id=customer_id,
        version=changed.version,
        data={"fields": sorted(given)},
        person=before_and_after(customer.model_dump(mode="json"), given),
    )
    await change_log.append(conn, change)
    return Outcome(OK, changed.model_dump_json(), changed.version)


@routes.patch(
    "/customers/{customer_id}", response_model=Customer, responses=problems(401, 403, 404, 409, 412, 413, 415)
)
@allow(Role.OPERATOR)
async def change_customer(
    customer_id: uuid.UUID, command: ChangeCustomer, transaction: TheVersionedTransaction
) -> Response:
    """Change a customer; a field that is left out stays as it is, and null clears it."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, customer_id, command))
