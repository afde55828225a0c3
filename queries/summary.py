"""`GET /api/v1/summary`: the shop at a glance, and a day's money."""

import functools
import uuid
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import AfterValidator, BaseModel, Field

from db.package_document import PaymentMethod
from infra.auth import Role, allow
from infra.clock import BOGOTA, TheClock
from infra.fields import Instant, Pesos
from infra.routing import router
from queries.customers import CountsByStatus
from queries.pages import Query, TheEdge, answers
from queries.parameters import OptionalSite
from queries.sql import compose, stamped

summary = router("summary")

SETTLED = timedelta(hours=1)
"""A day that had been over for so long when daily_summary was refreshed is read from there; its payments are final."""

SELECT = """
WITH counts AS (
    SELECT coalesce(sum(k.count) FILTER (WHERE k.status = 'ANNOUNCED'), 0)::bigint AS announced,
           coalesce(sum(k.count) FILTER (WHERE k.status = 'RECEIVED'), 0)::bigint AS received,
           coalesce(sum(k.count) FILTER (WHERE k.status = 'DELIVERED'), 0)::bigint AS delivered,
           coalesce(sum(k.count) FILTER (WHERE k.status = 'CANCELLED'), 0)::bigint AS cancelled
    FROM package_counts AS k WHERE {counted}
), overdue AS (
    SELECT count(*) AS day,
           count(*) FILTER (WHERE l.received_at < %(now)s - interval '168 hours') AS week,
           count(*) FILTER (WHERE l.received_at < %(now)s - interval '720 hours') AS month,
           count(*) FILTER (WHERE l.received_at < %(now)s - interval '1080 hours') AS longer
    FROM package_listing AS l
    WHERE l.status = 'RECEIVED' AND l.received_at < %(now)s - interval '24 hours' AND {listed}
), settled AS (
    SELECT EXISTS (SELECT FROM view_refreshes AS v WHERE v.view = 'daily_summary' AND v.refreshed_at >= %(settled_at)s)
        AS is_settled
), money AS (
    SELECT d.method, d.staff_id, d.amount, d.waived, d.count FROM daily_summary AS d
    WHERE (SELECT is_settled FROM settled) AND d.day = %(day)s AND {summed}
    UNION ALL
    SELECT y.method, y.staff_id, y.amount,
           CASE WHEN y.is_reversal THEN least(y.due - y.amount, 0) ELSE greatest(y.due - y.amount, 0) END,
           CASE WHEN y.is_reversal THEN -1 ELSE 1 END
    FROM payment_listing AS y
    WHERE NOT (SELECT is_settled FROM settled) AND y.at >= %(begins)s AND y.at < %(ends)s AND {paid}
), income AS (
    SELECT m.method, m.staff_id, sum(m.amount)::bigint AS amount, sum(m.waived)::bigint AS waived,
           sum(m.count)::bigint AS count
    FROM money AS m GROUP BY m.method, m.staff_id
)
SELECT json_build_object(
    'by_status', json_build_object('ANNOUNCED', counts.announced, 'RECEIVED', counts.received,
        'DELIVERED', counts.delivered, 'CANCELLED', counts.cancelled),
    'positions', json_build_object('free', greatest(shelf.places - counts.received, 0), 'taken', counts.received),
    'overdue', json_build_object('24h', overdue.day, '7d', overdue.week, '30d', overdue.month, '45d', overdue.longer),
    'income', coalesce((
        SELECT json_agg(json_build_object('method', i.method, 'staff_id', i.staff_id, 'amount', i.amount,
            'waived', i.waived, 'count', i.count) ORDER BY i.method, i.staff_id) FROM income AS i), '[]'),
    'as_of', instant(%(now)s))::text AS body,
    (SELECT min((SELECT min(l.received_at) FROM package_listing AS l
                 WHERE l.status = 'RECEIVED' AND l.received_at >= %(now)s - class.hours) + class.hours)
     FROM (VALUES (interval '24 hours'), ('168 hours'), ('720 hours'), ('1080 hours')) AS class (hours)) AS expires_at,
    NULL AS etag
FROM counts, overdue, (SELECT count(*) AS places FROM shelf AS s WHERE {shelved}) AS shelf
"""


class Positions(BaseModel):
    """Places on the shelves."""

    free: int
    taken: int


class Overdue(BaseModel):
    """How many parcels have been in storage for longer than this; a class includes the ones after it."""

    over_24_hours: int = Field(alias="24h")
    over_7_days: int = Field(alias="7d")
    over_30_days: int = Field(alias="30d")
    over_45_days: int = Field(alias="45d")


class Income(BaseModel):
    """A person's income of the day by one method; reversals count against it."""

    method: PaymentMethod
    staff_id: uuid.UUID
    amount: Pesos
    waived: Pesos
    count: int


class Summary(BaseModel):
    """The shop at `as_of`, and the money of the day that was asked for."""

    by_status: CountsByStatus
    positions: Positions
    overdue: Overdue
    income: list[Income]
    as_of: Instant


@functools.cache
def statement(*, at_one_site: bool) -> str:
    """Give the statement for one site or for all."""
    aliases = {"counted": "k", "listed": "l", "summed": "d", "paid": "y", "shelved": "s"}
    where = {name: f"{alias}.site = %(site)s" if at_one_site else "true" for name, alias in aliases.items()}
    return stamped(compose(SELECT, **where))


def _reasonable(day: date) -> date:
    if not 1900 <= day.year <= 9000:  # noqa: PLR2004
        message = "must lie between the years 1900 and 9000"
        raise ValueError(message)
    return day


Day = Annotated[date, AfterValidator(_reasonable)]


def fetch(day: date | None, site: str | None, now: datetime) -> Query:
    """Ask for the summary of a day in Bogota, today where left out, of one site or of all."""
    today = now.astimezone(BOGOTA).date()
    midnight = datetime.combine(today + timedelta(days=1), time.min, BOGOTA).astimezone(UTC)
    until, day = (None, day) if day else (midnight, today)
    begins = datetime.combine(day, time.min, BOGOTA).astimezone(UTC)
    ends = datetime.combine(day + timedelta(days=1), time.min, BOGOTA).astimezone(UTC)
    binds = {"day": day, "site": site, "begins": begins, "ends": ends, "settled_at": ends + SETTLED}
    identity = {"route": "summary", "day": day, "site": site}
    return Query(statement(at_one_site=site is not None), identity, now, binds, ("all", "reference"), until=until)


@summary.get("/summary", response_model=Summary, responses=answers(401, 403))
@allow(Role.VIEWER)
async def show_summary(
    edge: TheEdge,
    clock: TheClock,
    day: Annotated[Day | None, Parameter(alias="date", description="A day in Bogota; today where left out.")] = None,
    site: Annotated[OptionalSite, Parameter()] = None,
) -> Response:
    """Count parcels by status, places and overdue classes as they are now, and sum a day's money."""
    return await edge.answer(fetch(day, site, clock()))
