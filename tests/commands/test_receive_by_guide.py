"""Receiving by guide: as the announcement, anew after a lapsed one, or from nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from tests.commands.conftest import Counter, Headers, Serve, Sql

Changes = Callable[..., list[dict[str, Any]]]


def test_an_announced_guide_is_received_as_that(counter: Counter, sql: Sql, changes: Changes) -> None:
    """200; its customer, recipient, tariff and code stay, whatever name is given, and none need be."""
    announced = counter.announce(guide_number="ABC-12345")
    body = {"guide_number": "abc12345", "package_type": "NORMAL", "condition": "GOOD", "carrier": "Deprisa"}
    answer = counter.post("/receptions", body | {"customer_name": "Otro", "customer_phone": "6012345678"})
    assert (answer.status_code, answer.headers["ETag"], "Location" in answer.headers) == (200, '"2"', False)
    package = answer.json()
    assert package["package_id"] == announced["package_id"]
    assert (package["recipient_name"], package["customer"]["phone"]) == ("Ana María Ñáñez", "+573001234567")
    assert (package["guide_number"], package["carrier"], package["status"]) == ("ABC-12345", "Deprisa", "RECEIVED")
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 1
    assert [change["type"] for change in changes(package["package_id"])] == ["PackageAnnounced", "PackageReceived"]


def test_an_unknown_guide_is_announced_and_received(counter: Counter, sql: Sql, changes: Changes) -> None:
    """201, with a customer that may have no phone, and a consent where it was given."""
    answer = counter.post("/receptions", counter.parcel(other_codes=["Q1 W2"], data_consent=True))
    assert answer.status_code == 201
    package = answer.json()
    assert answer.headers["Location"] == f"/api/v1/packages/{package['package_id']}"
    assert package["announced_at"] == package["received_at"]
    assert (package["customer"]["phone"], package["other_codes"]) == (None, ["Q1 W2"])
    assert [change["type"] for change in changes(package["package_id"])] == ["PackageAnnounced", "PackageReceived"]
    assert sql("SELECT channel FROM consents") == [{"channel": "COUNTER"}]
    counter.receive()
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 2
    assert sql("SELECT count(*) AS n FROM consents")[0]["n"] == 1


def test_an_unknown_guide_needs_a_name(counter: Counter, sql: Sql) -> None:
    answer = counter.post("/receptions", {"guide_number": "ABCDE", "package_type": "NORMAL", "condition": "GOOD"})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["customer_name"]
    assert sql("SELECT FROM packages") == []


def test_a_lapsed_announcement_gives_way(
    counter: Counter, sql: Sql, changes: Changes, later: Callable[..., None]
) -> None:
    """It is cancelled EXPIRED and the parcel received anew; without a name neither happens."""
    announced = counter.announce(guide_number="ABC-12345")
    later(days=30, seconds=1)
    body = {"guide_number": "ABC-12345", "package_type": "NORMAL", "condition": "GOOD"}
    assert counter.post("/receptions", body).status_code == 422
    assert sql("SELECT status FROM packages") == [{"status": "ANNOUNCED"}]
    answer = counter.post("/receptions", body | {"customer_name": "Ana"})
    assert answer.status_code == 201
    assert answer.json()["package_id"] != announced["package_id"]
    (old,) = sql("SELECT * FROM packages WHERE package_id = %s", announced["package_id"])
    assert (old["status"], old["cancellation_reason"], old["version"]) == ("CANCELLED", "EXPIRED", 2)
    assert changes(announced["package_id"])[-1]["type"] == "PackageCancelled"


def test_a_guide_that_is_here_or_was_delivered_is_refused(counter: Counter) -> None:
    """409 with the parcel that has the guide."""
    package = counter.receive()
    body = counter.parcel(guide_number=package["guide_number"])
    assert counter.post("/receptions", body).json()["package"]["status"] == "RECEIVED"
    counter.deliver(package)
    answer = counter.post("/receptions", body)
    assert answer.status_code == 409
    assert answer.json()["package"]["status"] == "DELIVERED"


def test_a_taken_position_shows_who_stands_there(counter: Counter, sql: Sql) -> None:
    """409, and no customer is left behind."""
    package = counter.receive(position="07")
    before = sql("SELECT count(*) AS n FROM customers")
    answer = counter.post("/receptions", counter.parcel(position="07"))
    assert answer.status_code == 409
    assert answer.json()["package"]["package_id"] == package["package_id"]
    assert sql("SELECT count(*) AS n FROM customers") == before


def test_another_site_has_another_shelf(counter: Counter, admin: Headers) -> None:
    """The site that the counter names is where the parcel is; one that doesn't exist is a wrong field."""
    assert counter.client.post("/api/v1/sites", json={"site": "NORTE", "name": "N"}, headers=admin).status_code == 201
    announced = counter.announce()
    package = counter.receive(site="NORTE")
    assert (package["site"], package["position"]) == ("NORTE", "00")
    moved = counter.post("/receptions", counter.parcel(guide_number=announced["guide_number"], site="NORTE"))
    assert (moved.json()["site"], moved.json()["position"]) == ("NORTE", "01")
    assert counter.post("/receptions", counter.parcel(site="SUR")).json()["errors"].keys() == {"site"}


@pytest.mark.anyio
async def test_one_guide_at_once_is_one_parcel(
    app: FastAPI, serve: Serve, counter: Counter, operator: Headers, sql: Sql
) -> None:
    """Of 16 who receive, and 8 who announce, an unknown guide at the same time exactly one makes the parcel."""
    parcel, announcement = counter.parcel(), counter.announcement()
    announcement["guide_number"] = parcel["guide_number"]
    async with serve(app) as client:
        requests = [client.post("/api/v1/receptions", json=parcel, headers=operator) for _ in range(16)]
        requests += [client.post("/api/v1/packages", json=announcement) for _ in range(8)]
        answers = await asyncio.gather(*requests)
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(200) <= 1) == (1, True)
    assert set(codes) <= {200, 201, 409}
    assert [row["status"] for row in sql("SELECT status FROM packages")] == ["RECEIVED"]
    assert sql("SELECT count(*) AS n FROM positions WHERE package_id IS NOT NULL")[0]["n"] == 1
