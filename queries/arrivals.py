"""`GET /api/v1/arrivals`: when a day's parcels came, and how long those of the last weeks stayed."""

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import BaseModel, Field

from infra.auth import Role, allow
from infra.clock import BOGOTA, TheClock
from infra.fields import Instant
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.parameters import OptionalSite
from queries.sql import compose, stamped
from queries.summary import Day

arrivals = router("summary")

WEEKS = timedelta(days=28)
"""Whose parcels tell how long one stays: enough that a busy day doesn't count for all, few enough to be counted."""

SELECT = """
WITH hours AS (
    SELECT extract(hour FROM l.received_at AT TIME ZONE 'America/Bogota')::integer AS hour, count(*) AS count
    FROM package_listing AS l WHERE l.received_at >= %(begins)s AND l.received_at < %(ends)s AND {listed} GROUP BY 1
), stays AS (
    SELECT l.storage_days AS days, count(*) AS count
    FROM package_listing AS l
    WHERE l.received_at >= %(since)s AND l.received_at < %(ends)s AND l.status = 'DELIVERED' AND {listed} GROUP BY 1
)
SELECT json_build_object(
    'by_hour', coalesce((SELECT json_agg(json_build_object('hour', h.hour, 'count', h.count) ORDER BY h.hour)
                         FROM hours AS h), '[]'),
    'stays', coalesce((SELECT json_agg(json_build_object('days', s.days, 'count', s.count) ORDER BY s.days)
                       FROM stays AS s), '[]'),
    'stays_since', instant(%(since)s), 'as_of', instant(%(now)s))::text AS body,
    NULL::timestamptz AS expires_at, NULL AS etag
"""


class ArrivalsOfHour(BaseModel):
    """How many parcels came in an hour of the day by Bogota's clock; one without any is left out."""

    hour: int = Field(ge=0, le=23)
    count: int


class Stay(BaseModel):
    """How many parcels were handed over after so many days of storage, as the fee counts them."""

    days: int
    count: int


class Arrivals(BaseModel):
    """A day's arrivals, and the stays of what came from `stays_since` to that day's end and was handed over."""

    by_hour: list[ArrivalsOfHour]
    stays: list[Stay]
    stays_since: Instant
    as_of: Instant


@functools.cache
def statement(*, at_one_site: bool) -> str:
    """Give the statement for one site or for all."""
    return stamped(compose(SELECT, listed="l.site = %(site)s" if at_one_site else "true"))


def fetch(day: date | None, site: str | None, now: datetime) -> Query:
    """Ask for the arrivals of a day in Bogota, today where left out, at one site or at all."""
    today = now.astimezone(BOGOTA).date()
    begins = datetime.combine(day or today, time.min, BOGOTA).astimezone(UTC)
    ends = begins + timedelta(days=1)
    binds = {"site": site, "begins": begins, "ends": ends, "since": ends - WEEKS}
    identity = {"route": "arrivals", "day": day or today, "site": site}
    until = None if day else ends
    return Query(
        statement(at_one_site=site is not None), identity, now, binds, ("all",), plan_by_values=True, until=until
    )


@arrivals.get("/arrivals", response_model=Arrivals, responses=answers(401, 403))
@allow(Role.VIEWER)
async def show_arrivals(
    edge: TheEdge,
    clock: TheClock,
    day: Annotated[Day | None, Parameter(alias="date", description="A day in Bogota; today where left out.")] = None,
    site: Annotated[OptionalSite, Parameter()] = None,
) -> Response:
    """Count the parcels that came on a day by the hour, and how long those of four weeks stayed."""
    return await edge.answer(fetch(day, site, clock()))
