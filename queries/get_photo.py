"""`GET /api/v1/photos/{photo_id}`: a picture of a parcel, for whoever may see the parcel."""

import json
import uuid
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import Response

from db.connections import TheConnections
from db.photo_store import photo_store
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.http import problems
from infra.routing import router
from queries.finished import is_named_by
from queries.pages import Query, TheEdge
from queries.sql import stamped

photo = router("packages")

SELECT = stamped("""
SELECT json_build_object('media_type', f.media_type, 'object_key', f.object_key)::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_photos AS f WHERE f.photo_id = %(photo_id)s
""")

FOREVER = "private, max-age=31536000, immutable"
"""A photo never changes; a browser keeps it for the person who saw it, and nothing on the way does."""

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "ETag": {"description": "Strong; the photo's own.", "schema": {"type": "string"}},
            "Cache-Control": {"description": f"Always `{FOREVER}`.", "schema": {"type": "string"}},
        },
    },
    304: {"description": "Not Modified"},
    **problems(401, 403, 404),
}


def fetch(photo_id: uuid.UUID, now: datetime) -> Query:
    """Ask where a photo's bytes are."""
    identity = {"route": "photo", "photo_id": photo_id}
    return Query(SELECT, identity, now, {"photo_id": photo_id}, missing="There is no such photo")


@photo.get("/photos/{photo_id}", response_class=Response, responses=DOCUMENTED)
@allow(Role.VIEWER)
async def get_photo(photo_id: uuid.UUID, connections: TheConnections, edge: TheEdge, clock: TheClock) -> Response:
    """Send a parcel's photo; its bytes never change."""
    page, _ = await edge.page(fetch(photo_id, clock()))
    headers = {"ETag": f'"{photo_id}"', "Cache-Control": FOREVER}
    if is_named_by(headers["ETag"], edge.if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    row = json.loads(page.body)
    body = await photo_store(connections.settings.photos_location).get(row["object_key"])
    safe = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(body, headers=headers | safe, media_type=row["media_type"])
