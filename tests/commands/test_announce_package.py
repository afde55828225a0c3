"""Anybody may announce, once a guide; what is stored about a phone stays untold."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from commands import announce_package
from commands.api import create_app
from infra.settings import Settings
from tests.commands.conftest import Counter, Headers, Sql
from tests.support import Clock


def test_anybody_announces(counter: Counter, sql: Sql, changes: Callable[..., list[dict[str, Any]]]) -> None:
    """201 with the code, the quote and the caller's own words; customer, consent and log row stand beside it."""
    answer = counter.client.post("/api/v1/packages", json=counter.announcement(guide_number=" 1z-999aa-10123 "))
    assert answer.status_code == 201
    document = answer.json()
    assert answer.headers["Location"] == f"/api/v1/packages/{document['package_id']}"
    assert answer.headers["ETag"] == '"1"'
    assert {name: document[name] for name in document.keys() - {"package_id", "tracking_code"}} == {
        "status": "ANNOUNCED",
        "version": 1,
        "announced_at": "2026-11-24T15:00:00.000000Z",
        "base_fee": 1500,
        "customer_name": "Ana María Ñáñez",
        "customer_phone": "+573001234567",
        "guide_number": "1Z-999AA-10123",
        "other_codes": [],
        "carrier": None,
        "site": "PRINCIPAL",
        "data_consent": True,
    }
    (package,) = sql("SELECT * FROM packages")
    assert document["tracking_code"].replace("-", "") == package["tracking_code"]
    (consent,) = sql("SELECT * FROM consents")
    assert (consent["channel"], consent["package_id"]) == ("WEB", package["package_id"])
    (change,) = changes(document["package_id"])
    assert (change["type"], change["actor"], change["version"]) == ("PackageAnnounced", None, 1)
    assert change["customer_id"] == package["customer_id"]
    assert change["data"]["person"]["after"]["phone"] == "+573001234567"
    assert "Ana" not in str({name: value for name, value in change["data"].items() if name != "person"})


def test_one_phone_is_one_customer(counter: Counter, sql: Sql) -> None:
    """However it is typed; the first name stays the customer's, and each parcel keeps the name that was given."""
    for name, phone in (("Ana", "3001234567"), ("Eva", "+57 300 123 4567"), ("Leo", "57-300.123(4567)")):
        counter.announce(customer_name=name, customer_phone=phone)
    assert [(row["name"], row["phone"], row["version"]) for row in sql("SELECT * FROM customers")] == [
        ("Ana", "+573001234567", 1)
    ]
    assert {row["recipient_name"] for row in sql("SELECT recipient_name FROM packages")} == {"Ana", "Eva", "Leo"}


def test_an_active_guide_is_refused_without_a_word_about_it(counter: Counter, operator: Headers) -> None:
    """The public learns that it is in use and no more; signed-in staff see the parcel."""
    first = counter.announce(guide_number="ABC-12345")
    again = counter.announcement(guide_number="abc12345")
    answer = counter.client.post("/api/v1/packages", json=again)
    assert answer.status_code == 409
    assert answer.json().keys() == {"type", "title", "status", "detail", "instance"}
    answer = counter.client.post("/api/v1/packages", json=again, headers=operator)
    assert answer.json()["package"]["package_id"] == first["package_id"]


def test_a_cancelled_guide_is_free_again(counter: Counter) -> None:
    first = counter.announce(guide_number="ABC-12345")
    counter.post(f"/packages/{first['package_id']}/cancellation", {"reason": "OTHER"})
    assert counter.announce(guide_number="ABC-12345")["package_id"] != first["package_id"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data_consent", False),
        ("data_consent", None),
        ("customer_phone", None),
        ("customer_phone", "12345"),
        ("customer_phone", "123 4567"),
        ("customer_name", "A"),
        ("customer_name", "x" * 101),
        ("guide_number", "AB-1"),
        ("guide_number", "ÑANDÚ-1"),
        ("guide_number", "-----"),
        ("site", "NOWHERE"),
        ("site", "lower"),
        ("other_codes", ["AB"]),
        ("other_codes", ["ABC"] * 11),
        ("actor", "me"),
    ],
)
def test_a_field_that_cannot_be_accepted_is_named(counter: Counter, sql: Sql, field: str, value: object) -> None:
    """422 with the field, and nothing is written."""
    answer = counter.client.post("/api/v1/packages", json=counter.announcement(**{field: value}))
    assert answer.status_code == 422
    assert [name.partition(".")[0] for name in answer.json()["errors"]] == [field]
    assert sql("SELECT (SELECT count(*) FROM customers) + (SELECT count(*) FROM packages) AS n")[0]["n"] == 0


def test_the_tariff_of_the_announcement_stays(counter: Counter, admin: Headers, clock: Clock) -> None:
    """A tariff set later touches only what is announced from then on."""
    old = counter.announce()
    clock.advance(hours=1)
    tariff = {"base_fees": {"NORMAL": 9000, "EXTRA_SIZED": 9500}, "daily_storage": 10}
    assert counter.client.post("/api/v1/tariffs", json=tariff, headers=admin).status_code == 201
    assert counter.announce()["base_fee"] == 9000
    reception = {"package_type": "NORMAL", "condition": "GOOD"}
    received = counter.post(f"/packages/{old['package_id']}/reception", reception)
    assert received.json()["due"] == 1500


def test_a_code_that_collides_is_drawn_again(counter: Counter, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collision costs another attempt, never an error."""
    codes = iter(["AAAAAAAA", "AAAAAAAA", "AAAAAAAA", "BBBBBBBB"])
    monkeypatch.setattr(announce_package, "new_tracking_code", lambda: next(codes))
    counter.announce()
    assert counter.announce()["tracking_code"] == "BBBB-BBBB"
    assert sql("SELECT count(*) AS n FROM change_log")[0]["n"] == 2


@pytest.fixture
def throttled(settings: Settings, clock: Clock) -> FastAPI:
    return create_app(settings.model_copy(update={"throttle_announce": "2/minute"}), clock)


def test_the_public_is_throttled_by_address(throttled: FastAPI, counter: Counter, operator: Headers) -> None:
    """429 with Retry-After; a replay isn't counted, and neither are staff."""
    with TestClient(throttled) as client:
        first = counter.announcement()
        key = {"Idempotency-Key": "the first one"}
        for _ in range(4):
            assert client.post("/api/v1/packages", json=first, headers=key).status_code == 201
        assert client.post("/api/v1/packages", json=counter.announcement()).status_code == 201
        answer = client.post("/api/v1/packages", json=counter.announcement())
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        fresh = {"Idempotency-Key": "another one"}
        assert client.post("/api/v1/packages", json=counter.announcement(), headers=fresh).status_code == 429
        assert client.post("/api/v1/packages", json=first, headers=key).status_code == 201
        assert client.post("/api/v1/packages", json=counter.announcement(), headers=operator).status_code == 201
