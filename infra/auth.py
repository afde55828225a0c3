"""Who may do what: roles, the access mark of a route, passwords, and the signed token of a session."""

import contextlib
import functools
import hashlib
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import jwt
from fastapi import Depends, Request
from jwt.types import Options
from pwdlib import PasswordHash
from starlette.concurrency import run_in_threadpool

from infra import keys
from infra.errors import Forbidden, Unauthenticated

SESSION_LENGTH = timedelta(hours=12)
"""A shift: staff sign in once a day."""

SESSION_COOKIE = "paqueteria_session"
"""Holds the same token that `Authorization: Bearer` does, for the pages."""

API_KEY_PREFIX = "paq_"
"""What a machine's key begins with: it can be told from a session's token, and found where it has leaked."""

FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC).timestamp()

_passwords = PasswordHash.recommended()


class Role(StrEnum):
    """What staff are allowed, each role all of the next one's rights too."""

    ADMIN = "ADMIN"
    OPERATOR = "OPERATOR"
    VIEWER = "VIEWER"

    def reaches(self, needed: "Role") -> bool:
        """Tell whether this role has the rights of `needed`."""
        return needed in RIGHTS[self]


RIGHTS = {role: frozenset(list(Role)[number:]) for number, role in enumerate(Role)}
"""Whose rights each role has."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The signed-in person."""

    staff_id: uuid.UUID
    username: str
    full_name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Session:
    """What a token says: whose it is, and the generation of sessions that it belongs to."""

    staff_id: uuid.UUID
    generation: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a machine shows instead of a session; the key itself is nowhere kept."""

    digest: bytes


Credential = Session | ApiKey


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that may be ours: what it names, and when that ends, in Unix time.

    A session's has our signature; whether a machine's key is one is for the database to tell.
    """

    session: Credential
    expires_at: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and by which session."""

    identity: Identity
    verified: Verified


PUBLIC = None
"""The access mark of a route that needs no sign-in."""

Identify = Callable[[Credential], Awaitable[Identity | None]]
"""Looks up who a session belongs to, as `app.state.recognise`; None when it was ended meanwhile.

It may remember for the moment that news of a change takes: a command's transaction asks once more.
"""

SESSION_ENDED = "The session has ended: sign in again"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def allow(role: Role | None) -> Callable[[Endpoint], Endpoint]:
    """Mark an endpoint with the role it needs, or PUBLIC; one without a mark is refused to everybody."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["access"] = role
        return endpoint

    return mark


def new_api_key() -> str:
    """Draw a machine's key: 256 bits, so that a plain digest of it can't be turned back."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def api_key_digest(key: str) -> bytes:
    """Give what a key is known by."""
    return hashlib.sha256(key.encode()).digest()


def encode_session(session: Session, key: str, now: datetime) -> str:
    """Sign a token that holds for SESSION_LENGTH; of several keys, with the newest."""
    claims = {"sub": str(session.staff_id), "gen": session.generation, "iat": now, "exp": now + SESSION_LENGTH}
    return jwt.encode(claims, keys.newest(key), algorithm="HS256")


@functools.lru_cache(maxsize=10_000)
def verify(token: str, key: str) -> Verified:
    """Verify a token's signature, once; anything wrong raises Unauthenticated. Its age is the caller's to compare."""
    if token.startswith(API_KEY_PREFIX):
        return Verified(ApiKey(api_key_digest(token)), FOR_EVER)
    try:
        claims = _claims(token, keys.each(key))
        return Verified(Session(uuid.UUID(claims["sub"]), int(claims["gen"])), float(claims["exp"]))
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Unauthenticated("The access token is not valid") from None


def _claims(token: str, verifying: Sequence[str]) -> dict[str, Any]:
    """Decode a token by whichever key has signed it; jwt.InvalidSignatureError if none has."""
    options: Options = {"require": ["sub", "gen", "exp"], "verify_exp": False, "verify_iat": False}
    *others, last = verifying
    for key in others:
        with contextlib.suppress(jwt.InvalidSignatureError):
            return jwt.decode(token, key, algorithms=["HS256"], options=options)
    return jwt.decode(token, last, algorithms=["HS256"], options=options)


async def authenticate(request: Request) -> Caller | None:
    """Find out who asks: by the Authorization header, else by the cookie of our own pages; None without either."""
    header = request.headers.get("Authorization")
    if header is None:
        cookie = request.cookies.get(SESSION_COOKIE)
        return await _identify(request, cookie) if cookie and is_from_our_pages(request) else None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Authorization must be: Bearer <access token>")
    return await _identify(request, token.strip())


async def _identify(request: Request, token: str) -> Caller:
    state = request.app.state
    verified = verify(token, state.signing_key)
    if verified.expires_at <= state.clock().timestamp():
        raise Unauthenticated(SESSION_ENDED)
    recognise: Identify = state.recognise
    identity = await recognise(verified.session)
    if identity is None:
        raise Unauthenticated(SESSION_ENDED)
    return Caller(identity, verified)


def is_from_our_pages(request: Request) -> bool:
    """Tell whether a browser sends this for one of our own pages, so that its cookie means what it says.

    What only reads may come from anywhere, for another site can't see the answer. What writes must say that its origin
    is ours: by `Sec-Fetch-Site`, which no script can set, or, where a browser leaves that out (plain HTTP), by
    `Origin`.
    """
    if request.method == "GET":
        return True
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(request.headers.get("Origin", "")).netloc == request.headers.get("Host", "?")


async def authorize(request: Request, needed: Role | None) -> Caller | None:
    """Let the request through or raise.

    On a public route a token that is given must still be a good one; a cookie comes unasked, and one that has ended is
    as good as none.
    """
    try:
        caller = await authenticate(request)
    except Unauthenticated:
        if needed is not PUBLIC or "Authorization" in request.headers:
            raise
        return None
    if needed is PUBLIC:
        return caller
    if caller is None:
        raise Unauthenticated("This needs a signed-in member of staff")
    identity = caller.identity
    if not identity.role.reaches(needed):
        raise Forbidden(f"This needs the role {needed}, and {identity.username} is {identity.role}")
    return caller


def signed_in(request: Request) -> Identity:
    """Give the person that the route's access mark let in."""
    identity = anyone(request)
    if identity is None:
        raise Unauthenticated("This needs a signed-in member of staff")
    return identity


def anyone(request: Request) -> Identity | None:
    """Give the person that asks, or None for the public."""
    caller: Caller | None = request.state.caller
    return caller.identity if caller else None


SignedIn = Annotated[Identity, Depends(signed_in)]
Anyone = Annotated[Identity | None, Depends(anyone)]


async def hash_password(password: str) -> str:
    """Hash with argon2id, off the event loop: it takes tens of milliseconds on purpose."""
    return await run_in_threadpool(_passwords.hash, password)


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Compare in the same time whether or not there is such a person (`password_hash` None)."""
    return await run_in_threadpool(_verify, password, password_hash)


def _verify(password: str, password_hash: str | None) -> bool:
    if password_hash is None:
        _passwords.hash(password)
        return False
    return _passwords.verify(password, password_hash)
