"""The one place that opens a command's transaction, commits it, makes it idempotent and writes its headers."""

import contextlib
import functools
import hmac
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

import psycopg
from fastapi import Depends, Header, Request, Response
from prometheus_client import Counter
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from commands import prepared
from commands.prepared import Shown
from db import consistency
from db.change_log import Change
from db.connections import Connections, current_connections
from db.pools import Connection
from infra import keys, metrics
from infra.addresses import client_address
from infra.auth import SESSION_ENDED, Caller, Identity, anyone
from infra.clock import Clock, current_clock
from infra.errors import PROBLEM_TYPE, Conflict, Malformed, PreconditionFailed, Problem, Unauthenticated, Unavailable

OK, CREATED = HTTPStatus.OK, HTTPStatus.CREATED

ATTEMPTS = 5
"""How often a transaction is begun when others get in its way: each new attempt sees what they committed."""

KEPT_FOR = timedelta(hours=24)

THROTTLED = "public-commands"
"""What the public's commands are counted as, by whichever page or endpoint they come."""

CHUNK = 5000
"""Rows that one transaction of a job touches."""

RETRIED = frozenset({"packages_active_guide_key", "packages_tracking_code_key"})
"""Constraints that another command won in a race: the next attempt looks again, or draws another code."""

REFUSALS = {
    "packages_active_guide_key": "This guide number is in use by another parcel",
    "packages_tracking_code_key": "No free tracking code was found: try again",
    "customers_phone_key": "This phone number belongs to another customer",
    "sites_code_key": "There is a site of this code already",
    "positions_code_key": "The site has a position of this code already",
    "staff_username_key": "There is a member of staff of this name already",
    "tariffs_valid_from_key": "There is a tariff from this instant on already",
}
"""What a constraint's name means to the caller."""

ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

CLAIM = """
INSERT INTO idempotency_keys AS kept (actor, method, path, key, request_hash, created_at)
VALUES (%(actor)s, %(method)s, %(path)s, %(key)s, %(request_hash)s, %(now)s)
ON CONFLICT (actor, method, path, key) DO UPDATE
    SET request_hash = excluded.request_hash, status = NULL, headers = NULL, body = NULL,
        created_at = excluded.created_at
    WHERE kept.created_at <= %(forgotten)s
RETURNING true
"""

FIND_KEPT = """
SELECT request_hash, status, headers, body FROM idempotency_keys
WHERE actor = %(actor)s AND method = %(method)s AND path = %(path)s AND key = %(key)s
"""

KEEP = """
UPDATE idempotency_keys SET status = %(status)s, headers = %(headers)s, body = %(body)s
WHERE actor = %(actor)s AND method = %(method)s AND path = %(path)s AND key = %(key)s
"""

FORGET = """
DELETE FROM idempotency_keys WHERE (actor, method, path, key) IN (
    SELECT actor, method, path, key FROM idempotency_keys
    WHERE created_at <= %(forgotten)s ORDER BY created_at LIMIT %(chunk)s FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that a command may apply to; None is any."""

    versions: frozenset[str] | None = None

    @classmethod
    def parse(cls, header: str | None) -> "IfMatch":
        """Read the header by RFC 9110: `*` or a list of entity tags, compared strongly: weak ones match none."""
        if header is None or header.strip() == "*":
            return cls()
        tags = [ETAG.fullmatch(part.strip()) for part in header.split(",") if part.strip()]
        if not tags or None in tags:
            raise Malformed('If-Match must be an entity tag such as "3"')
        # Of a listing's "3.1" the version is what stands before the dot; the rest tells its fee step.
        return cls(frozenset(tag[2].partition(".")[0] for tag in tags if tag and not tag[1]))

    def check(self, version: int) -> None:
        """Refuse a version that the caller didn't name."""
        if self.versions is not None and str(version) not in self.versions:
            raise PreconditionFailed(f"This is version {version} by now")


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks for a command (None is the public), at which instant, and on what condition."""

    now: datetime
    actor: Identity | None = None
    if_match: IfMatch = field(default_factory=IfMatch)
    request_id: str | None = None

    @property
    def staff_id(self) -> uuid.UUID | None:
        """The actor as rows name them."""
        return self.actor.staff_id if self.actor else None

    def not_before(self, *instants: datetime | None) -> "Context":
        """Move on to the last of the instants, should another machine's clock have been ahead of ours."""
        return replace(self, now=max(self.now, *(at for at in instants if at is not None)))

    def change(self, type_: str, **fields: Any) -> Change:  # noqa: ANN401
        """Make the log row of what this command changed; `fields` are those of Change."""
        return Change(type_, self.now, actor=self.staff_id, request_id=self.request_id, **fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a handler answers: JSON text, or the package that it is of, and what the headers say of it."""

    status: int
    body: str | Shown
    version: int | None = None
    location: str | None = None

    def headers(self) -> dict[str, str]:
        """Give the headers that tell of version and place."""
        headers = {"ETag": f'"{self.version}"'} if self.version is not None else {}
        return headers | ({"Location": self.location} if self.location else {})

    def answer(self, token: str, shown: TupleRow | None) -> "Answer":
        """Give the answer, the body's row having been read where there is one."""
        body = self.body
        if isinstance(body, Shown):
            if shown is None:
                raise LookupError(body.package_id)
            body = shown[0]
        return Answer(self.status, self.headers() | {consistency.HEADER: token}, body.encode())


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer down to its bytes, as it is sent and as it is kept."""

    status: int
    headers: dict[str, str]
    body: bytes

    def response(self) -> Response:
        """Send it."""
        media_type = PROBLEM_TYPE if self.status >= HTTPStatus.BAD_REQUEST else "application/json"
        return Response(self.body, self.status, self.headers, media_type)


Work = Callable[[Connection, Context], Awaitable[Outcome]]


@dataclass(slots=True)
class Transaction:
    """One request, one transaction: `run` is all that a route does."""

    request: Request
    connections: Connections
    clock: Clock
    actor: Identity | None
    key: str | None
    if_match: IfMatch = field(default_factory=IfMatch)
    throttle: str = ""

    async def run(self, command: object, work: Work, throttle: str = "") -> Response:
        """Do the work, commit it with its log rows, then wake the projector; a replay does none of it again.

        `command` is the parsed body; `throttle` is a rule for the public, by address, and spares replays.
        """
        self.throttle = throttle
        name = getattr(self.request.scope.get("route"), "name", "unknown")
        try:
            answer = await self._with_attempts(command, work)
        except Problem as problem:
            _counter(name, problem.slug).inc()
            raise
        _counter(name, "accepted" if answer.status < HTTPStatus.BAD_REQUEST else Conflict.slug).inc()
        return answer.response()

    async def _with_attempts(self, command: object, work: Work) -> Answer:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._attempt(command, work)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == ATTEMPTS:
                    raise Unavailable("Too many commands met on the same rows") from None
            except psycopg.errors.UniqueViolation as error:
                name = error.diag.constraint_name or ""
                if name not in REFUSALS:
                    raise
                if name not in RETRIED or attempt == ATTEMPTS:
                    raise Conflict(REFUSALS[name]) from None
        raise AssertionError

    async def _attempt(self, command: object, work: Work) -> Answer:
        if self.key is None:
            await self._admit()
        async with self._begun() as (conn, token):
            if self.key is None:
                outcome = await work(conn, self._context())
                last = outcome.body.statement() if isinstance(outcome.body, Shown) else None
                return outcome.answer(token, await self.connections.signal.commit(conn, last))
            answer = await self._keep(conn, self._key_row(self.key, command), work, token)
            await self.connections.signal.commit(conn)
        return answer

    async def _keep(self, conn: Connection, row: dict[str, Any], work: Work, token: str) -> Answer:
        """Apply under a key, and keep the answer; or give the one that is kept."""
        kept = await _claim(conn, row)
        if kept is not None:
            metrics.IDEMPOTENT_REPLAYS.inc()
            return kept
        await self._admit()
        answer = await self._apply_or_conflict(conn, work, token)
        kept_answer = {"status": answer.status, "headers": Jsonb(answer.headers), "body": answer.body}
        await conn.execute(KEEP, row | kept_answer)
        return answer

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[tuple[Connection, str]]:
        """Begin the transaction, and give its token; what isn't committed is undone."""
        async with self.connections.write_pool.connection() as conn:
            try:
                yield conn, await self._stamp(conn)
            except BaseException:
                prepared.forget(conn)
                raise

    async def _stamp(self, conn: Connection) -> str:
        caller: Caller | None = self.request.state.caller
        await prepared.prepare(conn)
        begun = await conn.execute(prepared.begin(caller).encode(), prepare=False)
        begun.nextset()
        stamp = await begun.fetchone()
        if stamp is None:
            raise Unavailable("The projections' checkpoint is missing")
        incarnation, xid, role = stamp
        if caller is not None and role != caller.identity.role:
            raise Unauthenticated(SESSION_ENDED)
        return self.connections.tokens.sign(consistency.Token(incarnation, xid=xid))

    async def _admit(self) -> None:
        """Count the public's request once, however often its transaction is begun."""
        if self.throttle and self.actor is None:
            address = client_address(self.request, self.connections.settings.trusted_proxies)
            rule, self.throttle = self.throttle, ""
            await self.connections.throttle.hit(rule, THROTTLED, address)

    def _context(self) -> Context:
        return Context(self.clock(), self.actor, self.if_match, self.request.state.request_id)

    async def _apply_or_conflict(self, conn: Connection, work: Work, token: str) -> Answer:
        """Apply under a savepoint, so that a conflict undoes the work and its key still commits."""
        try:
            async with conn.transaction():
                outcome = await work(conn, self._context())
                shown = None
                if isinstance(outcome.body, Shown):
                    shown = await (await conn.execute(outcome.body.statement().encode())).fetchone()
                return outcome.answer(token, shown)
        except Conflict as problem:
            prepared.forget(conn)
            body = json.dumps(problem.body(self.request.url.path)).encode()
            return Answer(problem.status, problem.headers, body)

    def _key_row(self, key: str, command: object) -> dict[str, Any]:
        """Say whose key this is, and a digest of what it came with: of the parsed body, so that layout is nothing."""
        parsed = command.model_dump(mode="json", exclude_unset=True) if isinstance(command, BaseModel) else command
        try:
            text = json.dumps(parsed, sort_keys=True)
        except RecursionError:
            raise Malformed("The body is nested too deep") from None
        secrets = keys.each(self.request.app.state.signing_key)  # a body may hold a password
        hashes = [hmac.digest(secret.encode(), text.encode(), "sha256") for secret in secrets]
        now = self.clock()
        return {
            "actor": str(self.actor.staff_id) if self.actor else "public",
            "method": self.request.method,
            "path": self.request.url.path,
            "key": key,
            "request_hash": hashes[0],
            "request_hashes": hashes,
            "now": now,
            "forgotten": now - KEPT_FOR,
        }


@functools.cache
def _counter(command: str, outcome: str) -> Counter:
    return metrics.COMMANDS.labels(command, outcome)


async def _claim(conn: Connection, row: dict[str, Any]) -> Answer | None:
    """Take the key, waiting for whoever holds it; None makes it ours, else it is the first answer."""
    if await (await conn.execute(CLAIM, row)).fetchone():
        return None
    kept = await (await conn.execute(FIND_KEPT, row)).fetchone()
    if kept is None:
        raise Unavailable("The Idempotency-Key was being forgotten")
    request_hash, status, headers, body = kept
    if request_hash not in row["request_hashes"]:
        raise Conflict("This Idempotency-Key came with another body before")
    return Answer(status, headers | {"Idempotent-Replayed": "true"}, body)


async def transaction(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=8,
            max_length=128,
            pattern=r"^[\x20-\x7e]*$",
            description="The same key and body give the first answer again; kept for 24 hours.",
        ),
    ] = None,
) -> Transaction:
    """Give a route the transaction it runs in. Not a dependency more than is needed: each has its cost."""
    return Transaction(request, current_connections(request), current_clock(request), anyone(request), idempotency_key)


TheTransaction = Annotated[Transaction, Depends(transaction)]


async def versioned_transaction(
    transaction: TheTransaction,
    if_match: Annotated[
        str | None, Header(description='Apply only to this version, such as "3".', examples=["*"])
    ] = None,
) -> Transaction:
    """Give a route on something that has versions its transaction, which knows what If-Match asks for."""
    return replace(transaction, if_match=IfMatch.parse(if_match))


TheVersionedTransaction = Annotated[Transaction, Depends(versioned_transaction)]


async def in_chunks(conn: Connection, work: Callable[[Connection], Awaitable[int]]) -> int:
    """Repeat a job's work, each time in a transaction of its own, until it finds less than CHUNK; gives the sum."""
    total = 0
    while True:
        async with conn.transaction():
            done = await work(conn)
        total += done
        if done < CHUNK:
            return total


async def forget_idempotency_keys(conn: Connection, now: datetime) -> int:
    """Delete the keys that no longer count, and say how many."""

    async def forget(conn: Connection) -> int:
        return (await conn.execute(FORGET, {"forgotten": now - KEPT_FOR, "chunk": CHUNK})).rowcount

    return await in_chunks(conn, forget)
