"""Deliver a parcel: the server says what is due at that instant, and what was paid is written beside it."""

import uuid

from fastapi import Response
from pydantic import ConfigDict

from commands import charges, positions
from commands.charges import Price
from commands.packages import (
    PACKAGE_REFUSALS,
    LockedPackage,
    answer_package,
    lock_package,
    package_change,
    refuse,
    require_status,
)
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db import change_log
from db.package_document import Package, PaymentMethod
from db.pools import Connection
from infra.auth import Role, allow
from infra.fields import Amount, Message, OptionalLine, OptionalText
from infra.routing import router

routes = router("packages")


class DeliverPackage(Message):
    """How much was paid and how; another amount than what is due needs its reason."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"payment_method": "CASH", "amount": 1500}]})

    payment_method: PaymentMethod
    amount: Amount
    amount_reason: OptionalText = None
    collected_by: OptionalLine = None


STORE = f"""
WITH charged AS ({charges.FREEZE}),
paid AS (
    INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, collected_by, staff_id, at)
    VALUES (%(package_id)s, %(site_id)s, %(payment_method)s, %(amount)s, %(due)s, %(amount_reason)s, %(collected_by)s,
        %(staff_id)s, %(now)s)),
freed AS ({positions.FREE}),
delivered AS (
    UPDATE packages SET status = 'DELIVERED', delivered_at = %(now)s, position_id = NULL, version = version + 1
    WHERE package_id = %(package_id)s)
{change_log.APPEND}
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: DeliverPackage) -> Outcome:
    """Hand over a parcel in storage against its fee."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "RECEIVED")
    priced = await charges.price(conn, package_id, context)
    due = priced.total
    if command.amount != due and command.amount_reason is None:
        detail = f"What is due is {due}, and another amount needs its reason"
        await refuse(conn, package_id, context, detail, due=due)
    stored = charges.charge(package_id, priced, context, due=due) | command.model_dump() | {"site_id": package.site_id}
    change = _change(context, package, priced, command)
    await conn.execute(STORE, stored | {"changes": change_log.rows([change])})
    return answer_package(package, context)


def _change(context: Context, package: LockedPackage, priced: Price, command: DeliverPackage) -> change_log.Change:
    fee = {"base_fee": priced.base_fee, "storage_days": priced.storage_days, "storage_fee": priced.storage_fee}
    paid = command.model_dump(exclude={"collected_by"})
    data = {
        "before": {"status": package.status, "position": package.position},
        "after": {
            "status": "DELIVERED",
            "position": None,
            **fee,
            "total": priced.total,
            "due": priced.total,
            **paid,
        },
    }
    person = {"after": {"collected_by": command.collected_by}} if command.collected_by else {}
    return package_change("PackageDelivered", package, context, data, person=person)


@routes.post("/packages/{package_id}/delivery", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def deliver_package(
    package_id: uuid.UUID, command: DeliverPackage, transaction: TheVersionedTransaction
) -> Response:
    """Hand a parcel over; a 409 for the amount has the member `due`."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
