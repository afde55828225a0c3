"""`GET /api/v1/sites/{site}/positions`: the shelf of a site."""

from datetime import datetime

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
SELECT json_build_object('items', coalesce((
           SELECT json_agg(json_build_object('code', s."position",
               'package', CASE WHEN l.package_id IS NOT NULL THEN {document} END) ORDER BY s.ordinal)
           FROM shelf AS s
           LEFT JOIN package_listing AS l
               ON l.status = 'RECEIVED' AND l.site = s.site AND l."position" = s."position"
           {priced}
           WHERE s.site = t.site), '[]'))::text AS body,
       (SELECT min(fee.next_fee_at) FROM package_listing AS l {priced}
        WHERE l.status = 'RECEIVED' AND l.site = t.site) AS expires_at,
       NULL AS etag
FROM site_list AS t WHERE t.site = %(site)s
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
    """All positions of a site in the order in which they are allotted."""

    items: list[Position]


def fetch(site: str, now: datetime) -> Query:
    """Ask for a site's shelf."""
    identity = {"route": "positions", "site": site}
    scopes = ("status:RECEIVED", "reference")
    return Query(SELECT, identity, now, {"site": site}, scopes, missing="There is no such site")


@positions.get("/sites/{site}/positions", response_model=Shelf, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def list_positions(site: SiteCode, edge: TheEdge, clock: TheClock) -> Response:
    """Show a site's shelf: every position, and the parcel on it or null."""
    return await edge.answer(fetch(site, clock()))
