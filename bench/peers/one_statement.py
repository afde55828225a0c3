"""One prepared statement's JSON passed on: the statement that the product's cold page runs, and nothing around it."""

import base64
import json
from collections.abc import AsyncGenerator
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Receive, Scope

from bench.peers.bare import Answer, application, given, open_pool
from infra.clock import system_clock
from infra.settings import Settings
from queries import list_packages, lookup_packages
from queries.listing_statement import COUNTED
from queries.pages import Query, Row


def question(address: str, key: str) -> Query:
    """Give what the product asks of the database for this address, of the listing or the lookup."""
    parts = urlsplit(address)
    parameters = parse_qs(parts.query)
    if parts.path.endswith("/lookup"):
        return lookup_packages.fetch(parameters["q"][0], system_clock())
    values = {name: texts if name == "status" else texts[0] for name, texts in parameters.items()}
    page = list_packages.PackagePage.model_validate(values)
    return list_packages.fetch(page, system_clock(), key, page.limit, page.cursor)


def body_of(columns: Row) -> bytes:
    """Put the page together; a cursor that nobody signed serves as well here."""
    if len(columns) == len(("body", "expires_at", "etag")):
        found: str = columns[0]
        return found.encode()
    items, _, _, has_more, last_key, count = columns
    following = json.dumps(base64.b64encode(last_key.encode()).decode()) if has_more else "null"
    is_minimum = count == COUNTED + 1  # where the statement stops counting
    return (
        f'{{"items": {items}, "next_cursor": {following}, '
        f'"count": {COUNTED if is_minimum else count}, "count_is_minimum": {json.dumps(is_minimum)}}}'
    ).encode()


def create_app() -> ASGIApp:
    """Answer the given `addresses`, each by its statement."""
    key = Settings.load().signing_key()
    questions = {urlsplit(address).query.encode(): question(address, key) for address in given()["addresses"]}

    async def answering() -> AsyncGenerator[Answer, None]:
        async with open_pool() as pool:

            async def answer(scope: Scope, _receive: Receive) -> bytes:
                query = questions[scope["query_string"]]
                binds = {"scopes": list(query.scopes), "now": system_clock(), **query.binds}
                async with pool.connection() as conn:
                    found = await conn.execute(query.statement, binds, prepare=not query.plan_by_values)
                    row = await found.fetchone()
                return body_of(row[4:]) if row else b""

            yield answer

    return application(answering)
