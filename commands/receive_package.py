"""Receive an announced parcel: it gets its place, and its storage clock starts."""

import uuid

from fastapi import Response
from pydantic import ConfigDict

from commands import positions
from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, log_package, refuse, require_status
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db.package_document import Condition, Package, PackageType
from db.pools import Connection
from infra.auth import Role, allow
from infra.fields import Message, OptionalPosition, OptionalText
from infra.routing import router

routes = router("packages")


class ReceivePackage(Message):
    """What the counter sees of the parcel; without a position it gets the lowest free one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"package_type": "NORMAL", "condition": "GOOD"}]})

    package_type: PackageType
    condition: Condition
    position: OptionalPosition = None
    observations: OptionalText = None


UPDATE = """
UPDATE packages SET status = 'RECEIVED', received_at = %(now)s, package_type = %(package_type)s,
    condition = %(condition)s, position_id = %(position_id)s, observations = coalesce(%(observations)s, observations),
    version = version + 1
WHERE package_id = %(package_id)s
RETURNING (SELECT code FROM positions AS place WHERE place.position_id = packages.position_id)
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: ReceivePackage) -> Outcome:
    """Put an announced parcel on the shelf; one announced more than 30 days ago is a Conflict."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "ANNOUNCED")
    if package.has_lapsed(context.now):
        await refuse(
            conn, package_id, context, "The announcement is older than 30 days: receive it by its guide number"
        )
    position_id = await positions.allot(conn, context, package, command.position)
    values = command.model_dump() | {"package_id": package_id, "position_id": position_id, "now": context.now}
    row = await (await conn.execute(UPDATE, values)).fetchone()
    after = {"status": "RECEIVED", "position": row and row[0], **command.model_dump(exclude={"position"})}
    before = {"status": package.status, "observations": package.observations}
    await log_package(conn, "PackageReceived", package, context, {"before": before, "after": after})
    return answer_package(package, context)


@routes.post("/packages/{package_id}/reception", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def receive_package(
    package_id: uuid.UUID, command: ReceivePackage, transaction: TheVersionedTransaction
) -> Response:
    """Receive a parcel that was announced."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
