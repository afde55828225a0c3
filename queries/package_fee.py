"""`GET /api/v1/packages/{package_id}/fee`: what a parcel costs and why, now or at an instant."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import BaseModel

from db.package_document import PRICED
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import Instant, Pesos
from infra.routing import router
from queries.fee_lines import EXPLAINED, FEE_LINES, FeeLine
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, stamped

fee = router("packages")

# What has left keeps the fee it left with, whatever the instant.
SELECT = stamped(
    compose(
        """
SELECT json_build_object(
           'at', instant(%(now)s),
           'lines', {lines},
           'total', coalesce(l.total, fee.total),
           'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
           'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END)::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_listing AS l {priced} {explained}
WHERE l.package_id = %(package_id)s
""",
        lines=FEE_LINES,
        priced=PRICED,
        explained=EXPLAINED,
    )
)


class Fee(BaseModel):
    """The lines add up to `total`; `due` is what would have to be paid at that instant."""

    at: Instant
    lines: list[FeeLine]
    total: Pesos
    due: Pesos
    next_fee_at: Instant | None


def fetch(package_id: uuid.UUID, at: datetime) -> Query:
    """Ask what a parcel costs at an instant; before its reception there is no storage."""
    identity = {"route": "fee", "package_id": package_id, "at": at}
    return Query(SELECT, identity, at, {"package_id": package_id}, missing="There is no such package")


@fee.get("/packages/{package_id}/fee", response_model=Fee, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def package_fee(
    package_id: uuid.UUID,
    edge: TheEdge,
    clock: TheClock,
    at: Annotated[Instant | None, Parameter(description="The instant to price at; now where left out.")] = None,
) -> Response:
    """Explain a parcel's fee line by line; outside storage it is frozen."""
    return await edge.answer(fetch(package_id, at or clock()))
