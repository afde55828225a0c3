"""What an ADMIN sets up: shops, their shelves, and what parcels cost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.commands.conftest import Counter, Headers, Serve, Sql

Changes = Callable[..., list[dict[str, Any]]]
TARIFF = {"base_fees": {"NORMAL": 1600, "EXTRA_SIZED": 2100}, "daily_storage": 900}


@pytest.fixture
def office(client: TestClient, admin: Headers) -> Counter:
    return Counter(client, admin)


def test_a_site_begins_with_a_hundred_positions(office: Counter, sql: Sql, changes: Changes) -> None:
    """00 to 99, in order; its code is unique."""
    body = {"site": "NORTE-2", "name": "Sede Norte", "opening_hours": "8 a 18"}
    answer = office.post("/sites", body)
    assert answer.status_code == 201
    assert answer.json() == body | {"address": None, "phone": None, "version": 1}
    assert answer.headers["Location"] == "/api/v1/sites/NORTE-2"
    shelf = sql("SELECT position AS code FROM shelf WHERE site = 'NORTE-2' ORDER BY ordinal")
    assert [row["code"] for row in shelf] == [f"{number:02}" for number in range(100)]
    assert office.post("/sites", body).status_code == 409
    assert [change["type"] for change in changes()] == ["SiteAdded"]


@pytest.mark.parametrize("body", [{"site": "x", "name": "Y"}, {"site": "NORTE"}, {"site": "A" * 33, "name": "Y"}])
def test_a_site_that_cannot_be(office: Counter, body: object) -> None:
    assert office.post("/sites", body).status_code == 422


def test_a_site_changes(office: Counter, changes: Changes) -> None:
    answer = office.patch("/sites/PRINCIPAL", {"address": "Calle 1", "phone": "601 2345678"}, **{"If-Match": '"1"'})
    assert (answer.status_code, answer.json()["address"], answer.json()["version"]) == (200, "Calle 1", 2)
    assert office.patch("/sites/PRINCIPAL", {"address": None}).json()["address"] is None
    assert office.patch("/sites/PRINCIPAL", {"address": "x"}, **{"If-Match": '"1"'}).status_code == 412
    assert changes()[0]["data"]["before"] == {"address": None, "phone": None}
    for body in ({}, {"name": None}, {"site": "OTHER"}):
        assert office.patch("/sites/PRINCIPAL", body).status_code == 422
    for site in ("SUR", "lower", "%00", "x" * 40):
        assert office.patch(f"/sites/{site}", {"name": "X"}).status_code == 404


def test_positions_are_added_after_the_others(office: Counter, sql: Sql, changes: Changes) -> None:
    answer = office.post("/sites/PRINCIPAL/positions", {"prefix": "a-", "first": 1, "last": 250, "width": 3})
    assert answer.status_code == 201
    assert answer.json() == {"site": "PRINCIPAL", "first": "A-001", "last": "A-250", "count": 250, "version": 2}
    rows = sql("SELECT code, ordinal FROM positions WHERE ordinal IN (99, 100, 349) ORDER BY ordinal")
    assert [tuple(row.values()) for row in rows] == [("99", 99), ("A-001", 100), ("A-250", 349)]
    assert changes()[0]["type"] == "PositionsAdded"
    again = office.post("/sites/PRINCIPAL/positions", {"prefix": "A-", "first": 250, "last": 260, "width": 3})
    assert (again.status_code, "A-250" in again.json()["detail"]) == (409, True)
    assert sql("SELECT count(*) AS n FROM positions")[0]["n"] == 350
    assert office.post("/sites/SUR/positions", {"prefix": "", "first": 1, "last": 2, "width": 3}).status_code == 404


@pytest.mark.parametrize(
    "change",
    [{"last": 0}, {"last": 10_001}, {"first": -1}, {"width": 0}, {"width": 2}, {"prefix": "a b"}, {"last": 2**63}],
)
def test_a_range_that_cannot_be(office: Counter, sql: Sql, change: dict[str, object]) -> None:
    """Empty, over 10,000 at once, or wider than its width; nothing is half-written."""
    body = {"prefix": "B-", "first": 1, "last": 250, "width": 3} | change
    assert office.post("/sites/PRINCIPAL/positions", body).status_code == 422
    assert sql("SELECT count(*) AS n FROM positions")[0]["n"] == 100


@pytest.mark.anyio
async def test_positions_added_at_once(app: FastAPI, serve: Serve, admin: Headers, sql: Sql) -> None:
    """Eight ranges at the same time queue for the shelf: all are there, each ordinal once."""
    async with serve(app) as client:
        ranges = ({"prefix": f"{letter}-", "first": 1, "last": 20, "width": 2} for letter in "ABCDEFGH")
        path = "/api/v1/sites/PRINCIPAL/positions"
        answers = await asyncio.gather(*(client.post(path, json=body, headers=admin) for body in ranges))
    assert {answer.status_code for answer in answers} == {201}
    assert sql("SELECT max(ordinal) AS last FROM positions")[0]["last"] == 259


def test_a_tariff_is_set(office: Counter, changes: Changes) -> None:
    """From now on, or from an instant or a date to come; the past is a wrong field, the same instant a conflict."""
    answer = office.post("/tariffs", TARIFF)
    assert answer.status_code == 201
    tariff = answer.json()
    assert tariff.pop("tariff_id")
    assert tariff == TARIFF | {"valid_from": "2026-11-24T15:00:00.000000Z"}
    assert answer.headers["Location"] == "/api/v1/tariffs"
    assert office.post("/tariffs", TARIFF).status_code == 409
    later = office.post("/tariffs", TARIFF | {"valid_from": "2027-01-01"})
    assert later.json()["valid_from"] == "2027-01-01T05:00:00.000000Z"
    past = office.post("/tariffs", TARIFF | {"valid_from": "2026-11-24T14:59:59Z"})
    assert (past.status_code, list(past.json()["errors"])) == (422, ["valid_from"])
    assert [change["type"] for change in changes()] == ["TariffSet", "TariffSet"]


@pytest.mark.parametrize(
    "change",
    [
        {"daily_storage": -1},
        {"daily_storage": None},
        {"base_fees": {"NORMAL": 1}},
        {"base_fees": {"NORMAL": 1, "EXTRA_SIZED": 2, "HUGE": 3}},
        {"valid_from": "2027-01-01T00:00:00"},
        {"valid_from": "99999-01-01"},
        {"valid_from": 1},
    ],
)
def test_a_tariff_that_cannot_be(office: Counter, change: dict[str, object]) -> None:
    assert office.post("/tariffs", TARIFF | change).status_code == 422
