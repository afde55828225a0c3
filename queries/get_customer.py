"""`GET /api/v1/customers/{customer_id}`: one customer."""

import uuid
from datetime import datetime

from fastapi import Response

from db.page_cache import customer_scopes
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.routing import router
from queries.customers import CUSTOMER_DOCUMENT, CustomerWithCounts
from queries.pages import Query, TheEdge, answers
from queries.sql import compose, stamped

customer = router("customers")

SELECT = stamped(
    compose(
        """
SELECT {document}::text AS body, NULL::timestamptz AS expires_at, NULL AS etag
FROM customer_listing AS c WHERE c.customer_id = %(customer_id)s
""",
        document=CUSTOMER_DOCUMENT,
    )
)


def fetch(customer_id: uuid.UUID, now: datetime) -> Query:
    """Ask for one customer."""
    identity = {"route": "customer", "customer_id": customer_id}
    binds = {"customer_id": customer_id}
    return Query(SELECT, identity, now, binds, customer_scopes(customer_id), missing="There is no such customer")


@customer.get("/customers/{customer_id}", response_model=CustomerWithCounts, responses=answers(401, 403, 404))
@allow(Role.VIEWER)
async def get_customer(customer_id: uuid.UUID, edge: TheEdge, clock: TheClock) -> Response:
    """Show one customer, with how many parcels of theirs are in each status."""
    return await edge.answer(fetch(customer_id, clock()))
