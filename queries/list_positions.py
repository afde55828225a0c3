"""`GET /api/v1/sites/{site}/positions`: the shelf of a site."""

from datetime import datetime
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import BaseModel, Field

from db.package_document import PACKAGE_DOCUMENT, PRICED, Package
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import SiteCode
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, stamped

positions = router("sites")

SELECT = stamped(
    compose(
        """
SELECT shown.body, shown.expires_at, NULL AS etag
FROM site_list AS t CROSS JOIN LATERAL (
    SELECT json_build_object('items', coalesce(json_agg(json_build_object('code', s."position",
               'package', CASE WHEN l.package_id IS NOT NULL THEN {document} END) ORDER BY s.ordinal), '[]'))::text
               AS body,
           min(fee.next_fee_at) AS expires_at
    FROM (SELECT * FROM shelf WHERE shelf.site = t.site
          ORDER BY shelf.ordinal LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint) AS s
    LEFT JOIN package_listing AS l ON l.status = 'RECEIVED' AND l.site = s.site AND l."position" = s."position"
    {priced}
) AS shown
WHERE t.site = %(site)s
""",
        document=PACKAGE_DOCUMENT,
        priced=PRICED,
    )
)


class Position(BaseModel):
    """A place for one parcel, and the parcel that stands there."""

    code: str = Field(examples=["07"])
    package: Package | None


class Shelf(BaseModel):
    """Positions of a site in the order in which they are allotted; all of them, or the part that was asked for."""

    items: list[Position]


def fetch(site: str, now: datetime, limit: int | None = None, offset: int = 0) -> Query:
    """Ask for a site's shelf, or for so many positions after the first ones."""
    part = {"site": site, "limit": limit, "offset": offset}
    scopes = ("status:RECEIVED", "reference")
    return Query(SELECT, {"route": "positions", **part}, now, part, scopes, missing="There is no such site")


@positions.get("/sites/{site}/positions", response_model=Shelf, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def list_positions(
    site: SiteCode,
    edge: TheEdge,
    clock: TheClock,
    limit: Annotated[int | None, Parameter(ge=1, le=1000, description="All where left out.")] = None,
    offset: Annotated[int, Parameter(ge=0, le=1_000_000, description="Positions to leave out before.")] = 0,
) -> Response:
    """Show a site's shelf: each position, and the parcel on it or null."""
    return await edge.answer(fetch(site, clock(), limit, offset))
