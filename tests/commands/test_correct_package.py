"""Correcting: what is named changes, null clears, the rest stays."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.commands.conftest import Counter, Sql

Changes = Callable[..., list[dict[str, Any]]]


def test_what_is_named_changes(counter: Counter, changes: Changes) -> None:
    """Everything at once; the fee follows the type; the log has both sides, the personal ones apart."""
    package = counter.receive(carrier="Deprisa", other_codes=["AAA"])
    body: dict[str, Any] = {
        "guide_number": "new-guide-1",
        "other_codes": ["BBB", "CCC"],
        "carrier": None,
        "observations": "frágil",
        "customer_name": "Eva Ruiz",
        "package_type": "EXTRA_SIZED",
        "condition": "OPENED",
    }
    answer = counter.patch(f"/packages/{package['package_id']}", body)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    expected = {name: value for name, value in body.items() if name not in ("observations", "customer_name")}
    expected |= {"guide_number": "NEW-GUIDE-1", "recipient_name": "Eva Ruiz", "due": 2000, "base_fee": 2000}
    assert {name: answer.json()[name] for name in expected} == expected
    assert answer.json()["customer"] == package["customer"]
    data = changes(package["package_id"])[-1]["data"]
    assert data["before"] == {
        "guide_number": package["guide_number"],
        "other_codes": ["AAA"],
        "carrier": "Deprisa",
        "observations": None,
        "package_type": "NORMAL",
        "condition": "GOOD",
    }
    assert data["person"] == {"before": {"recipient_name": "Luis Pérez"}, "after": {"recipient_name": "Eva Ruiz"}}


def test_what_is_left_out_stays(counter: Counter) -> None:
    package = counter.receive(carrier="Deprisa", other_codes=["AAA"])
    answer = counter.patch(f"/packages/{package['package_id']}", {"condition": "FAIR"})
    assert answer.json() == package | {"condition": "FAIR", "version": 2}


def test_a_phone_moves_this_parcel_alone(counter: Counter, sql: Sql, changes: Changes) -> None:
    """To that phone's customer, found or made with the recipient's name; the recipient's name stays."""
    first, second = counter.announce(customer_name="Ana"), counter.announce(customer_name="Eva")
    path = f"/packages/{first['package_id']}"
    moved = counter.patch(path, {"customer_phone": "601 234 5678"}).json()
    assert (moved["customer"]["phone"], moved["customer"]["name"]) == ("+576012345678", "Ana")
    change = changes(first["package_id"])[-1]
    assert str(change["customer_id"]) == moved["customer"]["customer_id"]
    assert change["data"]["person"]["before"] == {"phone": "+573001234567"}
    other = sql(
        "SELECT phone FROM customers JOIN packages USING (customer_id) WHERE package_id = %s", second["package_id"]
    )
    assert other == [{"phone": "+573001234567"}]
    back = counter.patch(path, {"customer_phone": "3001234567"}).json()
    assert (back["customer"]["name"], back["recipient_name"]) == ("Ana", "Ana")
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 2


def test_a_guide_of_another_parcel_is_refused(counter: Counter) -> None:
    """409 with that parcel; the own one, written otherwise, is fine."""
    first, second = counter.receive(guide_number="ABC-12345"), counter.receive()
    answer = counter.patch(f"/packages/{second['package_id']}", {"guide_number": "abc12345"})
    assert (answer.status_code, answer.json()["package"]["package_id"]) == (409, first["package_id"])
    own = counter.patch(f"/packages/{first['package_id']}", {"guide_number": "ABC1-2345"})
    assert (own.status_code, own.json()["guide_number"]) == (200, "ABC1-2345")


@pytest.mark.parametrize("body", [{"package_type": "NORMAL"}, {"condition": "GOOD", "carrier": "x"}])
def test_type_and_condition_only_once_received(counter: Counter, body: dict[str, str]) -> None:
    package = counter.announce()
    assert counter.patch(f"/packages/{package['package_id']}", body).status_code == 409
    assert counter.patch(f"/packages/{package['package_id']}", {"carrier": "x"}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"guide_number": None},
        {"customer_name": None},
        {"customer_phone": None},
        {"customer_phone": "1"},
        {"package_type": None},
        {"condition": None},
        {"other_codes": None},
        {"status": "DELIVERED"},
        {"site": "PRINCIPAL"},
        [],
    ],
)
def test_what_cannot_be_corrected(counter: Counter, body: object) -> None:
    """An empty correction, null where something must stand, and what has a command of its own."""
    package = counter.receive()
    assert counter.patch(f"/packages/{package['package_id']}", body).status_code == 422


def test_what_has_left_cannot_be_corrected(counter: Counter) -> None:
    package = counter.deliver(counter.receive())
    answer = counter.patch(f"/packages/{package['package_id']}", {"package_type": "EXTRA_SIZED"})
    assert (answer.status_code, answer.json()["package"]) == (409, package)
