"""Receive parcels by the guide on their label, announced or not, one or a thousand in the same few statements."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Response
from psycopg.types.json import Jsonb
from pydantic import ConfigDict

from commands import customers, positions
from commands.announce_package import MAIN_SITE
from commands.customers import Person
from commands.lapse_announcements import expire
from commands.packages import ANNOUNCEMENT_LASTS, documents
from commands.positions import NoPlace, Place, Wish
from commands.prepared import Shown
from commands.receive_package import ReceivePackage
from commands.tracking_codes import new_tracking_code
from commands.transaction import CREATED, OK, Context, Outcome, TheTransaction
from db import change_log
from db.package_document import Package
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Conflict, Invalid, Problem, Unavailable
from infra.fields import Guide, Name, OptionalLine, OptionalPhone, OtherCodes, SiteCode
from infra.http import problems
from infra.routing import router

routes = router("packages")


class ReceiveByGuide(ReceivePackage):
    """A parcel at the counter. Name and phone are for one that wasn't announced; the phone may be unknown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "guide_number": "1Z-999AA-10123",
                    "customer_name": "María Gómez",
                    "customer_phone": "300 123 4567",
                    "package_type": "NORMAL",
                    "condition": "GOOD",
                }
            ]
        }
    )

    guide_number: Guide
    customer_name: Name | None = None
    customer_phone: OptionalPhone = None
    other_codes: OtherCodes | None = None
    carrier: OptionalLine = None
    site: SiteCode | None = None
    data_consent: bool = False

    @property
    def guide_key(self) -> str:
        """The guide as it is compared."""
        return self.guide_number.replace("-", "")


# A row for each guide, in order: what is known of it, of its site and of its customer. Who has the guide now is locked.
FIND = """
WITH active AS MATERIALIZED (
    SELECT package_id, version, guide_key, status, site_id, customer_id, announced_at, observations
    FROM packages WHERE guide_key = ANY(%(guide_keys)s) AND status <> 'CANCELLED'
    ORDER BY guide_key FOR NO KEY UPDATE)
SELECT asked.guide_key, uuidv7() AS new_id, s.site_id AS site_there, c.customer_id AS customer_known,
       (SELECT tariff_id FROM tariffs WHERE valid_from <= %(now)s ORDER BY valid_from DESC LIMIT 1) AS tariff_id,
       active.package_id, active.version, active.status, active.site_id, active.customer_id, active.announced_at,
       active.observations
FROM unnest(%(guide_keys)s::text[], %(sites)s::text[], %(phones)s::text[]) WITH ORDINALITY
     AS asked (guide_key, site, phone, n)
LEFT JOIN active USING (guide_key)
LEFT JOIN sites AS s ON s.code = asked.site
LEFT JOIN customers AS c ON c.phone = asked.phone
ORDER BY asked.n
"""

# In the order of the guides, so that two batches with the same ones wait for each other and never deadlock.
STORE = f"""
WITH taken AS ({positions.TAKE}),
added AS (
    INSERT INTO packages (package_id, guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id,
        carrier, package_type, condition, status, position_id, tariff_id, observations, announced_at, received_at)
    SELECT package_id, guide_number, coalesce(other_codes, '{{}}'), tracking_code, customer_id, customer_name, site_id,
        carrier, package_type, condition, 'RECEIVED', position_id, tariff_id, observations, %(now)s, %(now)s
    FROM jsonb_to_recordset(%(new)s) AS parcel (package_id uuid, guide_number text, other_codes text[],
        tracking_code text, customer_id uuid, customer_name text, site_id uuid, carrier text, package_type text,
        condition text, position_id uuid, tariff_id uuid, observations text)
    ORDER BY replace(guide_number, '-', '')),
received AS (
    UPDATE packages AS p SET status = 'RECEIVED', received_at = greatest(%(now)s, p.announced_at),
        site_id = parcel.site_id, package_type = parcel.package_type, condition = parcel.condition,
        position_id = parcel.position_id, other_codes = coalesce(parcel.other_codes, p.other_codes),
        carrier = coalesce(parcel.carrier, p.carrier), observations = coalesce(parcel.observations, p.observations),
        version = p.version + 1
    FROM jsonb_to_recordset(%(announced)s) AS parcel (package_id uuid, site_id uuid, package_type text, condition text,
        position_id uuid, other_codes text[], carrier text, observations text)
    WHERE p.package_id = parcel.package_id),
consented AS ({customers.ADD_CONSENTS})
{change_log.APPEND}
"""


@dataclass(frozen=True, slots=True)
class Active:
    """The package that has a guide now, locked."""

    package_id: uuid.UUID
    version: int
    status: str
    site_id: uuid.UUID
    customer_id: uuid.UUID
    announced_at: datetime
    observations: str | None


@dataclass(slots=True)
class Plan:
    """One parcel on its way to the shelf: as the announcement that it has, or as a new package."""

    command: ReceiveByGuide
    site_id: uuid.UUID
    package_id: uuid.UUID
    announced: Active | None
    lapsed: Active | None
    customer_id: uuid.UUID | None
    tariff_id: uuid.UUID | None
    place: Place | None = None

    @property
    def version(self) -> int:
        """The package's, once it is on the shelf."""
        return self.announced.version + 1 if self.announced else 1

    def row(self) -> dict[str, Any]:
        """Give what STORE takes."""
        ids = {
            "package_id": self.package_id,
            "site_id": self.site_id,
            "position_id": self.place and self.place.position_id,
            "customer_id": self.customer_id,
            "tariff_id": self.tariff_id,
        }
        return self.command.model_dump() | {name: str(id_) for name, id_ in ids.items()}


@dataclass(frozen=True, slots=True)
class Received:
    """A parcel that is on the shelf now: 201 for a new package, 200 for one that was announced."""

    package_id: uuid.UUID
    version: int
    status: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a parcel was not received, and which package stands in its way."""

    problem: Problem
    blocker: uuid.UUID | None = None


async def receive_all(
    conn: Connection, context: Context, commands: Sequence[ReceiveByGuide]
) -> list[Received | Refused]:
    """Receive what can be; of several with one guide the first that can be wins. The results are in order."""
    results: dict[int, Received | Refused] = {}
    pending = list(range(len(commands)))
    while pending:
        first: dict[str, int] = {}
        for index in pending:
            first.setdefault(commands[index].guide_key, index)
        done = await _receive_each_guide_once(conn, context, {key: commands[index] for key, index in first.items()})
        for index in pending:
            guide_key = commands[index].guide_key
            outcome = done[guide_key]
            if index == first[guide_key]:
                results[index] = outcome
            elif isinstance(outcome, Received):
                results[index] = Refused(Conflict("The batch has this guide number twice"), outcome.package_id)
        pending = [index for index in pending if index not in results]
    return [results[index] for index in range(len(commands))]


async def _receive_each_guide_once(
    conn: Connection, context: Context, commands: dict[str, ReceiveByGuide]
) -> dict[str, Received | Refused]:
    plans, results = await _plan(conn, context, commands)
    wishes = [Wish(plan.package_id, plan.site_id, plan.command.position) for plan in plans]
    places = await positions.allot_all(conn, wishes)
    kept = []
    for plan in plans:
        place = places[plan.package_id]
        if isinstance(place, NoPlace):
            blocker = place.blocker or (plan.announced.package_id if plan.announced else None)
            results[plan.command.guide_key] = Refused(place.problem, blocker)
        else:
            plan.place = place
            kept.append(plan)
    await _store(conn, context, kept)
    for plan in kept:
        status = OK if plan.announced else CREATED
        results[plan.command.guide_key] = Received(plan.package_id, plan.version, status)
    return results


async def _plan(
    conn: Connection, context: Context, commands: dict[str, ReceiveByGuide]
) -> tuple[list[Plan], dict[str, Received | Refused]]:
    """Decide for each guide what it is: an announcement to receive, a new package, or a refusal."""
    asked = {
        "guide_keys": list(commands),
        "sites": [command.site or MAIN_SITE for command in commands.values()],
        "phones": [command.customer_phone for command in commands.values()],
        "now": context.now,
    }
    plans: list[Plan] = []
    refused: dict[str, Received | Refused] = {}
    for guide_key, new_id, site_id, customer_id, tariff_id, *found in await (
        await conn.execute(FIND, asked)
    ).fetchall():
        command, present = commands[guide_key], Active(*found) if found[0] else None
        if present is not None and present.status != "ANNOUNCED":
            refused[guide_key] = Refused(Conflict(f"This guide number is {present.status} already"), present.package_id)
        elif site_id is None:
            refused[guide_key] = Refused(Invalid({"site": ["there is no such site"]}))
        elif present is not None and context.now - present.announced_at <= ANNOUNCEMENT_LASTS:
            # What the counter says of the site holds: the parcel is there. Left out, it is where it was announced for.
            there = site_id if command.site else present.site_id
            plans.append(Plan(command, there, present.package_id, present, None, present.customer_id, None))
        elif command.customer_name is None:
            refused[guide_key] = Refused(Invalid({"customer_name": ["is needed, since this was not announced"]}))
        else:
            plans.append(Plan(command, site_id, new_id, None, present, customer_id, tariff_id))
    return plans, refused


async def _store(conn: Connection, context: Context, plans: Sequence[Plan]) -> None:
    """Write the packages that have their places, with all that belongs to them."""
    if not plans:
        return
    await expire(conn, context, [plan.lapsed.package_id for plan in plans if plan.lapsed])
    await _add_customers(conn, context, [plan for plan in plans if plan.customer_id is None])
    new = [plan for plan in plans if not plan.announced]
    if any(plan.tariff_id is None for plan in new):
        raise Unavailable("No tariff is in force")
    stored = {
        "positions": [plan.place and plan.place.position_id for plan in plans],
        "packages": [plan.package_id for plan in plans],
        "new": Jsonb([plan.row() | {"tracking_code": new_tracking_code()} for plan in new]),
        "announced": Jsonb([plan.row() for plan in plans if plan.announced]),
        "changes": change_log.rows(change for plan in plans for change in _changes(context, plan)),
    }
    given = [(plan.customer_id, plan.package_id) for plan in plans if plan.command.data_consent and plan.customer_id]
    await conn.execute(STORE, stored | customers.consents(given, "COUNTER", context))


async def _add_customers(conn: Connection, context: Context, plans: Sequence[Plan]) -> None:
    people = [Person(plan.command.customer_name or "", plan.command.customer_phone) for plan in plans]
    for plan, customer_id in zip(plans, await customers.find_or_add_all(conn, people, context), strict=True):
        plan.customer_id = customer_id


def _changes(context: Context, plan: Plan) -> list[change_log.Change]:
    command = plan.command
    reception = {
        "status": "RECEIVED",
        "position": plan.place and plan.place.code,
        **command.model_dump(include={"package_type", "condition", "observations"}),
    }
    known = {"package_id": plan.package_id, "customer_id": plan.customer_id, "version": plan.version}
    if plan.announced is not None:
        before = {"status": "ANNOUNCED", "observations": plan.announced.observations}
        reception |= {
            name: value for name in ("other_codes", "carrier") if (value := getattr(command, name)) is not None
        }
        return [context.change("PackageReceived", data={"before": before, "after": reception}, **known)]
    announcement = {"status": "ANNOUNCED", **command.model_dump(include={"guide_number", "other_codes", "carrier"})}
    person = {"after": {"recipient_name": command.customer_name, "phone": command.customer_phone}}
    return [
        context.change("PackageAnnounced", data={"after": announcement}, person=person, **known),
        context.change("PackageReceived", data={"before": {"status": "ANNOUNCED"}, "after": reception}, **known),
    ]


async def handle(conn: Connection, context: Context, command: ReceiveByGuide) -> Outcome:
    """Receive one parcel: 201 for a new package, 200 for one that was announced."""
    (result,) = await receive_all(conn, context, [command])
    if isinstance(result, Refused):
        if result.blocker is not None:
            shown = await documents(conn, [result.blocker], context.now)
            result.problem.members["package"] = json.loads(shown[result.blocker])
        raise result.problem
    location = f"/api/v1/packages/{result.package_id}" if result.status == CREATED else None
    return Outcome(result.status, Shown(result.package_id, context.now), result.version, location)


@routes.post(
    "/receptions",
    status_code=CREATED,
    response_model=Package,
    responses={200: {"model": Package, "description": "It was announced"}, **problems(401, 403, 409, 413, 415)},
)
@allow(Role.OPERATOR)
async def receive_by_guide(command: ReceiveByGuide, transaction: TheTransaction) -> Response:
    """Receive a parcel by the guide number on its label, whether it was announced or not."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, command))
