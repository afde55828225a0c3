"""What the counter writes: by the write API's own handlers, each step once, however often it is sent."""

import json
import re
import uuid
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

from commands.correct_package import CorrectPackage, correct_package
from commands.deliver_package import DeliverPackage, deliver_package
from commands.receive_by_guide import ReceiveByGuide, receive_by_guide
from commands.transaction import FIND_KEPT
from db.connections import current_connections
from infra.auth import signed_in
from web.pages.counter.work import Work
from web.writing import accepted, command_of, transaction

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

    async def receive(
        self, guide: str, name: str | None, phone: str | None, codes: list[str], carrier: str | None = None
    ) -> dict[str, Any]:
        """Receive a parcel, announced or not, with the other codes of its label; gives it, or raises the Problem.

        Its carrier is whose code it has, else who was announced, else who brought the parcel before.
        """
        given = {
            "guide_number": guide,
            "customer_name": name,
            "customer_phone": phone,
            "package_type": self._work.package_type,
            "condition": self._work.condition,
            "carrier": carrier_of(guide) or carrier or self._work.carrier,
            "site": self._work.site,
            "position": self._work.position,
            "observations": self._work.observations,
            "other_codes": codes or None,
        }
        command = command_of(ReceiveByGuide, given)
        return self._keep(await receive_by_guide(command, transaction(self._request, self._work.key or None)))

    async def add_codes(self, package: dict[str, Any], codes: list[str]) -> dict[str, Any]:
        """Give a parcel further codes; gives it, or raises the Problem."""
        command = command_of(CorrectPackage, {"other_codes": [*package["other_codes"], *codes]})
        return self._keep(
            await correct_package(
                uuid.UUID(package["package_id"]),
                command,
                transaction(self._request, self._work.key or None, package["version"]),
            )
        )

    async def deliver(self, package_id: uuid.UUID, amount: int, reason: str | None) -> dict[str, Any]:
        """Hand one parcel over; gives it, or raises the Problem."""
        given = {
            "payment_method": self._work.method,
            "amount": amount,
            "amount_reason": reason,
            "collected_by": self._work.collected_by,
        }
        command = command_of(DeliverPackage, given)
        return self._keep(await deliver_package(package_id, command, transaction(self._request, self._key(package_id))))

    def _key(self, package_id: uuid.UUID) -> str | None:
        """Give the key of what this step does with one of its parcels."""
        return f"{self._work.key}:{package_id}" if self._work.key else None

    def _keep(self, answer: Response) -> dict[str, Any]:
        """Keep an answer, and give what it says; a refusal is raised."""
        self.answers.append(accepted(answer))
        package: dict[str, Any] = json.loads(bytes(answer.body))
        return package
