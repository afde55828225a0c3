"""`GET /api/v1/packages/{package_id}/history`: who did what with a parcel, and when."""

import uuid
from datetime import datetime
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import Instant
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import stamped

history = router("packages")

SELECT = stamped("""
SELECT json_build_object('items', coalesce((
           SELECT json_agg(json_build_object(
               'type', h.type, 'at', instant(h.at),
               'actor', CASE WHEN h.actor IS NOT NULL
                   THEN json_build_object('staff_id', h.actor, 'name', h.actor_name) END,
               'version', h.version, 'data', h.data) ORDER BY h.position)
           FROM package_history AS h WHERE h.package_id = l.package_id), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_listing AS l WHERE l.package_id = %(package_id)s
""")


class Actor(BaseModel):
    """The signed-in person who did it."""

    staff_id: uuid.UUID
    name: str | None


class HistoryItem(BaseModel):
    """One accepted command; the public and the scheduler have no actor."""

    type: str = Field(examples=["PackageReceived"])
    at: Instant
    actor: Actor | None
    version: int | None
    data: dict[str, Any]


class History(BaseModel):
    """A parcel's change log, oldest first."""

    items: list[HistoryItem]


def fetch(package_id: uuid.UUID, now: datetime) -> Query:
    """Ask for a parcel's change log."""
    identity = {"route": "history", "package_id": package_id}
    return Query(SELECT, identity, now, {"package_id": package_id}, missing="There is no such package")


@history.get("/packages/{package_id}/history", response_model=History, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def package_history(package_id: uuid.UUID, edge: TheEdge, clock: TheClock) -> Response:
    """Tell a parcel's whole change log, oldest first."""
    return await edge.answer(fetch(package_id, clock()))
