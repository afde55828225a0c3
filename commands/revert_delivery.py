"""Revert a delivery made by mistake: the parcel is back in storage as if it had never left."""

import uuid
from datetime import timedelta

from fastapi import Response
from pydantic import ConfigDict

from commands import charges, positions
from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, log_package, require_status
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db.package_document import Package
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Forbidden
from infra.fields import Message, OptionalPosition, Text
from infra.routing import router

OWN_FOR = timedelta(minutes=30)
"""How long an operator may take back a delivery, and only their own."""

routes = router("packages")


class RevertDelivery(Message):
    """Why the delivery was a mistake, and where the parcel stands again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Se entregó el paquete del vecino"}]})

    reason: Text
    position: OptionalPosition = None


FIND_PAYMENT = """
SELECT payment_id, staff_id, at, amount FROM payments AS y
WHERE package_id = %(package_id)s AND reverses IS NULL
  AND NOT EXISTS (SELECT FROM payments AS r WHERE r.reverses = y.payment_id)
"""

REVERSE_PAYMENT = """
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, collected_by, reverses, staff_id, at)
SELECT package_id, site_id, method, -amount, -due, %(reason)s, collected_by, payment_id, %(staff_id)s, %(now)s
FROM payments WHERE payment_id = %(payment_id)s
"""

UPDATE = """
UPDATE packages SET status = 'RECEIVED', delivered_at = NULL, position_id = %(position_id)s, version = version + 1
WHERE package_id = %(package_id)s
RETURNING (SELECT code FROM positions AS place WHERE place.position_id = packages.position_id)
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: RevertDelivery) -> Outcome:
    """Reverse charge and payment, and allot a place; an operator's right ends with OWN_FOR, an admin's never."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "DELIVERED")
    payment = await (await conn.execute(FIND_PAYMENT, {"package_id": package_id})).fetchone()
    if payment is None or context.actor is None:
        raise LookupError(package_id)
    payment_id, staff_id, at, amount = payment
    if context.actor.role is not Role.ADMIN and (staff_id != context.staff_id or context.now - at > OWN_FOR):
        raise Forbidden("An operator may take back an own delivery within 30 minutes; ask an ADMIN")
    position_id = await positions.allot(conn, context, package, command.position)
    await charges.reverse(conn, package_id, context)
    reversal = {"payment_id": payment_id, "staff_id": context.staff_id, "reason": command.reason, "now": context.now}
    await conn.execute(REVERSE_PAYMENT, reversal)
    row = await (await conn.execute(UPDATE, {"package_id": package_id, "position_id": position_id})).fetchone()
    data = {
        "before": {"status": package.status, "paid": amount},
        "after": {"status": "RECEIVED", "position": row and row[0], "paid": 0, "reason": command.reason},
    }
    await log_package(conn, "DeliveryReverted", package, context, data)
    return answer_package(package, context)


@routes.post("/packages/{package_id}/delivery-reversal", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def revert_delivery(
    package_id: uuid.UUID, command: RevertDelivery, transaction: TheVersionedTransaction
) -> Response:
    """Take back a delivery that was made by mistake."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
