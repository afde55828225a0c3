"""A running write API with its staff, and a counter that does the usual steps."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from psycopg.rows import dict_row

from commands.api import create_app
from infra.auth import Session, encode_session
from infra.settings import Settings
from tests.support import Clock

Headers = dict[str, str]
Sql = Callable[..., list[dict[str, Any]]]
Serve = Callable[[FastAPI], AbstractAsyncContextManager[httpx2.AsyncClient]]

STAFF = {"admin": "ADMIN", "operator": "OPERATOR", "colleague": "OPERATOR", "viewer": "VIEWER"}


@pytest.fixture
def sql(database: str) -> Iterator[Sql]:
    """Runs a statement in a transaction of its own and gives its rows."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:

        def run(statement: str, *values: object) -> list[dict[str, Any]]:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def staff(sql: Sql, settings: Settings, clock: Clock) -> dict[str, Headers]:
    """The headers of everybody who is signed in; what they would sign in with is tested where that is the matter."""
    for name, role in STAFF.items():
        insert = "INSERT INTO staff (username, full_name, role, password_hash) VALUES (%s, %s, %s, 'none')"
        sql(insert, name, name.title(), role)
    headers: dict[str, Headers] = {name: {} for name in STAFF}
    renew_sessions(headers, sql, settings, clock)
    return headers


def renew_sessions(headers: dict[str, Headers], sql: Sql, settings: Settings, clock: Clock) -> None:
    """Sign everybody in again, in place."""
    for row in sql("SELECT username, staff_id FROM staff"):
        if row["username"] in headers:
            token = encode_session(Session(row["staff_id"], 1), settings.signing_key(), clock())
            headers[row["username"]]["Authorization"] = f"Bearer {token}"


@pytest.fixture
def later(staff: dict[str, Headers], sql: Sql, settings: Settings, clock: Clock) -> Callable[..., None]:
    """Lets time pass, beyond the end of a shift: everybody signs in again."""

    def advance(**span: float) -> None:
        clock.advance(**span)
        renew_sessions(staff, sql, settings, clock)

    return advance


@pytest.fixture
def admin(staff: dict[str, Headers]) -> Headers:
    return staff["admin"]


@pytest.fixture
def operator(staff: dict[str, Headers]) -> Headers:
    return staff["operator"]


@pytest.fixture
def app(settings: Settings, clock: Clock) -> FastAPI:
    return create_app(settings, clock)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def serve() -> Serve:
    """Runs an application in the test's own event loop, so that requests really run side by side."""

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield client

    return running


WaitingForLocks = Callable[[int], Awaitable[None]]


@pytest.fixture
def waiting_for_locks(sql: Sql) -> WaitingForLocks:
    """Returns once so many of the database's commands stand before a lock."""

    async def wait(count: int) -> None:
        waiting = """SELECT count(*) AS n FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        async with asyncio.timeout(20):
            while sql(waiting)[0]["n"] < count:  # noqa: ASYNC110 (PostgreSQL has no event of ours)
                await asyncio.sleep(0.01)

    return wait


class Counter:
    """Does the usual steps over HTTP, as an operator."""

    def __init__(self, client: TestClient, headers: Headers) -> None:
        self.client = client
        self.headers = headers
        self._numbers = itertools.count(1)

    def guide(self) -> str:
        return f"GUIDE-{next(self._numbers):05}"

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return self.client.post(f"/api/v1{path}", json=body, headers=self.headers | headers)

    def patch(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return self.client.patch(f"/api/v1{path}", json=body, headers=self.headers | headers)

    def announce(self, **fields: object) -> dict[str, Any]:
        answer = self.client.post("/api/v1/packages", json=self.announcement(**fields))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def announcement(self, **fields: object) -> dict[str, Any]:
        usual = {"customer_name": "Ana María Ñáñez", "customer_phone": "300 123 4567", "data_consent": True}
        return usual | {"guide_number": self.guide()} | fields

    def receive(self, **fields: object) -> dict[str, Any]:
        answer = self.post("/receptions", self.parcel(**fields))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def parcel(self, **fields: object) -> dict[str, Any]:
        usual = {"customer_name": "Luis Pérez", "package_type": "NORMAL", "condition": "GOOD"}
        return usual | {"guide_number": self.guide()} | fields

    def deliver(self, package: dict[str, Any]) -> dict[str, Any]:
        body = {"payment_method": "CASH", "amount": package["due"]}
        answer = self.post(f"/packages/{package['package_id']}/delivery", body)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


@pytest.fixture
def counter(client: TestClient, operator: Headers) -> Counter:
    return Counter(client, operator)


@pytest.fixture
def changes(sql: Sql) -> Callable[..., list[dict[str, Any]]]:
    """The log rows of one package, or all of one type, in order."""

    def find(package_id: str | None = None, type_: str | None = None) -> list[dict[str, Any]]:
        return sql(
            """SELECT l.*, s.username FROM change_log AS l LEFT JOIN staff AS s ON s.staff_id = l.actor
            WHERE (%s::uuid IS NULL OR package_id = %s::uuid) AND (%s::text IS NULL OR type = %s::text)
            ORDER BY position""",
            package_id,
            package_id,
            type_,
            type_,
        )

    return find


@pytest.fixture
def nobody() -> str:
    """An id that nothing has."""
    return str(uuid.uuid4())
