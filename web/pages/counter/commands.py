"""What the counter writes: by the write API's own handlers, each step once, however often it is sent."""

import json
import re
import uuid
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from pydantic import ValidationError

import commands.deliver_package
import commands.receive_by_guide
from commands.deliver_package import DeliverPackage
from commands.receive_by_guide import ReceiveByGuide
from commands.transaction import FIND_KEPT, Transaction
from db.connections import current_connections
from infra.auth import signed_in
from infra.errors import Conflict, Invalid
from infra.fields import errors_by_field
from web.pages.counter.work import Work

CARRIERS = {
    r"1Z[0-9A-Z]{16}": "UPS",
    r"(?:JD|JJD)[0-9]{10,}": "DHL",
    r"[A-Z]{2}[0-9]{9}CO": "4-72",
    r"[A-Z]{2}[0-9]{9}[A-Z]{2}": "Correo internacional",
    r"TBA[0-9]{12}": "Amazon",
}
"""Carriers by the shape of their barcodes, as far as a shape is one carrier's alone."""


def carrier_of(guide: str) -> str | None:
    """Guess the carrier; None where the shape could be anybody's."""
    bare = guide.replace("-", "")
    return next((carrier for shape, carrier in CARRIERS.items() if re.fullmatch(shape, bare)), None)


class Writer:
    """Runs commands for one step, under its idempotency key, and keeps their answers for the reader's token."""

    def __init__(self, request: Request, work: Work) -> None:
        self._request, self._work = request, work
        self._connections = current_connections(request)
        self.answers: list[Response] = []

    async def earlier(self) -> dict[str, Any] | None:
        """Give what this same step received when it was sent before and its answer was lost."""
        if not self._work.key:
            return None
        path = {"method": self._request.method, "path": self._request.url.path, "key": self._work.key}
        row = path | {"actor": str(signed_in(self._request).staff_id)}
        async with self._connections.write_pool.connection() as conn:
            kept = await (await conn.execute(FIND_KEPT, row)).fetchone()
        if kept is None or kept[1] is None or kept[1] >= HTTPStatus.BAD_REQUEST:
            return None
        self.answers.append(Response(headers=kept[2]))
        package: dict[str, Any] = json.loads(kept[3])
        return package

    async def receive(self, guide: str, name: str | None, phone: str | None) -> dict[str, Any]:
        """Receive a parcel, announced or not; gives it, or raises the Problem."""
        try:
            command = ReceiveByGuide(
                guide_number=guide,
                customer_name=name,
                customer_phone=phone,
                package_type=self._work.package_type,
                condition=self._work.condition,
                carrier=carrier_of(guide),
            )
        except ValidationError as error:
            raise Invalid(errors_by_field(list(error.errors()))) from None
        return await self._run(
            command, lambda conn, context: commands.receive_by_guide.handle(conn, context, command), self._work.key
        )

    async def deliver(self, package_id: uuid.UUID, amount: int, reason: str | None) -> dict[str, Any]:
        """Hand one parcel over; gives it, or raises the Problem."""
        try:
            command = DeliverPackage(
                payment_method=self._work.method,
                amount=amount,
                amount_reason=reason,
                collected_by=self._work.collected_by,
            )
        except ValidationError as error:
            raise Invalid(errors_by_field(list(error.errors()))) from None
        return await self._run(
            command,
            lambda conn, context: commands.deliver_package.handle(conn, context, package_id, command),
            f"{self._work.key}:{package_id}" if self._work.key else "",
        )

    async def _run(self, command: object, work: Any, key: str) -> dict[str, Any]:  # noqa: ANN401
        clock = self._request.app.state.clock
        transaction = Transaction(self._request, self._connections, clock, signed_in(self._request), key or None)
        answer = await transaction.run(command, work)
        body: dict[str, Any] = json.loads(bytes(answer.body))
        if answer.status_code == HTTPStatus.CONFLICT:  # with a key it is kept, an answer like any other
            known = ("type", "title", "status", "detail", "instance")
            raise Conflict(body["detail"], **{name: value for name, value in body.items() if name not in known})
        self.answers.append(answer)
        return body
