"""The edge of every query: the token waited for, the cached page tested, the answer's headers.

A page is computed by one statement, whose snapshot also tells the checkpoint and the generations of the page's scopes.
So its bytes, its Consistency-Token and the generation it is kept under can't disagree.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response

from db.connections import Connections, current_connections
from db.consistency import HEADER, Checkpoint, Token
from db.page_cache import Page
from infra import metrics
from infra.errors import NotFound, Unavailable
from infra.http import problems

PAUSE = 0.01
"""Seconds between two tries of a replica that lags behind what the primary has announced."""

ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")|(\*)')

Row = tuple[Any, ...]
Finish = Callable[[Row], str]
Text = TypeVar("Text")


def _body(columns: Row) -> str:
    body: str = columns[0]
    return body


@dataclass(frozen=True, slots=True)
class Query:
    """One question: its statement (made by `stamped`), what it binds, and the scopes whose changes can change it.

    Without scopes it is never cached. `identity` is what tells its page from another one, `now` left out.
    `plan_by_values` is for statements that no one plan suits: they aren't prepared.
    """

    statement: str
    identity: Mapping[str, Any]
    now: datetime
    binds: Mapping[str, Any] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    finish: Finish = _body
    missing: str = "There is nothing under this address"
    plan_by_values: bool = False

    def digest(self) -> str:
        """Name the page: equal questions have equal names, in whatever order they were put."""
        canonical = json.dumps(self.identity, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Edge:
    """What the request says besides its parameters, and what the answer is made with."""

    connections: Connections
    signing_key: str
    token: Token | None
    if_none_match: str
    no_store: bool

    async def answer(self, query: Query) -> Response:
        """Answer with the page, from the cache where that is as good as computed now."""
        page, outcome = await self.page(query)
        metrics.CACHE_READS.labels(outcome).inc()
        token = Token(page.checkpoint.incarnation, batch=page.checkpoint.batch)
        headers = {
            "ETag": page.etag,
            "Cache-Control": "private, no-cache",
            "X-Cache": outcome,
            HEADER: self.connections.tokens.sign(token),
        }
        if self._has_already(page.etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(page.body, headers=headers, media_type="application/json")

    async def page(self, query: Query) -> tuple[Page, str]:
        """Find or compute the page, and tell which of the two."""
        if self.no_store or not query.scopes:
            page, _ = await self._compute(query)
            return page, "BYPASS"
        cache = self.connections.page_cache
        place, found = await cache.find(query.digest(), query.scopes)
        if found is not None and found.is_current(query.now) and self._is_new_enough(found.checkpoint):
            return found, "L2"
        announced = self.connections.watcher.current
        page, generations = await self._compute(query)
        if place is None:
            return page, "BYPASS"
        # A lagging replica's generations are older than what has been announced: its page is shown, but not kept.
        if announced is None or page.checkpoint.batch >= announced.batch:
            await cache.keep(place, page, generations, query.now)
        return page, "MISS"

    async def wait(self) -> None:
        """Wait until the primary's read models hold the request's token; bounded, then Unavailable."""
        if self.token is not None:
            await self.connections.watcher.wait_for(self.token, self.connections.settings.consistency_wait)

    async def _compute(self, query: Query) -> tuple[Page, list[int]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.connections.settings.consistency_wait
        await self.wait()
        while True:
            checkpoint, generations, columns = await self._run(query)
            if self.token is None or self.token.held_by(checkpoint):
                break
            if loop.time() >= deadline:  # a replica lags; the primary has it
                raise Unavailable("The listing doesn't include that change yet")
            await asyncio.sleep(PAUSE)
        _, expires_at, etag = columns[:3]
        if columns[0] is None:
            raise NotFound(query.missing)
        body = query.finish(columns).encode()
        return Page(body, etag or f'"{hashlib.sha256(body).hexdigest()[:32]}"', checkpoint, expires_at), generations

    async def _run(self, query: Query) -> tuple[Checkpoint, list[int], Row]:
        binds = {"scopes": list(query.scopes), "now": query.now, **query.binds}
        async with self.connections.read_pool.connection() as conn:
            prepare = False if query.plan_by_values else None
            row = await (await conn.execute(query.statement, binds, prepare=prepare)).fetchone()
        if row is None:
            raise Unavailable("The projections are being set up")
        incarnation, batch, snapshot, generations, *columns = row
        return Checkpoint(incarnation, batch, snapshot), generations, tuple(columns)

    def _is_new_enough(self, checkpoint: Checkpoint) -> bool:
        if self.token is None:
            return True
        # Another life's token is refused by what PostgreSQL says, not by what a cache remembers.
        return self.token.incarnation == checkpoint.incarnation and self.token.held_by(checkpoint)

    def _has_already(self, etag: str) -> bool:
        return any(star or tag == etag for tag, star in ENTITY_TAG.findall(self.if_none_match))


async def edge(
    request: Request,
    consistency_token: Annotated[
        str | None, Header(description="Of an earlier answer; this one then includes at least that change.")
    ] = None,
    if_none_match: Annotated[str | None, Header(description="ETags that are known already.")] = None,
    cache_control: Annotated[str | None, Header(description="`no-store` goes past the cache.")] = None,
) -> Edge:
    """Read the headers that every query takes; a token that isn't ours raises Malformed."""
    connections = current_connections(request)
    token = None if consistency_token is None else connections.tokens.read(consistency_token)
    directives = {part.strip().lower() for part in (cache_control or "").split(",")}
    return Edge(connections, request.app.state.signing_key, token, if_none_match or "", "no-store" in directives)


TheEdge = Annotated[Edge, Depends(edge)]

HEADERS = {
    "ETag": {"description": "Strong; of the answer's bytes.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Always `private, no-cache`.", "schema": {"type": "string"}},
    "X-Cache": {
        "description": "Where the answer comes from.",
        "schema": {"type": "string", "enum": ["L1", "L2", "MISS", "BYPASS", "STALE"]},
    },
    HEADER: {
        "description": "What the answer includes: sent back, one sees no less.",
        "schema": {"type": "string"},
    },
}


def answers(*refusals: int) -> dict[int | str, dict[str, Any]]:
    """Document the answers of a query: its page, 304, and the refusals it shares with the others."""
    return {
        200: {"headers": HEADERS},
        304: {"description": "Not Modified", "headers": HEADERS},
        **problems(*refusals),
    }
