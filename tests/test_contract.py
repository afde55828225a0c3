"""Both APIs are what their OpenAPI document says: for every operation, for whatever is sent."""

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import commands.api
import queries.api
import web.api
from commands.add_staff import add_staff_account
from db.embedded import PostgresServer, ValkeyServer
from db.pools import connect
from db.redis_clients import make_redis
from infra.auth import Role
from infra.clock import system_clock
from infra.settings import Settings
from tests.conftest import TEMPLATE
from tests.pictures import form_of, taken
from tests.service import projecting, serving
from tests.support import moved

pytestmark = pytest.mark.xdist_group("contract")

PASSWORD = "una-clave-de-prueba"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = "/api/v1/updates"
"""An event stream has no end to wait for; its own tests read it."""


@dataclass
class Service:
    """Where it runs, and the headers of its ADMIN."""

    address: str
    headers: dict[str, str]
    records: list[logging.LogRecord] = field(default_factory=list)


@pytest.fixture(scope="module")
def service(
    postgres: PostgresServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One service for all of this module: what is sent to it may do what it will."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE contract TEMPLATE {TEMPLATE} STRATEGY file_copy".encode())
        settings = moved(
            Settings(
                database_url=postgres.dsn("contract"),
                redis_url=valkey.url.replace("db=0", "db=999"),
                secret_key="a key for tests, and for nothing else",
                data_dir=tmp_path_factory.mktemp("contract"),
                throttle_announce="",
                throttle_track="",
                throttle_sign_in="",
            ),
            postgres.dsn("contract"),
        )
        asyncio.run(_admin(settings))
        with projecting(settings, system_clock), serving(web.api.create_app(settings)) as address:
            form = {"username": "admin", "password": PASSWORD}
            token = httpx2.post(f"{address}/api/v1/auth/token", data=form).json()["access_token"]
            yield Service(address, {"Authorization": f"Bearer {token}"})
        conn.execute("DROP DATABASE contract WITH (FORCE)")


async def _admin(settings: Settings) -> None:
    async with await connect(settings.postgres_dsn, "test") as conn, conn.transaction():
        await add_staff_account(conn, "admin", "Administración", Role.ADMIN, PASSWORD)
    async with make_redis(settings) as redis:
        await redis.flushdb()


# Composed without a server: an application opens nothing before it is served.
SCHEMA = schemathesis.openapi.from_dict(web.api.create_app(Settings(secret_key="none")).openapi())


@SCHEMA.exclude(path=ENDLESS).parametrize()
@hypothesis_settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_gets_a_documented_answer(
    case: Case[Any], service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """No 500, no status or body that the document doesn't know, and nothing unhandled in the log."""
    case.call_and_validate(service.address, headers=service.headers, checks=CHECKS)
    assert [record for record in caplog.records if record.exc_info] == []


class Tour:
    """Calls operations by their path as the document has it, and remembers which reached 2xx."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.reached: set[tuple[str, str]] = set()
        self.numbers = itertools.count(1)

    def call(self, method: str, path: str, at: dict[str, str] | None = None, **sent: Any) -> Any:  # noqa: ANN401
        """Send one request, hold its answer against the document, and give its JSON."""
        answer = self.client.request(method, path.format(**(at or {})), **sent)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        operation = SCHEMA[path][method]
        operation.Case(path_parameters=at or {}).validate_response(answer, checks=CHECKS)
        self.reached.add((method, path))
        if "Consistency-Token" in answer.headers:
            self.client.headers["Consistency-Token"] = answer.headers["Consistency-Token"]
        return answer.json() if answer.headers["Content-Type"].startswith("application/json") else answer.text

    def received(self) -> dict[str, str]:
        """Receive one more parcel, and give what its address is made of."""
        guide = f"TOUR-{next(self.numbers):05d}"
        parcel = {"guide_number": guide, "customer_name": "Zoë Núñez", "package_type": "NORMAL", "condition": "GOOD"}
        package = self.call("POST", "/api/v1/receptions", json=parcel)
        return {"package_id": package["package_id"], "customer_id": package["customer"]["customer_id"]}


def test_every_operation_reaches_2xx(service: Service) -> None:
    """A way to each operation's good answer, which is as documented."""
    with httpx2.Client(base_url=service.address, headers=service.headers, timeout=30) as client:
        tour = Tour(client)
        _commands(tour)
        _queries(tour)
    documented = {
        (method.upper(), path) for path, operations in SCHEMA.raw_schema["paths"].items() for method in operations
    }
    assert documented - tour.reached == {("GET", ENDLESS)}


def _commands(tour: Tour) -> None:
    package = "/api/v1/packages/{package_id}"
    form = {"username": "admin", "password": PASSWORD}
    tour.call("POST", "/api/v1/auth/token", data=form)
    person = {"customer_name": "Íñigo Peña", "customer_phone": "3001112233", "data_consent": True}
    announced = tour.call("POST", "/api/v1/packages", json={**person, "guide_number": f"T-{uuid.uuid4().hex[:12]}"})
    reception = {"package_type": "NORMAL", "condition": "GOOD"}
    tour.call("POST", f"{package}/reception", {"package_id": announced["package_id"]}, json=reception)
    at = tour.received()
    batch = [{**reception, "guide_number": f"B-{uuid.uuid4().hex[:12]}", "customer_name": "Ana"}, {"guide_number": "x"}]
    tour.call("POST", "/api/v1/receptions/batch", json=batch)
    site = f"S-{uuid.uuid4().hex[:8].upper()}"
    tour.call("POST", "/api/v1/sites", json={"site": site, "name": "Norte"})
    tour.call("PATCH", "/api/v1/sites/{site}", {"site": site}, json={"opening_hours": "8-18"})
    shelf = {"prefix": "A-", "first": 1, "last": 5, "width": 3}
    tour.call("POST", "/api/v1/sites/{site}/positions", {"site": site}, json=shelf)
    tour.call("POST", f"{package}/relocation", at, json={"position": "77"})
    tour.call("PATCH", package, at, json={"carrier": "DHL", "customer_phone": "3004445566"})
    tour.call("POST", f"{package}/photos", at, **form_of(taken()))
    photos = tour.call("GET", package, at)["photos"]
    tour.call("GET", "/api/v1/photos/{photo_id}", {"photo_id": photos[0]["photo_id"]})
    tour.call("POST", f"{package}/delivery", at, json={"payment_method": "CASH", "amount": 1500})
    tour.call("POST", f"{package}/delivery-reversal", at, json={"reason": "Vecino equivocado"})
    tour.call("POST", f"{package}/cancellation", at, json={"reason": "CUSTOMER_REQUEST"})
    tour.call("PATCH", "/api/v1/customers/{customer_id}", at, json={"building": "Torre Norte"})
    tariff = {"valid_from": "2100-01-01", "base_fees": {"NORMAL": 1, "EXTRA_SIZED": 2}, "daily_storage": 3}
    tour.call("POST", "/api/v1/tariffs", json=tariff)
    name = f"ana{uuid.uuid4().hex[:8]}"
    account = {"username": name, "full_name": "Ana", "role": "VIEWER", "password": "una-clave-larga"}
    staff = tour.call("POST", "/api/v1/staff", json=account)
    tour.call("PATCH", "/api/v1/staff/{staff_id}", {"staff_id": staff["staff_id"]}, json={"active": False})


def _queries(tour: Tour) -> None:
    at = tour.received()
    package = tour.call("GET", "/api/v1/packages/{package_id}", at)
    for part in ("history", "fee"):
        tour.call("GET", f"/api/v1/packages/{{package_id}}/{part}", at)
    tour.call("GET", "/api/v1/track/{tracking_code}", {"tracking_code": package["tracking_code"]})
    tour.call("GET", "/api/v1/customers/{customer_id}", at)
    tour.call("GET", "/api/v1/sites/{site}/positions", {"site": "PRINCIPAL"})
    tour.call("GET", "/api/v1/lookup", params={"q": package["guide_number"]})
    tour.call("GET", "/api/v1/packages", params={"q": "nunez", "sort": "owed", "limit": 1})
    tour.call("GET", "/api/v1/packages", params={"payment_method": "CASH", "paid_from": "2026-01-01"})
    for ending in ("csv", "xlsx"):
        tour.call("GET", f"/api/v1/packages.{ending}", params={"status": "RECEIVED"})
    for name in (
        "customers",
        "sites",
        "tariffs",
        "staff",
        "summary",
        "arrivals",
        "admin/cache",
        "admin/pools",
        "admin/projections",
    ):
        tour.call("GET", f"/api/v1/{name}")
    tour.call("DELETE", "/api/v1/admin/cache", params={"status": "RECEIVED"})
    for name in ("health/live", "health/ready", "metrics"):
        tour.call("GET", f"/{name}")


@pytest.mark.parametrize("create_app", [commands.api.create_app, queries.api.create_app])
def test_each_api_alone_documents_its_part_of_the_whole(create_app: Callable[..., Any], settings: Settings) -> None:
    """Served apart or on one port, an operation is the same."""
    whole = web.api.create_app(settings).openapi()["paths"]
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method, operation in operations.items():
            assert whole[path][method] == operation
