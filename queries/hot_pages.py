"""Pages in the process, as finished bytes: a request that is known is answered ahead of FastAPI, without being parsed.

Where `infra.serving` serves, that is at once, as soon as its headers are in.

A page is believed while the view that it was made under is: no announcement can have passed it by (see
`db.announcements`), none raised one of its scopes above the batch it shows, and time hasn't changed it. Whoever asks
must be known, too (see `db.staff_sessions`). Whatever is the least bit unusual goes the long way through FastAPI, where
every refusal is made, and which finishes pages from the same headers and bytes.

What is no longer believed stays until others need its room: with the database away it is the last that is known.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.types import Scope

from db.announcements import Announcements, View
from db.connections import Connections
from infra import logs, metrics
from infra.auth import Caller, Role
from infra.clock import Clock
from infra.errors import Malformed
from infra.http import Lifespan, Whole, is_request_id
from infra.routing import GuardedRoute
from infra.tasks import running
from queries.finished import Finished, takes_gzip
from queries.flights import Flights

log = logs.get("hot_pages")

MOST_BYTES = 24 * 1024 * 1024
"""What the pages of a process may take; the one that wasn't asked for longest goes first."""

MOST_CALLERS = 10_000

STALE_FOR = timedelta(minutes=5)
"""How old a page may be that is shown because the database is away."""

FLUSH = 0.5
"""Seconds between two times that hits, counted in plain integers, are added to the metrics."""

SAMPLE = 60.0
"""Seconds between two log lines that tell of hits."""

RawRequest = tuple[str, bytes]
"""A path and a query string, as they came."""


@dataclass(slots=True, eq=False)
class Ready:
    """A finished page, and as long as what it may be shown."""

    finished: Finished
    scopes: Sequence[str]
    view: View | None
    until: datetime
    checked: int = -1
    known: dict[RawRequest, "Known"] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes of memory it takes, more or less."""
        return self.finished.size + sum(len(path) + len(query) + 500 for path, query in self.known)

    def is_current(self) -> bool:
        """Tell whether everything that was announced for its scopes is on it, its view being trusted."""
        if self.view is None:
            return False
        if self.checked != self.view.version:
            if not self.view.holds(self.scopes, self.finished.page.checkpoint.batch):
                return False
            self.checked = self.view.version
        return True


@dataclass(slots=True, eq=False)
class Hits:
    """How often a route was answered from here since the last flush."""

    pages: int = 0
    unchanged: int = 0
    sent: int = 0


@dataclass(slots=True, eq=False)
class Known:
    """What a raw request comes to: its page, who may see it, and until when it is the same question."""

    ready: Ready
    access: Role | None
    until: datetime | None
    hits: Hits


@dataclass(slots=True, eq=False)
class Recognised:
    """Who somebody's credentials name, as of a count of changes of staff."""

    role: Role
    until: datetime
    staff_changes: int


def credentials_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Give what somebody identifies themselves by, as it came: the header for it, else the cookies."""
    authorization = headers.get(b"authorization")
    return b"cookie: " + headers.get(b"cookie", b"") if authorization is None else authorization


class HotPages:
    """The pages of one process."""

    def __init__(self, connections: Connections, announcements: Announcements, clock: Clock) -> None:
        self.announcements = announcements
        self._tokens = connections.tokens
        self._watcher = connections.watcher
        self._sessions = connections.sessions
        self._ttl = timedelta(seconds=connections.settings.cache_ttl)
        self._clock = clock
        self._pages: OrderedDict[str, Ready] = OrderedDict()
        self._bytes = 0
        self._evicted = 0
        self._known: dict[RawRequest, Known] = {}
        self._recognised: dict[bytes, Recognised] = {}
        self._hits: dict[str, Hits] = {}
        ours = secrets.token_hex(8)
        self._request_ids = (f"{ours}{number:016x}".encode() for number in itertools.count())

    def answer(self, scope: Scope) -> Whole | None:
        """Give the whole answer to a request that is known, or None: then it goes the long way."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        known = self._known.get((scope["path"], scope["query_string"]))
        if known is None:
            return None
        headers = dict(scope["headers"])
        now = self._clock()
        if (
            len(headers) != len(scope["headers"])
            or not self.is_let_in(headers, known.access, now)
            or not self._may_show(known, headers, now)
        ):
            return None
        return self._finish(known, headers)

    def is_let_in(self, headers: dict[bytes, bytes], access: Role | None, now: datetime) -> bool:
        """Tell whether these headers are known to be somebody's who may see what needs this role."""
        if access is None and b"authorization" not in headers:
            return True
        caller = self._recognised.get(credentials_of(headers))
        return (
            caller is not None
            and caller.staff_changes == self._watcher.staff_changes
            and time.monotonic() < self._watcher.heard_until
            and now < caller.until
            and (access is None or caller.role.reaches(access))
        )

    def _may_show(self, known: Known, headers: dict[bytes, bytes], now: datetime) -> bool:
        ready = known.ready
        if (
            ready.view is not self.announcements.view
            or time.monotonic() >= self.announcements.trusted_until
            or now > ready.until
            or (known.until is not None and now >= known.until)
            or not ready.is_current()
            or b"no-store" in headers.get(b"cache-control", b"").lower()
        ):
            return False
        token = headers.get(b"consistency-token")
        return token is None or self._is_met(token, ready)

    def _is_met(self, text: bytes, ready: Ready) -> bool:
        try:
            token = self._tokens.read(text.decode("latin-1"))
        except Malformed:
            return False
        return token.is_met_by(ready.finished.page.checkpoint)

    def _finish(self, known: Known, headers: dict[bytes, bytes]) -> Whole:
        ready = known.ready
        self._pages.move_to_end(ready.finished.digest)
        accepted = headers.get(b"accept-encoding")
        hot = ready.finished.hot(is_gzipped=accepted is not None and takes_gzip(accepted.decode("latin-1")))
        request_id = headers.get(b"x-request-id")
        if request_id is None or not is_request_id(request_id):
            request_id = next(self._request_ids)
        asked = headers.get(b"if-none-match")
        if asked is not None and hot.form.is_named_by(asked.decode("latin-1")):
            known.hits.unchanged += 1
            return Whole(HTTPStatus.NOT_MODIFIED, hot.unchanged, b"", request_id)
        known.hits.pages += 1
        known.hits.sent += len(hot.form.body)
        return Whole(HTTPStatus.OK, hot.whole, hot.form.body, request_id)

    def find(self, digest: str, now: datetime) -> Ready | None:
        """Give the page of a question that was parsed, if it is to be believed."""
        ready = self._pages.get(digest)
        if ready is None or ready.view is not self.announcements.current or now > ready.until or not ready.is_current():
            return None
        return ready

    def last(self, digest: str, now: datetime) -> Finished | None:
        """Give the last page that is known of a question, while it may be shown with the database away."""
        ready = self._pages.get(digest)
        if ready is None:
            return None
        page = ready.finished.page
        return ready.finished if page.is_current(now) and now - page.made_at <= STALE_FOR else None

    def keep(self, finished: Finished, scopes: Sequence[str], view: View | None) -> Ready:
        """Keep a page that was asked for under a view; that has ended meanwhile, it is kept as the last known."""
        page = finished.page
        until = page.made_at + self._ttl
        if page.expires_at is not None:
            until = min(until, page.expires_at)
        digest = finished.digest
        ready = Ready(finished, tuple(scopes), view, until)
        if (old := self._pages.pop(digest, None)) is not None:
            self._bytes -= old.size
            ready.known = old.known
            for known in old.known.values():
                known.ready = ready
        self._pages[digest] = ready
        self._bytes += ready.size
        self._make_room()
        return ready

    def remember(self, request: Request, finished: Finished, until: datetime | None) -> None:
        """Know the request the next time that it comes; at `until` it becomes another question."""
        ready, route = self._pages.get(finished.digest), request.scope["route"]
        if ready is None or ready.finished is not finished or not isinstance(route, GuardedRoute):
            return
        raw = (request.scope["path"], request.scope["query_string"])
        if raw not in ready.known:
            before = ready.size
            hits = self._hits.setdefault(route.path, Hits())
            ready.known[raw] = self._known[raw] = Known(ready, route.access, until, hits)
            self._bytes += ready.size - before
            self._make_room()

    def recognise(self, request: Request) -> None:
        """Know who asks the next time that they do."""
        caller: Caller | None = request.state.caller
        if caller is None or not self._sessions.remembers(caller.verified.session):
            return
        if len(self._recognised) >= MOST_CALLERS:
            del self._recognised[next(iter(self._recognised))]
        until = datetime.fromtimestamp(caller.verified.expires_at, UTC)
        credentials = credentials_of(dict(request.scope["headers"]))
        self._recognised[credentials] = Recognised(caller.identity.role, until, self._watcher.staff_changes)

    def _make_room(self) -> None:
        while self._bytes > MOST_BYTES and self._pages:
            _, gone = self._pages.popitem(last=False)
            self._bytes -= gone.size
            self._evicted += 1
            for raw in gone.known:
                del self._known[raw]
            gone.known.clear()  # each knows the page: its bytes would wait for a collection of the garbage

    async def flush_for_ever(self) -> None:
        """Add the hits to the metrics, and tell of them in the log now and then."""
        told_at = 0.0
        while True:
            await asyncio.sleep(FLUSH)
            self.flush()
            if time.monotonic() - told_at >= SAMPLE and self._pages:
                told_at = time.monotonic()
                log.info("hot_pages", pages=len(self._pages), requests=len(self._known), bytes=self._bytes)

    def flush(self) -> None:
        """Add the hits to the metrics, and tell what the pages take."""
        for route, hits in self._hits.items():
            counted = replace(hits)
            hits.pages = hits.unchanged = hits.sent = 0
            metrics.CACHE_READS.labels("L1", "hit").inc(counted.pages + counted.unchanged)
            metrics.HOT_ANSWERS.labels(route, 200).inc(counted.pages)
            metrics.HOT_ANSWERS.labels(route, 304).inc(counted.unchanged)
            metrics.HOT_ANSWER_BYTES.labels(route).inc(counted.sent)
        metrics.CACHE_EVICTIONS.inc(self._evicted)
        self._evicted = 0
        metrics.CACHE_PAGES.set(len(self._pages))
        metrics.CACHE_BYTES.set(self._bytes)


def with_hot_pages(lifespan: Lifespan) -> Lifespan:
    """Add `app.state.hot_pages` to a lifespan that opens the connections, and let them answer in front of the app."""

    @contextlib.asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            connections: Connections = app.state.connections
            announcements = Announcements(connections.redis)
            pages = HotPages(connections, announcements, app.state.clock)
            app.state.hot_pages, app.state.front, app.state.flights = pages, pages.answer, Flights()
            async with running(announcements.run(), pages.flush_for_ever()):
                yield
            pages.flush()

    return opened
