"""Cancel a package: its position is free at once, its storage clock stops, and nothing was paid."""

import uuid
from typing import Literal

from fastapi import Response
from pydantic import ConfigDict

from commands import charges, positions
from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, log_package, require_status
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db.package_document import Package
from db.pools import Connection
from infra.auth import Role, allow
from infra.fields import Message, OptionalText
from infra.routing import router

routes = router("packages")

Reason = Literal[
    "CUSTOMER_REQUEST", "RETURNED_TO_CARRIER", "UNCLAIMED", "DAMAGED", "LOST", "EXPIRED", "STAFF_ERROR", "OTHER"
]


class CancelPackage(Message):
    """Why the package will not be handed over."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "CUSTOMER_REQUEST"}]})

    reason: Reason
    observations: OptionalText = None


UPDATE = """
UPDATE packages SET status = 'CANCELLED', cancelled_at = %(now)s, cancellation_reason = %(reason)s, position_id = NULL,
    observations = coalesce(%(observations)s, observations), version = version + 1
WHERE package_id = %(package_id)s
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: CancelPackage) -> Outcome:
    """Cancel what is announced or in storage; anything else is a Conflict."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "ANNOUNCED", "RECEIVED")
    if package.status == "RECEIVED":
        priced = await charges.price(conn, package_id, context)
        await conn.execute(charges.FREEZE, charges.charge(package_id, priced, context, due=0))
        await positions.free(conn, package_id)
    await conn.execute(UPDATE, {"package_id": package_id, "now": context.now} | command.model_dump())
    data = {
        "before": {"status": package.status, "position": package.position, "observations": package.observations},
        "after": {
            "status": "CANCELLED",
            "position": None,
            "observations": command.observations or package.observations,
            "reason": command.reason,
        },
    }
    await log_package(conn, "PackageCancelled", package, context, data)
    return answer_package(package, context)


@routes.post("/packages/{package_id}/cancellation", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def cancel_package(
    package_id: uuid.UUID, command: CancelPackage, transaction: TheVersionedTransaction
) -> Response:
    """Cancel a package that is announced, or received and now leaves without being handed over."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
