"""Changing a customer: one row, seen by every parcel of theirs."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.commands.conftest import Counter, Sql

Changes = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def customer_id(counter: Counter, sql: Sql) -> str:
    counter.announce(customer_name="Ana")
    return str(sql("SELECT customer_id FROM customers")[0]["customer_id"])


def test_what_is_named_changes(counter: Counter, customer_id: str, changes: Changes) -> None:
    """Null clears; the log row is the customer's, with every value under `person`."""
    body = {"name": "Ana Ruiz", "email": "ana@example.com", "building": "Torres", "phone": "601 234 5678"}
    answer = counter.patch(f"/customers/{customer_id}", body)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert {name: answer.json()[name] for name in body} == body | {"phone": "+576012345678"}
    cleared = counter.patch(f"/customers/{customer_id}", {"email": None, "phone": ""}).json()
    assert (cleared["email"], cleared["phone"], cleared["name"]) == (None, None, "Ana Ruiz")
    change = changes(type_="CustomerChanged")[0]
    assert (str(change["customer_id"]), change["package_id"], change["version"]) == (customer_id, None, 2)
    assert change["data"]["person"]["before"]["name"] == "Ana"
    assert "Ruiz" not in str(change["data"] | {"person": {}})


def test_a_phone_of_somebody_else_is_refused(counter: Counter, customer_id: str) -> None:
    counter.announce(customer_phone="6012345678")
    assert counter.patch(f"/customers/{customer_id}", {"phone": "6012345678"}).status_code == 409
    assert counter.patch(f"/customers/{customer_id}", {"phone": "3001234567"}).status_code == 200


def test_a_stale_version_is_refused(counter: Counter, customer_id: str) -> None:
    stale = {"If-Match": '"1"'}
    assert counter.patch(f"/customers/{customer_id}", {"tower": "2"}, **stale).status_code == 200
    assert counter.patch(f"/customers/{customer_id}", {"tower": "3"}, **stale).status_code == 412


@pytest.mark.parametrize(
    "body", [{}, {"name": None}, {"name": "A"}, {"email": "not one"}, {"phone": "1"}, {"customer_id": "x"}]
)
def test_what_cannot_be_accepted(counter: Counter, customer_id: str, body: object) -> None:
    assert counter.patch(f"/customers/{customer_id}", body).status_code == 422


def test_an_unknown_customer(counter: Counter, nobody: str) -> None:
    for customer_id in (nobody, "17"):
        assert counter.patch(f"/customers/{customer_id}", {"name": "Ana"}).status_code == 404
