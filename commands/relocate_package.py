"""Relocate a parcel: another place on the shelf of its site."""

import uuid

from fastapi import Response
from pydantic import ConfigDict

from commands import positions
from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, log_package, require_status
from commands.transaction import Context, Outcome, TheVersionedTransaction
from db.package_document import Package
from db.pools import Connection
from infra.auth import Role, allow
from infra.fields import Message, PositionCode
from infra.routing import router

routes = router("packages")


class RelocatePackage(Message):
    """Where the parcel goes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"position": "42"}]})

    position: PositionCode


UPDATE = """
UPDATE packages SET position_id = %(position_id)s, version = version + 1 WHERE package_id = %(package_id)s
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, command: RelocatePackage) -> Outcome:
    """Move a parcel in storage to a free position; its own isn't free either."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "RECEIVED")
    position_id = await positions.move(conn, context, package, command.position)
    await conn.execute(UPDATE, {"package_id": package_id, "position_id": position_id})
    data = {"before": {"position": package.position}, "after": {"position": command.position}}
    await log_package(conn, "PackageRelocated", package, context, data)
    return answer_package(package, context)


@routes.post("/packages/{package_id}/relocation", response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
async def relocate_package(
    package_id: uuid.UUID, command: RelocatePackage, transaction: TheVersionedTransaction
) -> Response:
    """Move a parcel to another position."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, command))
