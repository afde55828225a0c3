"""Announce a parcel: what anybody may do, without signing in, before it arrives."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from commands import customers
from commands.customers import Person
from commands.packages import refuse
from commands.tracking_codes import new_tracking_code, shown
from commands.transaction import CREATED, Context, Outcome, TheTransaction
from db import change_log
from db.package_document import Status
from db.pools import Connection
from infra.auth import PUBLIC, allow
from infra.errors import Invalid, Unavailable
from infra.fields import Guide, Instant, Message, Name, OptionalLine, OtherCodes, Pesos, Phone, SiteCode
from infra.http import problems
from infra.routing import router

MAIN_SITE = "PRINCIPAL"

routes = router("packages")


class AnnouncePackage(Message):
    """A customer tells the shop what will come."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "customer_name": "María Gómez",
                    "customer_phone": "300 123 4567",
                    "guide_number": "1Z-999AA-10123",
                    "carrier": "Servientrega",
                    "data_consent": True,
                }
            ]
        }
    )

    customer_name: Name
    customer_phone: Phone
    guide_number: Guide
    other_codes: OtherCodes = Field(default_factory=list)
    carrier: OptionalLine = None
    site: SiteCode = MAIN_SITE
    data_consent: Literal[True] = Field(description="Consent to the data policy (Ley 1581)")


class AnnouncedPackage(BaseModel):
    """What the announcer is told: nothing that was stored before about a phone or a guide."""

    package_id: uuid.UUID
    tracking_code: str
    status: Status
    version: int
    announced_at: Instant
    base_fee: Pesos
    customer_name: str
    customer_phone: str
    guide_number: str
    other_codes: list[str]
    carrier: str | None
    site: str
    data_consent: bool


FIND_ACTIVE = """
SELECT package_id FROM packages WHERE guide_key = replace(%(guide_number)s, '-', '') AND status <> 'CANCELLED'
"""

FIND = f"""
SELECT uuidv7(), (SELECT site_id FROM sites WHERE code = %(site)s), ({FIND_ACTIVE}),
       (SELECT customer_id FROM customers WHERE phone = %(customer_phone)s), tariff_id, base_fee_normal
FROM tariffs WHERE valid_from <= %(now)s ORDER BY valid_from DESC LIMIT 1
"""

STORE = f"""
WITH announced AS (
    INSERT INTO packages (package_id, guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id,
        carrier, status, tariff_id, announced_at)
    VALUES (%(package_id)s, %(guide_number)s, %(other_codes)s, %(tracking_code)s, %(customer_id)s, %(customer_name)s,
        %(site_id)s, %(carrier)s, 'ANNOUNCED', %(tariff_id)s, %(now)s)),
consented AS ({customers.ADD_CONSENTS})
{change_log.APPEND}
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is already of what an announcement names, the id that its package gets, and the tariff in force."""

    package_id: uuid.UUID
    site_id: uuid.UUID | None
    active_id: uuid.UUID | None
    customer_id: uuid.UUID | None
    tariff_id: uuid.UUID
    base_fee: int


async def handle(conn: Connection, context: Context, command: AnnouncePackage) -> Outcome:
    """Find or make the customer, fix the tariff, make the code; an active duplicate of the guide is a Conflict."""
    values: dict[str, Any] = command.model_dump() | {"now": context.now}
    found = await _find(conn, values)
    if found.site_id is None:
        raise Invalid({"site": ["there is no such site"]})
    if found.active_id is not None:
        await refuse(conn, found.active_id, context, "This guide number is announced or received already")
    customer_id = found.customer_id
    if customer_id is None:
        person = Person(command.customer_name, command.customer_phone)
        (customer_id,) = await customers.find_or_add_all(conn, [person], context)
    code = new_tracking_code()
    ids = {"package_id": found.package_id, "site_id": found.site_id, "tariff_id": found.tariff_id}
    consents = customers.consents([(customer_id, found.package_id)], "COUNTER" if context.actor else "WEB", context)
    changes = change_log.rows([_change(context, command, found.package_id, customer_id)])
    stored = values | ids | consents | {"customer_id": customer_id, "tracking_code": code, "changes": changes}
    await conn.execute(STORE, stored)
    announced = AnnouncedPackage(
        package_id=found.package_id,
        tracking_code=shown(code),
        status="ANNOUNCED",
        version=1,
        announced_at=context.now,
        base_fee=found.base_fee,
        **command.model_dump(),
    )
    return Outcome(CREATED, announced.model_dump_json(), 1, f"/api/v1/packages/{found.package_id}")


async def _find(conn: Connection, values: dict[str, Any]) -> Found:
    row = await (await conn.execute(FIND, values)).fetchone()
    if row is None:
        raise Unavailable("No tariff is in force")
    return Found(*row)


def _change(
    context: Context, command: AnnouncePackage, package_id: uuid.UUID, customer_id: uuid.UUID
) -> change_log.Change:
    what = {"status": "ANNOUNCED", **command.model_dump(include={"guide_number", "other_codes", "carrier", "site"})}
    who = {"recipient_name": command.customer_name, "phone": command.customer_phone}
    return context.change(
        "PackageAnnounced",
        package_id=package_id,
        customer_id=customer_id,
        version=1,
        data={"after": what},
        person={"after": who},
    )


@routes.post(
    "/packages",
    status_code=CREATED,
    response_model=AnnouncedPackage,
    responses=problems(401, 409, 413, 415, 429),
)
@allow(PUBLIC)
async def announce_package(command: AnnouncePackage, transaction: TheTransaction) -> Response:
    """Announce a parcel, so that the shop expects it."""
    throttle = transaction.connections.settings.throttle_announce
    return await transaction.run(command, lambda conn, context: handle(conn, context, command), throttle)
