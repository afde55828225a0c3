"""Sign in: a name and a password for a token that holds for a shift."""

import hmac
import re
import uuid
from typing import Annotated

from fastapi import Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from db.connections import TheConnections
from db.pools import Pool
from infra import keys, logs
from infra.addresses import client_address
from infra.auth import PUBLIC, SESSION_LENGTH, Session, allow, encode_session, verify_password
from infra.clock import TheClock
from infra.errors import Unauthenticated
from infra.http import problems
from infra.routing import router

routes = router("sign-in")
audit = logs.get("audit")


class SignIn(BaseModel):
    """The OAuth2 password form; of its other members none is needed."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(max_length=200, examples=["admin"])
    password: str = Field(max_length=200, examples=["una clave larga"], repr=False)
    grant_type: str | None = Field(default=None, pattern="^password$")
    scope: str = ""
    client_id: str | None = None
    client_secret: str | None = Field(default=None, repr=False)


class AccessToken(BaseModel):
    """What to send as `Authorization: Bearer …`, and for how many seconds it holds."""

    access_token: str
    token_type: str
    expires_in: int


FIND = "SELECT staff_id, session_generation, password_hash FROM staff WHERE username = %(username)s AND active"


async def find(pool: Pool, username: str) -> tuple[uuid.UUID, int, str] | None:
    """Look up who may sign in; nobody has a name of other characters."""
    if not re.fullmatch(r"[a-z0-9._-]{3,50}", username):
        return None
    async with pool.connection() as conn:
        row = await (await conn.execute(FIND, {"username": username})).fetchone()
    return (row[0], row[1], row[2]) if row else None


def _pseudonym(address: str, key: str) -> str:
    """Name an address so that its tries can be told to be one's, and not whose."""
    return hmac.digest(keys.newest(key).encode(), address.encode(), "sha256").hex()[:16]


@routes.post("/auth/token", response_model=AccessToken, responses=problems(401, 413, 415, 429))
@allow(PUBLIC)
async def sign_in(
    form: Annotated[SignIn, Form()], request: Request, connections: TheConnections, clock: TheClock
) -> Response:
    """Sign in. An unknown name, a wrong password and a dismissed person get one answer, in the same time."""
    username = form.username.strip().lower()
    address = client_address(request, connections.settings.trusted_proxies)
    rule = connections.settings.throttle_sign_in
    await connections.throttle.hit(rule, "sign-in", address, username, closed_without_redis=True)
    person = await find(connections.write_pool, username)
    staff_id = str(person[0]) if person else None
    client = _pseudonym(address, request.app.state.signing_key)
    if not await verify_password(form.password, person[2] if person else None) or person is None:
        audit.warning("sign_in", outcome="refused", staff_id=staff_id, client=client)
        raise Unauthenticated("The name or the password is wrong")
    audit.info("sign_in", outcome="accepted", staff_id=staff_id, client=client)
    session = Session(person[0], person[1])
    token = AccessToken(
        access_token=encode_session(session, request.app.state.signing_key, clock()),
        token_type="bearer",  # noqa: S106 (a kind of token)
        expires_in=int(SESSION_LENGTH.total_seconds()),
    )
    return Response(token.model_dump_json(), headers={"Cache-Control": "no-store"}, media_type="application/json")
