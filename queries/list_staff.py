"""`GET /api/v1/staff`: who may sign in."""

from datetime import datetime

from fastapi import Response
from pydantic import BaseModel

from db.documents import StaffMember
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import stamped

staff = router("staff")

SELECT = stamped("""
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'staff_id', w.staff_id, 'username', w.username, 'full_name', w.full_name, 'role', w.role,
           'active', w.active, 'version', w.version, 'created_at', instant(w.created_at))
           ORDER BY w.username), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM staff_list AS w
""")


class StaffList(BaseModel):
    """Everybody who may or might sign in, by username."""

    items: list[StaffMember]


def fetch(now: datetime) -> Query:
    """Ask for the staff."""
    return Query(SELECT, {"route": "staff"}, now)


@staff.get("/staff", response_model=StaffList, responses=answers(401, 403))
@allow(Role.ADMIN)
async def list_staff(edge: TheEdge, clock: TheClock) -> Response:
    """List the staff."""
    return await edge.answer(fetch(clock()))
