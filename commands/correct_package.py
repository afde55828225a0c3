"""Correct what is written of a parcel, until it leaves."""

import uuid
from typing import Any

from fastapi import Response
from pydantic import ConfigDict

from commands import customers
from commands.announce_package import FIND_ACTIVE
from commands.customers import Person
from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, package_change, refuse, require_status
from commands.patches import UNSET, Patch, before_and_after
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db import change_log
from db.package_document import Condition, Package, PackageType
from db.pools import Connection
from infra.auth import Role, allow
from infra.fields import Guide, Name, OptionalLine, OptionalText, OtherCodes, Phone
from infra.routing import router

routes = router("packages")


class CorrectPackage(Patch):
    """What is to be corrected; `customer_name` is the recipient's name, and a phone moves this parcel alone."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"carrier": "Coordinadora"}]})

    guide_number: Guide = UNSET
    other_codes: OtherCodes = UNSET
    carrier: OptionalLine = None
    observations: OptionalText = None
    customer_name: Name = UNSET
    customer_phone: Phone = UNSET
    package_type: PackageType = UNSET
    condition: Condition = UNSET


STORE = f"""
WITH corrected AS (
    UPDATE packages SET guide_number = %(guide_number)s, other_codes = %(other_codes)s, carrier = %(carrier)s,
        observations = %(observations)s, recipient_name = %(recipient_name)s, customer_id = %(customer_id)s,
        package_type = %(package_type)s, condition = %(condition)s, version = version + 1
    WHERE package_id = %(package_id)s)
{change_log.APPEND}
"""

PHONE_OF = "SELECT phone FROM customers WHERE customer_id = %(customer_id)s"


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: CorrectPackage) -> Outcome:
    """Correct a parcel that hasn't left; type and condition are known once it is received."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "ANNOUNCED", "RECEIVED")
    given = command.given()
    if package.status == "ANNOUNCED" and given.keys() & {"package_type", "condition"}:
        await refuse(conn, package_id, context, "Type and condition can be corrected once the parcel is received")
    if command.guide_number:
        active = await (await conn.execute(FIND_ACTIVE, {"guide_number": command.guide_number})).fetchone()
        if active is not None and active[0] != package_id:
            await refuse(conn, active[0], context, "This guide number belongs to another parcel")
    person = {"recipient_name": given.pop("customer_name")} if "customer_name" in given else {}
    old: dict[str, Any] = {name: getattr(package, name) for name in (*UPDATED, *given) if hasattr(package, name)}
    new = old | given | person
    if phone := given.pop("customer_phone", None):
        who = Person(new["recipient_name"], phone)
        (new["customer_id"],) = await customers.find_or_add_all(conn, [who], context)
        row = await (await conn.execute(PHONE_OF, {"customer_id": package.customer_id})).fetchone()
        old["phone"], person["phone"] = row and row[0], phone
    change = package_change(
        "PackageCorrected",
        package,
        context,
        before_and_after(old, given),
        person=before_and_after(old, person),
        customer_id=new["customer_id"] if phone else None,
    )
    await conn.execute(STORE, new | {"package_id": package_id, "changes": change_log.rows([change])})
    return answer_package(package, context)


UPDATED = (
    "guide_number",
    "other_codes",
    "carrier",
    "observations",
    "recipient_name",
    "customer_id",
    "package_type",
    "condition",
)
"""The columns that a correction may change."""


@routes.patch("/packages/{package_id}", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def correct_package(
    package_id: uuid.UUID, command: CorrectPackage, transaction: TheVersionedTransaction
) -> Response:
    """Correct a parcel that is announced or in storage; a field that is left out stays as it is."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
