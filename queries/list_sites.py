"""`GET /api/v1/sites`: the shops, with their opening hours."""

from datetime import datetime

from fastapi import Response
from pydantic import BaseModel

from db.documents import Site
from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import stamped

sites = router("sites")

SELECT = stamped("""
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'site', s.site, 'name', s.name, 'address', s.address, 'phone', s.phone, 'opening_hours', s.opening_hours,
           'version', s.version) ORDER BY s.site), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM site_list AS s
""")


class SiteList(BaseModel):
    """All shops, by code."""

    items: list[Site]


def fetch(now: datetime) -> Query:
    """Ask for the shops."""
    return Query(SELECT, {"route": "sites"}, now, scopes=("reference",))


@sites.get("/sites", response_model=SiteList, responses=answers(401))
@allow(PUBLIC)
async def list_sites(edge: TheEdge, clock: TheClock) -> Response:
    """List the shops with their opening hours."""
    return await edge.answer(fetch(clock()))
