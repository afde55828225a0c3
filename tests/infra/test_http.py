"""The guard before every route, and the one form of every refusal."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, cast

import psycopg
import pytest
from fastapi import FastAPI, Header, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from infra.auth import PUBLIC, Identity, Role, Session, SignedIn, allow, encode_session
from infra.errors import Conflict
from infra.exposition import samples
from infra.fields import Amount, Message, Name
from infra.http import create_app
from infra.routing import LARGEST_BODY, router
from tests.support import Clock

KEY = "a key for tests, and for nothing else"
STAFF = {role: Identity(uuid.uuid4(), role.lower(), role.title(), role) for role in Role}

things = router("things")


class Thing(Message):
    name: Name
    amount: Amount = 0


class Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1


@things.post("/things")
@allow(Role.OPERATOR)
async def make(thing: Thing, staff: SignedIn) -> dict[str, str | int]:
    return {"name": thing.name, "amount": thing.amount, "by": staff.username}


@things.get("/things")
@allow(PUBLIC)
async def find(filters: Annotated[Filters, Query()], precise: Annotated[int, Header(ge=1)] = 1) -> int:
    return filters.size + precise


@things.get("/things/{thing_id}")
@allow(Role.VIEWER)
async def show(thing_id: uuid.UUID) -> str:
    return str(thing_id)


@things.get("/unmarked")
async def unmarked() -> str:
    return "nobody should read this"


@things.post("/conflict")
@allow(PUBLIC)
async def conflict() -> None:
    raise Conflict("It is taken", package={"status": "RECEIVED"})


@things.post("/broken")
@allow(PUBLIC)
async def broken() -> None:
    raise ZeroDivisionError


@things.post("/away")
@allow(PUBLIC)
async def away() -> None:
    raise psycopg.OperationalError


@pytest.fixture
def client(clock: Clock) -> Iterator[TestClient]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def identify(session: Session) -> Identity | None:
            return next((who for who in STAFF.values() if who.staff_id == session.staff_id), None)

        async def nothing() -> dict[str, str]:
            return {}

        app.state.clock, app.state.signing_key = clock, KEY
        app.state.recognise = identify
        app.state.readiness = app.state.warnings = nothing
        yield

    with TestClient(create_app("Things", "", [things], lifespan), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def operator(clock: Clock) -> dict[str, str]:
    return {"Authorization": f"Bearer {encode_session(Session(STAFF[Role.OPERATOR].staff_id, 1), KEY, clock())}"}


def test_who_asks_comes_before_what_was_sent(client: TestClient) -> None:
    """A stranger learns nothing about a body, not even that it is malformed."""
    answer = client.post("/api/v1/things", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_role_that_does_not_reach_is_forbidden(client: TestClient, clock: Clock) -> None:
    """A viewer reads only."""
    token = encode_session(Session(STAFF[Role.VIEWER].staff_id, 1), KEY, clock())
    answer = client.post("/api/v1/things", json={"name": "Ana"}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    token = encode_session(Session(STAFF[Role.ADMIN].staff_id, 1), KEY, clock())
    answer = client.post("/api/v1/things", json={"name": "Ana"}, headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["by"] == "admin"


def test_a_route_without_a_mark_is_refused_to_everybody(client: TestClient, operator: dict[str, str]) -> None:
    """Forgetting the role of a route closes it, rather than opening it."""
    assert client.get("/api/v1/unmarked").status_code == 403
    assert client.get("/api/v1/unmarked", headers=operator).status_code == 403


def test_a_session_ends(client: TestClient, operator: dict[str, str], clock: Clock) -> None:
    """A token holds for a shift."""
    clock.advance(hours=11, minutes=59)
    assert client.post("/api/v1/things", json={"name": "Ana"}, headers=operator).status_code == 200
    clock.advance(minutes=1)
    assert client.post("/api/v1/things", json={"name": "Ana"}, headers=operator).status_code == 401


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer x.y.z", "Bearer \N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_header_that_is_no_token_is_401(client: TestClient, header: str) -> None:
    """Nothing but our own signed token opens a route, and a bad one isn't taken for none on a public route."""
    assert client.get("/api/v1/things", headers={b"Authorization": header.encode("latin-1")}).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"name": NaN}', 400),
        (b'{"name": "Ana", "name": "Eva"}', 400),
        (b"[" * 100_000, 400),
        (b'{"name": "Ana", "amount": 9223372036854775808}', 422),
        (b'{"name": "Ana", "amount": ' + b"9" * 5000 + b"}", 422),
        (b'{"name": "Ana", "amount": 1e400}', 422),
        (b'{"name": "\\u0000Ana"}', 422),
        (b'{"name": "\\ud800Ana"}', 422),
        (b'{"name": "Ana", "more": 1}', 422),
        (b"[]", 422),
        (b"null", 422),
        (b"", 422),
        (b" " * (LARGEST_BODY + 1), 413),
    ],
)
def test_every_bad_body_has_its_status(client: TestClient, operator: dict[str, str], body: bytes, status: int) -> None:
    """400 for what can't be read, 422 for what can't be accepted, 413 for too much; never 500."""
    answer = client.post("/api/v1/things", content=body, headers=operator | {"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = json.loads(answer.content)
    assert {"type", "title", "status", "detail", "instance"} <= document.keys()
    assert (document["status"], document["instance"]) == (status, "/api/v1/things")
    assert ("errors" in document) == (status == 422)


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/json; charset=latin-1", ""])
def test_another_kind_of_body_is_415(client: TestClient, operator: dict[str, str], media: str) -> None:
    """Bodies are JSON in UTF-8, and say so."""
    answer = client.post("/api/v1/things", content=b'{"name": "Ana"}', headers=operator | {"Content-Type": media})
    assert answer.status_code == 415


def test_an_unknown_parameter_is_refused(client: TestClient) -> None:
    """A filter with a typing error never silently shows everything."""
    assert client.get("/api/v1/things?size=2").json() == 3
    answer = client.get("/api/v1/things?sise=2")
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["sise"]


def test_errors_by_place(client: TestClient, operator: dict[str, str]) -> None:
    """A bad parameter is 422, a bad header 400, a bad id 404."""
    assert client.get("/api/v1/things?size=x").status_code == 422
    assert client.get("/api/v1/things", headers={"Precise": "x"}).status_code == 400
    assert client.get("/api/v1/things/17", headers=operator).status_code == 404
    assert client.get("/api/v1/nothing").status_code == 404
    assert client.put("/api/v1/things").status_code == 405


def test_a_refusal_carries_its_members(client: TestClient) -> None:
    """What stands in the way is part of the document."""
    answer = client.post("/api/v1/conflict")
    assert answer.status_code == 409
    assert answer.json() == {
        "type": "urn:paqueteria:problem:conflict",
        "title": "The state forbids it",
        "status": 409,
        "detail": "It is taken",
        "instance": "/api/v1/conflict",
        "package": {"status": "RECEIVED"},
    }


def test_a_database_that_is_away_is_503(client: TestClient) -> None:
    """Come back in a moment, says the header."""
    answer = client.post("/api/v1/away")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_a_failure_tells_no_secret_and_has_an_id(client: TestClient) -> None:
    """The log has the traceback under the id; the caller has the id."""
    answer = client.post("/api/v1/broken", headers={"X-Request-Id": "counter-7"})
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
    assert answer.headers["X-Request-Id"] == "counter-7"


def test_requests_are_counted_by_method_route_and_status(client: TestClient, operator: dict[str, str]) -> None:
    """With their time and both bodies' bytes; whatever a caller makes up comes to no series of its own."""

    def sums(method: str, route: str, status: str) -> list[float]:
        labels = frozenset({"method": method, "route": route, "status": status}.items())
        names = ("request_duration_seconds_count", "request_size_bytes_sum", "response_size_bytes_sum")
        return [samples().get((f"paqueteria_http_{name}", labels), 0.0) for name in names]

    before, strange = sums("POST", "/api/v1/things", "200"), sums("other", "unknown", "404")
    body = b'{"name": "Ana", "amount": 3}'
    answer = client.post("/api/v1/things", content=body, headers=operator | {"Content-Type": "application/json"})
    client.request("INVENTED", "/api/v1/nowhere")
    after = sums("POST", "/api/v1/things", "200")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, len(body), len(answer.content)]
    assert sums("other", "unknown", "404")[0] == strange[0] + 1
    assert not any("INVENTED" in dict(labels).values() for _, labels in samples())


def test_health_metrics_and_documentation(client: TestClient) -> None:
    """Every application has them, under the same addresses."""
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready", "missing": {}, "warnings": {}}
    client.get("/api/v1/things")
    operations = client.get("/openapi.json").json()["paths"]
    assert operations["/api/v1/things"]["post"]["security"] == [{"OAuth2PasswordBearer": []}]
    assert "security" not in operations["/api/v1/things"]["get"]
    docs = client.get("/docs")
    assert (docs.status_code, "://" in docs.text) == (200, False), "nothing from elsewhere"


def test_late_is_said_and_what_is_missing_is_refused(client: TestClient) -> None:
    """A warning takes nobody out of rotation; with something missing, nothing else is asked."""

    async def late() -> dict[str, str]:
        return {"projection": "behind"}

    async def away() -> dict[str, str]:
        return {"database": "away"}

    state = cast("FastAPI", client.app).state
    state.warnings = late
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "degraded", "missing": {}, "warnings": {"projection": "behind"}},
    )
    state.readiness = away
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() == {"status": "missing", "missing": {"database": "away"}, "warnings": {}}


def test_the_interface_is_written_down_once() -> None:
    """Whoever asks for the document again and again, without signing in, costs no more than its bytes."""

    @contextlib.asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app("Test", "", [], nothing)
    generate, made = app.openapi, []

    def make() -> dict[str, Any]:
        made.append(generate())
        return made[-1]

    app.__dict__["openapi"] = make
    with TestClient(app) as client:
        first, again = client.get("/openapi.json"), client.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    assert first.json() == again.json()
    assert len(made) == 1
