"""What the commands on one package share: its locked row, its answer, and the refusal of a wrong status."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from psycopg.rows import class_row

from commands.prepared import Shown
from commands.transaction import OK, Context, Outcome
from db import change_log
from db.package_document import PACKAGE_DOCUMENT, PRICED
from db.pools import Connection
from infra.errors import Conflict, NotFound
from infra.http import problems

ANNOUNCEMENT_LASTS = timedelta(days=30)

# `seen` is read before the lock is waited for: where it differs, somebody else acted on the parcel meanwhile.
LOCK = """
WITH seen AS MATERIALIZED (SELECT version FROM packages WHERE package_id = %(package_id)s)
SELECT p.package_id, p.version, seen.version AS version_seen, p.status, p.guide_number, p.guide_key, p.other_codes,
       p.carrier, p.observations,
       p.recipient_name, p.customer_id, p.package_type, p.condition, p.site_id,
       s.code AS site, p.position_id, (SELECT code FROM positions WHERE position_id = p.position_id) AS position,
       p.tariff_id, p.announced_at, p.received_at, p.delivered_at
FROM packages AS p CROSS JOIN seen JOIN sites AS s USING (site_id)
WHERE p.package_id = %(package_id)s
FOR NO KEY UPDATE OF p
"""

DOCUMENTS = f"""
SELECT l.package_id, {PACKAGE_DOCUMENT}::text FROM package_listing_source AS l {PRICED}
WHERE l.package_id = ANY(%(package_ids)s)
"""

PACKAGE_REFUSALS = problems(401, 403, 404, 409, 412, 413, 415)
"""How a command on one package may be refused."""


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A package's row, held against every other command until the transaction ends."""

    package_id: uuid.UUID
    version: int
    version_seen: int
    status: str
    guide_number: str
    guide_key: str
    other_codes: list[str]
    carrier: str | None
    observations: str | None
    recipient_name: str
    customer_id: uuid.UUID
    package_type: str | None
    condition: str | None
    site_id: uuid.UUID
    site: str
    position_id: uuid.UUID | None
    position: str | None
    tariff_id: uuid.UUID
    announced_at: datetime
    received_at: datetime | None
    delivered_at: datetime | None

    def has_lapsed(self, now: datetime) -> bool:
        """Tell whether this is an announcement that nobody brought a parcel for in time."""
        return self.status == "ANNOUNCED" and now - self.announced_at > ANNOUNCEMENT_LASTS


async def lock_package(conn: Connection, context: Context, package_id: uuid.UUID) -> tuple[LockedPackage, Context]:
    """Take the package for this transaction, and an instant that is not before its last one.

    Raises NotFound, PreconditionFailed for another version, Conflict where somebody else was faster.
    """
    async with conn.cursor(row_factory=class_row(LockedPackage)) as cursor:
        package = await (await cursor.execute(LOCK, {"package_id": package_id})).fetchone()
    if package is None:
        raise NotFound("There is no such package")
    context.if_match.check(package.version)
    if package.version != package.version_seen:
        await refuse(conn, package_id, context, "Somebody else acted on this package at the same time")
    return package, context.not_before(package.announced_at, package.received_at, package.delivered_at)


async def documents(conn: Connection, package_ids: Iterable[uuid.UUID], now: datetime) -> dict[uuid.UUID, str]:
    """Give packages as the listing shows them, each as JSON text, from this transaction's own view of them."""
    return dict(await (await conn.execute(DOCUMENTS, {"package_ids": list(package_ids), "now": now})).fetchall())


def answer_package(
    package: LockedPackage, context: Context, *, status: int = OK, location: str | None = None
) -> Outcome:
    """Answer with the whole package, which is one version on."""
    return Outcome(status, Shown(package.package_id, context.now), package.version + 1, location)


async def refuse(
    conn: Connection,
    package_id: uuid.UUID,
    context: Context,
    detail: str,
    **members: Any,  # noqa: ANN401
) -> NoReturn:
    """Raise the Conflict, with the package that stands in the way where staff ask, and nobody else."""
    if context.actor is not None:
        members["package"] = json.loads((await documents(conn, [package_id], context.now))[package_id])
    raise Conflict(detail, **members)


async def require_status(conn: Connection, package: LockedPackage, context: Context, *statuses: str) -> None:
    """Refuse a step that the package's status doesn't allow."""
    if package.status not in statuses:
        wanted = " or ".join(statuses)
        await refuse(conn, package.package_id, context, f"The package is {package.status}; this needs {wanted}")


def package_change(
    type_: str,
    package: LockedPackage,
    context: Context,
    data: dict[str, Any],
    *,
    person: dict[str, Any] | None = None,
    customer_id: uuid.UUID | None = None,
) -> change_log.Change:
    """Make the log row of a package that moves on by one version."""
    return context.change(
        type_,
        package_id=package.package_id,
        customer_id=customer_id,
        version=package.version + 1,
        data=data,
        person=person or {},
    )


async def log_package(
    conn: Connection, type_: str, package: LockedPackage, context: Context, data: dict[str, Any]
) -> None:
    """Write the change of a package that has moved on by one version."""
    await change_log.append(conn, package_change(type_, package, context, data))
