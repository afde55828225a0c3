"""`GET /api/v1/packages/{package_id}`: one parcel with all that is known of it."""

import uuid
from datetime import datetime

from fastapi import Response
from pydantic import BaseModel

from db.package_document import PACKAGE_DOCUMENT, PRICED, Package, PaymentMethod
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import Instant, Pesos
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, extended, stamped

package = router("packages")

DETAILS = """json_build_object(
    'observations', l.observations, 'cancellation_reason', l.cancellation_reason,
    'payments', coalesce((
        SELECT json_agg(json_build_object(
            'payment_id', y.payment_id, 'site', y.site, 'method', y.method, 'amount', y.amount, 'due', y.due,
            'amount_reason', y.amount_reason, 'collected_by', y.collected_by, 'staff_id', y.staff_id,
            'at', instant(y.at)) ORDER BY y.at, y.payment_id)
        FROM payment_listing AS y WHERE y.package_id = l.package_id), '[]'),
    'photos', coalesce((
        SELECT json_agg(json_build_object(
            'photo_id', f.photo_id, 'media_type', f.media_type, 'bytes', f.bytes, 'at', instant(f.at))
            ORDER BY f.at, f.photo_id)
        FROM package_photos AS f WHERE f.package_id = l.package_id), '[]'))"""

# The customer's name is shown here, and changes without the package's version: an edited customer adds a third number.
SELECT = stamped(
    compose(
        """
SELECT {document}::text AS body,
       CASE l.status WHEN 'RECEIVED' THEN fee.next_fee_at END AS expires_at,
       '"' || l.version || '.' || coalesce(l.storage_days, fee.storage_days)
           || coalesce('.' || nullif(c.version, 1), '') || '"' AS etag
FROM package_listing AS l LEFT JOIN customer_listing AS c ON c.customer_id = l.customer_id {priced}
WHERE l.package_id = %(package_id)s
""",
        document=extended(PACKAGE_DOCUMENT, DETAILS),
        priced=PRICED,
    )
)


class Payment(BaseModel):
    """What was paid; a reversal has the opposite sign."""

    payment_id: uuid.UUID
    site: str
    method: PaymentMethod
    amount: Pesos
    due: Pesos
    amount_reason: str | None
    collected_by: str | None
    staff_id: uuid.UUID
    at: Instant


class Photo(BaseModel):
    """A picture of the parcel, to be fetched by its id."""

    photo_id: uuid.UUID
    media_type: str
    bytes: int
    at: Instant


class PackageDetails(Package):
    """One parcel with its payments and photos."""

    observations: str | None
    cancellation_reason: str | None
    payments: list[Payment]
    photos: list[Photo]


def fetch(package_id: uuid.UUID, now: datetime) -> Query:
    """Ask for one parcel."""
    identity = {"route": "package", "package_id": package_id}
    return Query(SELECT, identity, now, {"package_id": package_id}, ("all",), missing="There is no such package")


@package.get("/packages/{package_id}", response_model=PackageDetails, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def get_package(package_id: uuid.UUID, edge: TheEdge, clock: TheClock) -> Response:
    """Show one parcel; its `ETag` is `"<version>.<fee step>"`, and its version is what `If-Match` takes."""
    return await edge.answer(fetch(package_id, clock()))
