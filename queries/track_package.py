"""`GET /api/v1/track/{tracking_code}`: what the public may see of one parcel."""

import re
from datetime import datetime

from fastapi import Request, Response
from pydantic import BaseModel, Field

from db.connections import Connections, TheConnections
from db.package_document import PRICED, Status
from infra.addresses import client_address
from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from infra.errors import NotFound
from infra.fields import Instant, Pesos
from infra.routing import router
from queries.fee_lines import EXPLAINED, FEE_LINES, FeeLine
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, stamped

track = router("tracking")

UNKNOWN = "There is no parcel to be seen under this code"

# Of each name the first letter, of the phone the last two digits.
SELECT = stamped(
    compose(
        """
SELECT json_build_object(
           'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4), 'status', l.status,
           'timeline', (
               SELECT json_agg(json_build_object('status', step.status, 'at', instant(step.at)) ORDER BY step.n)
               FROM (VALUES (1, 'ANNOUNCED', l.announced_at), (2, 'RECEIVED', l.received_at),
                            (3, 'DELIVERED', l.delivered_at), (4, 'CANCELLED', l.cancelled_at)) AS step (n, status, at)
               WHERE step.at IS NOT NULL),
           'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
           'lines', {lines}, 'total', coalesce(l.total, fee.total),
           'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
           'next_due', CASE l.status WHEN 'RECEIVED' THEN (
               SELECT later.total FROM package_fee(l.base_fee, l.daily_storage, l.received_at,
                   fee.next_fee_at + interval '1 microsecond') AS later) END,
           'site', l.site,
           'customer', json_build_object(
               'name', (SELECT string_agg(left(part.word, 1) || '***', ' ' ORDER BY part.n)
                        FROM regexp_split_to_table(btrim(l.customer_name), '\\s+') WITH ORDINALITY AS part (word, n)),
               'phone', repeat('*', 8) || right(l.customer_phone, 2)))::text AS body,
       CASE l.status WHEN 'RECEIVED' THEN fee.next_fee_at END AS expires_at,
       NULL AS etag
FROM package_listing AS l {priced} {explained}
WHERE l.tracking_code = %(tracking_code)s
""",
        lines=FEE_LINES,
        priced=PRICED,
        explained=EXPLAINED,
    )
)


class Step(BaseModel):
    """When the parcel came to a status."""

    status: Status
    at: Instant


class MaskedCustomer(BaseModel):
    """Enough for the owner to recognise, and for nobody else."""

    name: str = Field(examples=["M*** G***"])
    phone: str | None = Field(examples=["********67"])


class TrackedPackage(BaseModel):
    """One parcel without anything that tells whose it is; past `next_fee_at` what is due is `next_due`."""

    tracking_code: str = Field(examples=["7K3M-9QXA"])
    status: Status
    timeline: list[Step]
    due: Pesos
    lines: list[FeeLine]
    total: Pesos
    next_fee_at: Instant | None
    next_due: Pesos | None
    site: str
    customer: MaskedCustomer


def fetch(tracking_code: str, now: datetime) -> Query:
    """Ask for the parcel of a code, with or without its dash, in any case."""
    code = re.sub(r"[\s-]", "", tracking_code).upper()
    if not re.fullmatch(r"[2-9A-HJKMNP-Z]{8}", code):
        raise NotFound(UNKNOWN)
    identity = {"route": "track", "code": code}  # its route counts who asks: nothing may answer ahead of it
    return Query(SELECT, identity, now, {"tracking_code": code}, ("all",), missing=UNKNOWN, is_hot=False)


async def admit(request: Request, connections: Connections) -> None:
    """Count who asks for a code, however they ask; one too many raises TooManyRequests."""
    address = client_address(request, connections.settings.trusted_proxies)
    await connections.throttle.hit(connections.settings.throttle_track, "track", address)


@track.get("/track/{tracking_code}", response_model=TrackedPackage, responses=answers(401, 404, 429))
@allow(PUBLIC)
async def track_package(
    tracking_code: str, request: Request, connections: TheConnections, edge: TheEdge, clock: TheClock
) -> Response:
    """Follow a parcel by its tracking code; names and phone are masked."""
    await admit(request, connections)
    return await edge.answer(fetch(tracking_code, clock()))
