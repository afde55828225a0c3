"""`GET /api/v1/customers`: the customers by name, or those that words find."""

import functools
import json
from datetime import datetime
from typing import Annotated

from fastapi import Query as Parameters
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from infra.auth import Role, allow
from infra.clock import TheClock
from infra.routing import router
from queries import cursors
from queries.cursors import Cursor
from queries.customers import CUSTOMER_DOCUMENT, CustomerWithCounts
from queries.pages import Query, Row, TheEdge, answers
from queries.parameters import OptionalCursor, OptionalWords, words_of
from queries.sql import compose, stamped

customers = router("customers")

SELECT = """
WITH page AS MATERIALIZED (
    SELECT c.* FROM customer_listing AS c WHERE {conditions} ORDER BY c.name, c.customer_id LIMIT %(limit)s + 1
)
SELECT coalesce(json_agg({document} ORDER BY c.n) FILTER (WHERE c.n <= %(limit)s), '[]')::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag,
       coalesce(max(c.n) > %(limit)s, false) AS has_more,
       max(json_build_array(c.name, c.customer_id)::text) FILTER (WHERE c.n = %(limit)s) AS last_key
FROM (SELECT page.*, row_number() OVER (ORDER BY name, customer_id) AS n FROM page) AS c
"""

AFTER = "(c.name, c.customer_id) > (%(after_name)s, %(after_id)s::uuid)"
WORD = "c.text LIKE (SELECT search_pattern(%({name})s))"


@functools.cache
def statement(words: int, *, is_continued: bool) -> str:
    """Give the statement for so many words, on the first page or a later one."""
    conditions = [compose(WORD, name=f"word_{number}") for number in range(words)]
    conditions += [AFTER] if is_continued else []
    return stamped(compose(SELECT, conditions=" AND ".join(conditions) or "true", document=CUSTOMER_DOCUMENT))


class CustomerPage(BaseModel):
    """Which customers, and which page of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    q: OptionalWords = Field(
        default=None, description="Words of the name, phone, e-mail, document or address; all must match."
    )
    limit: int = Field(default=50, ge=1, le=100)
    cursor: OptionalCursor = None


class CustomerList(BaseModel):
    """A page of customers, by name."""

    items: list[CustomerWithCounts]
    next_cursor: str | None


def fetch(page: CustomerPage, now: datetime, key: str) -> Query:
    """Ask for a page of customers; `key` signs its cursors. A cursor of other words raises Malformed."""
    asked = {"route": "customers", "q": page.q}
    after = cursors.read(page.cursor, asked, key) if page.cursor else None
    words = words_of(page.q)
    binds = {"limit": page.limit} | {f"word_{number}": word for number, word in enumerate(words)}
    if after:
        binds |= dict(zip(("after_name", "after_id"), after.key, strict=True))

    def finish(columns: Row) -> str:
        items, _, _, has_more, last_key = columns
        following = cursors.write(Cursor(tuple(json.loads(last_key))), asked, key) if has_more else None
        return f'{{"items": {items}, "next_cursor": {json.dumps(following)}}}'

    identity = {**asked, "limit": page.limit, "cursor": page.cursor}
    sql = statement(len(words), is_continued=after is not None)
    return Query(sql, identity, now, binds, ("customers", "all"), finish)


@customers.get("/customers", response_model=CustomerList, responses=answers(401, 403))
@allow(Role.VIEWER)
async def list_customers(page: Annotated[CustomerPage, Parameters()], edge: TheEdge, clock: TheClock) -> Response:
    """List customers by name, with how many parcels of theirs are in each status."""
    return await edge.answer(fetch(page, clock(), edge.signing_key))
