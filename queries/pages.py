"""The edge of every query: the token waited for, the cached page tested, the answer's headers.

A page is computed by one statement, whose snapshot also tells the checkpoint and the generations of the page's scopes.
So its bytes, its Consistency-Token and the generation it is kept under can't disagree.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from db.announcements import View
from db.connections import Connections, current_connections
from db.consistency import HEADER, Checkpoint, Token
from db.page_cache import Page, Place
from infra import metrics, tracing
from infra.errors import NotFound, Unavailable
from infra.http import AWAY, problems
from queries.finished import Finished, Sent, takes_gzip
from queries.flights import Flights
from queries.hot_pages import HotPages, Ready

PAUSE = 0.01
"""Seconds between two tries of a server that shows less than what was announced."""

LOOK_FOR_FILL = 0.01
"""Seconds between two looks for a page that another process is computing."""

LOOKS = {
    outcome: [metrics.CACHE_READS.labels(level, result) for level, result in results]
    for outcome, results in {
        "L1": [("L1", "hit")],
        "L2": [("L1", "miss"), ("L2", "hit")],
        "MISS": [("L1", "miss"), ("L2", "miss")],
        "past": [("L1", "bypass"), ("L2", "bypass")],
        "BYPASS": [("L1", "untrusted"), ("L2", "untrusted")],
        "STALE": [("L1", "stale")],
    }.items()
}
"""Which levels a page was looked for in, by where it came from, and what came of it; `past` is by no-store."""

Row = tuple[Any, ...]
Finish = Callable[[Row], str]


def _body(columns: Row) -> str:
    body: str = columns[0]
    return body


@dataclass(frozen=True, slots=True)
class Query:
    """One question: its statement (made by `stamped`), what it binds, and the scopes whose changes can change it.

    Without scopes it is never cached. `until` is when the same parameters begin to ask something else, and what is not
    `is_hot` is never answered ahead of its route. `identity` is what tells its page from another one, `now` left out.
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
    until: datetime | None = None
    is_hot: bool = True

    def digest(self) -> str:
        """Name the page: equal questions have equal names, in whatever order they were put."""
        canonical = json.dumps(self.identity, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()


Flown = tuple[Ready, str]
"""A page, and whence it came."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What the request says besides its parameters, and what the answer is made with."""

    request: Request
    connections: Connections
    hot_pages: HotPages
    flights: Flights[Flown]
    signing_key: str
    token: Token | None
    if_none_match: str
    no_store: bool
    is_gzipped: bool

    async def answer(self, query: Query) -> Response:
        """Answer with the page, from a cache where that is as good as computed now."""
        finished, outcome = await self._finished(query)
        if query.scopes:
            for looked in LOOKS["past" if self.no_store else outcome]:
                looked.inc()
        form = finished.form(is_gzipped=self.is_gzipped)
        age = int((query.now - finished.page.made_at).total_seconds()) if outcome == "STALE" else None
        head = finished.head(form, outcome, age)
        self.hot_pages.recognise(self.request)
        if query.is_hot:
            self.hot_pages.remember(self.request, finished, query.until)
        if form.is_named_by(self.if_none_match):
            return Sent(HTTPStatus.NOT_MODIFIED, head)
        return Sent(HTTPStatus.OK, [*head, *form.content], form.body)

    async def page(self, query: Query) -> tuple[Page, str]:
        """Find or compute the page, and tell which of the two."""
        finished, outcome = await self._finished(query)
        return finished.page, outcome

    async def _finished(self, query: Query) -> tuple[Finished, str]:
        """Do so; with the database away, give the last page that is known."""
        if self.no_store or not query.scopes:
            page, _ = await self._compute(query)
            return Finished(page, self.connections.tokens), "BYPASS"
        digest = query.digest()
        try:
            ready, outcome = await self._ready(query, digest)
        except (*AWAY, Unavailable) as error:
            last = self.hot_pages.last(digest, query.now)
            if last is None or not self._is_new_enough(last.page) or not self._is_away(error):
                raise
            return last, "STALE"
        return ready.finished, outcome

    def _is_away(self, error: Exception) -> bool:
        return self.connections.watcher.is_away or not isinstance(error, Unavailable)

    async def _ready(self, query: Query, digest: str) -> Flown:
        ready = self.hot_pages.find(digest, query.now)
        if ready is not None and self._is_new_enough(ready.finished.page):
            return ready, "L1"
        view, announced = self.hot_pages.announcements.current, self.connections.watcher.current
        place, found = await self.connections.page_cache.find(digest, query.scopes)
        if found is not None and self._is_good(found, query):
            return self._keep(query, digest, found, place, view), "L2"
        await self.wait()
        known = place.generation if place else None
        needed = known if known is not None or announced is None else announced.batch

        def is_good(flown: Flown) -> bool:
            page = flown[0].finished.page
            return needed is not None and page.checkpoint.batch >= needed and page.is_current(query.now)

        ready, outcome = await self.flights.share(digest, lambda: self._fill(query, digest, place, view), is_good)
        if self._is_new_enough(ready.finished.page):
            return ready, outcome
        page, _ = await self._compute(query)
        return self._keep(query, digest, page, None, None), outcome

    async def _fill(self, query: Query, digest: str, place: Place | None, view: View | None) -> Flown:
        """Compute the page, unless another process is about to: then wait for what it leaves."""
        cache = self.connections.page_cache
        while place is not None:
            claim, latest, found = await cache.claim(place)
            if found is not None and self._is_good(found, query):
                if claim is not None:
                    await cache.release(place, claim)
                return self._keep(query, digest, found, latest, view), "L2"
            if claim is not None:
                return await self._fill_claimed(query, digest, place, claim, view), "MISS"
            await asyncio.sleep(LOOK_FOR_FILL)
            place = latest
        page, _ = await self._compute(query)
        return self._keep(query, digest, page, None, None), "BYPASS"

    async def _fill_claimed(self, query: Query, digest: str, place: Place, claim: str, view: View | None) -> Ready:
        """Compute the page, and leave it for the others where it shows what they must see."""
        cache = self.connections.page_cache
        announced = self.connections.watcher.current
        started = time.perf_counter()
        is_released = False
        try:
            page, generations = await self._compute(query)
            # A lagging replica's generations are older than what was announced: its page is shown, but not kept.
            if announced is None or page.checkpoint.batch < announced.batch:
                return self._keep(query, digest, page, None, None)
            is_released = await cache.keep(place, page, generations, query.now, claim)
            await self._tell_of_fill(max(generations), time.perf_counter() - started)
            return self._keep(query, digest, page, place, view)
        finally:
            if not is_released:
                await cache.release(place, claim)

    async def _tell_of_fill(self, batch: int, seconds: float) -> None:
        """Count the page, and tell of it in the traces of the commands that made its last batch."""
        metrics.CACHE_FILL_SECONDS.observe(seconds)
        if tracing.is_on():
            route = getattr(self.request.scope.get("route"), "path", "unknown")
            for request_id in await self.connections.page_cache.requests_of(batch):
                tracing.tell_consequence(request_id, "refresh page", seconds, batch=batch, route=route)

    def _keep(self, query: Query, digest: str, page: Page, place: Place | None, view: View | None) -> Ready:
        is_of_view = place is not None and view is not None and place.epoch == view.epoch
        finished = Finished(page, self.connections.tokens, digest)
        return self.hot_pages.keep(finished, query.scopes, view if is_of_view else None)

    def _is_good(self, page: Page, query: Query) -> bool:
        return page.is_current(query.now) and self._is_new_enough(page)

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
            if loop.time() >= deadline:  # the primary has just been replaced
                raise Unavailable("The listing doesn't include that change yet")
            await asyncio.sleep(PAUSE)
        _, expires_at, etag = columns[:3]
        if columns[0] is None:
            raise NotFound(query.missing)
        body = query.finish(columns).encode()
        tag = etag or f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return Page(body, tag, checkpoint, expires_at, query.now), generations

    async def _run(self, query: Query) -> tuple[Checkpoint, list[int], Row]:
        binds = {"scopes": list(query.scopes), "now": query.now, **query.binds}
        prepare = False if query.plan_by_values else None
        row = await self.connections.readers.fetch(query.statement, binds, self._is_shown_by, prepare=prepare)
        if row is None:
            raise Unavailable("The projections are being set up")
        incarnation, batch, snapshot, generations, *columns = row
        return Checkpoint(incarnation, batch, snapshot), generations, tuple(columns)

    def _is_shown_by(self, row: Row) -> bool:
        """Tell whether a standby's answer includes what the token names."""
        return self.token is None or self.token.is_met_by(Checkpoint(*row[:3]))

    def _is_new_enough(self, page: Page) -> bool:
        return self.token is None or self.token.is_met_by(page.checkpoint)


def edge_of(
    request: Request, token: Token | None, if_none_match: str | None = None, cache_control: str | None = None
) -> Edge:
    """Make the edge of a request that shows this token."""
    directives = {part.strip().lower() for part in (cache_control or "").split(",")}
    state = request.app.state
    return Edge(
        request,
        current_connections(request),
        state.hot_pages,
        state.flights,
        state.signing_key,
        token,
        if_none_match or "",
        "no-store" in directives,
        takes_gzip(request.headers.get("Accept-Encoding", "")),
    )


async def edge(
    request: Request,
    consistency_token: Annotated[
        str | None, Header(description="Of an earlier answer; this one then includes at least that change.")
    ] = None,
    if_none_match: Annotated[str | None, Header(description="ETags that are known already.")] = None,
    cache_control: Annotated[str | None, Header(description="`no-store` goes past the cache.")] = None,
) -> Edge:
    """Read the headers that every query takes; a token that isn't ours raises Malformed."""
    tokens = current_connections(request).tokens
    token = None if consistency_token is None else tokens.read(consistency_token)
    return edge_of(request, token, if_none_match, cache_control)


TheEdge = Annotated[Edge, Depends(edge)]

HEADERS = {
    "ETag": {"description": "Strong; of the answer's bytes.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Always `private, no-cache`.", "schema": {"type": "string"}},
    "X-Cache": {
        "description": "Where the answer comes from.",
        "schema": {"type": "string", "enum": ["L1", "L2", "MISS", "BYPASS", "STALE"]},
    },
    "Vary": {"description": "Always `Accept-Encoding`.", "schema": {"type": "string"}},
    "Age": {
        "description": "Seconds; of a page that is `STALE` alone.",
        "schema": {"type": "integer"},
        "required": False,
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
