"""`GET /api/v1/packages/{package_id}/fee`: what a parcel costs and why, now or at an instant."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import BaseModel, Field

from db.package_document import PRICED
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import Instant, Pesos
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, stamped

fee = router("packages")

# What has left keeps the fee it left with, whatever the instant; what is only announced has no storage yet.
SELECT = stamped(
    compose(
        """
SELECT json_build_object(
           'at', instant(%(now)s),
           'lines', CASE WHEN l.received_at IS NULL THEN json_build_array(line.base)
                    ELSE json_build_array(line.base, line.storage) END,
           'total', coalesce(l.total, fee.total),
           'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
           'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END)::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_listing AS l {priced}
CROSS JOIN LATERAL (SELECT
    json_build_object('label', 'Tarifa base', 'quantity', 1, 'unit_amount', l.base_fee, 'amount', l.base_fee) AS base,
    json_build_object('label', 'Días de bodegaje después de las primeras 24 horas',
        'quantity', coalesce(l.storage_days, fee.storage_days), 'unit_amount', l.daily_storage,
        'amount', coalesce(l.storage_fee, fee.storage_fee)) AS storage) AS line
WHERE l.package_id = %(package_id)s
""",
        priced=PRICED,
    )
)


class FeeLine(BaseModel):
    """One reason for an amount, in the words that a customer is shown."""

    label: str = Field(examples=["Tarifa base"])
    quantity: int = Field(examples=[1])
    unit_amount: Pesos
    amount: Pesos


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
