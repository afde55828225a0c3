"""`GET /api/v1/lookup`: what a scanner or a customer's code finds, exactly."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query as Parameters
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from db.package_document import PACKAGE_DOCUMENT, PRICED, Package
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import phone_number
from infra.routing import router
from queries.direct import direct
from queries.pages import Query, TheEdge, answers
from queries.parameters import Code
from queries.sql import compose, extended, stamped

lookup = router("packages")

MOST = 50

SELECT = stamped(
    compose(
        """
WITH found AS (
    SELECT l.*, 1 AS preference, 'tracking_code' AS matched_by FROM package_listing AS l
    WHERE l.tracking_code = code_key(%(q)s)
    UNION ALL
    SELECT l.*, 2, 'guide_number' FROM package_listing AS l WHERE l.guide_key = code_key(%(q)s)
    UNION ALL
    SELECT l.*, 3, 'other_code' FROM package_listing AS l
    WHERE l.other_code_keys <> '{{}}' AND l.other_code_keys @> ARRAY[code_key(%(q)s)]
    UNION ALL
    SELECT l.*, 4, 'phone' FROM customer_listing AS c JOIN package_listing AS l ON l.customer_id = c.customer_id
    WHERE c.phone = %(phone)s
    UNION ALL
    SELECT l.*, 5, 'position' FROM package_listing AS l
    WHERE l."position" IS NOT NULL AND code_key(l."position") = code_key(%(q)s)
), best AS (
    SELECT DISTINCT ON (f.package_id) f.* FROM found AS f ORDER BY f.package_id, f.preference
), shown AS (
    SELECT b.*, CASE b.status WHEN 'RECEIVED' THEN 0 WHEN 'ANNOUNCED' THEN 1 ELSE 2 END AS place FROM best AS b
    ORDER BY place, b.announced_at DESC, b.package_id DESC LIMIT %(most)s
)
SELECT json_build_object('items', coalesce(
           json_agg({document} ORDER BY l.place, l.announced_at DESC, l.package_id DESC), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM shown AS l {priced}
""",
        document=extended(PACKAGE_DOCUMENT, "json_build_object('matched_by', l.matched_by)"),
        priced=PRICED,
    )
)


class FoundPackage(Package):
    """A parcel, and by which of its codes it was found."""

    matched_by: Literal["tracking_code", "guide_number", "other_code", "phone", "position"]


class FoundPackages(BaseModel):
    """What is in storage first, then what is announced, then the newest; at most 50."""

    items: list[FoundPackage]


def fetch(q: str, now: datetime) -> Query:
    """Ask for the parcels that this code names."""
    try:
        phone = phone_number(q)
    except ValueError:
        phone = None
    return Query(SELECT, {"route": "lookup", "q": q}, now, {"q": q, "phone": phone, "most": MOST})


class Lookup(BaseModel):
    """What is looked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: Code = Field(examples=["7K3M-9QXA"])


@lookup.get("/lookup", response_model=FoundPackages, responses=answers(401, 403))
@allow(Role.VIEWER)
async def lookup_packages(asked: Annotated[Lookup, Parameters()], edge: TheEdge, clock: TheClock) -> Response:
    """Find parcels by exact tracking code, guide, other code, phone or position; spaces, dashes and case ignored."""
    return await edge.answer(fetch(asked.q, clock()))


DIRECT = direct(lookup, "/api/v1/lookup", Lookup, lambda asked, now, _key: fetch(asked.q, now))
