"""Reverting a delivery: as if it had never left, with every row of money kept."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.commands.conftest import Counter, Headers, Sql

Changes = Callable[..., list[dict[str, Any]]]


def test_a_delivery_is_taken_back(counter: Counter, sql: Sql, changes: Changes, later: Callable[..., None]) -> None:
    """RECEIVED with the same reception and tariff; charge and payment are reversed by rows of the opposite sign."""
    package = counter.receive()
    later(hours=30)
    counter.deliver(package | {"due": 2500})
    later(minutes=30)
    path = f"/packages/{package['package_id']}/delivery-reversal"
    answer = counter.post(path, {"reason": "Era del vecino", "position": "33"})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"3"')
    back = answer.json()
    assert {name: back[name] for name in ("status", "position", "received_at", "delivered_at", "paid")} == {
        "status": "RECEIVED",
        "position": "33",
        "received_at": package["received_at"],
        "delivered_at": None,
        "paid": 0,
    }
    assert (back["storage_days"], back["due"]) == (1, 2500)
    for table in ("charges", "payments"):
        assert sql(f"SELECT count(*) AS n, sum(due) AS due FROM {table}") == [{"n": 2, "due": 0}]
    change = changes(package["package_id"])[-1]
    assert (change["type"], change["data"]["after"]["reason"]) == ("DeliveryReverted", "Era del vecino")
    counter.deliver(back)
    assert sql("SELECT sum(amount) AS paid FROM payments") == [{"paid": 2500}]
    assert counter.post(path, {"reason": "Otra vez"}).status_code == 200
    assert sql("SELECT sum(amount) AS paid FROM payments") == [{"paid": 0}]


def test_an_operator_takes_back_own_deliveries_for_30_minutes(
    counter: Counter, staff: dict[str, Headers], later: Callable[..., None]
) -> None:
    """A colleague's never, an own one not later; an ADMIN any at any time."""
    package = counter.deliver(counter.receive())
    path = f"/packages/{package['package_id']}/delivery-reversal"
    assert counter.post(path, {"reason": "x"}, **staff["colleague"]).status_code == 403
    later(minutes=30, microseconds=1)
    assert counter.post(path, {"reason": "x"}).status_code == 403
    later(days=40)
    assert counter.post(path, {"reason": "x"}, **staff["admin"]).status_code == 200


def test_it_needs_a_delivery_a_reason_and_a_place(counter: Counter, sql: Sql) -> None:
    """409 for what isn't delivered, 422 without a reason, 409 for a taken position and for a full shelf."""
    sql("DELETE FROM positions WHERE ordinal > 1")
    package = counter.receive()
    path = f"/packages/{package['package_id']}/delivery-reversal"
    assert counter.post(path, {"reason": "x"}).status_code == 409
    counter.deliver(package)
    assert counter.post(path, {}).status_code == 422
    assert counter.post(path, {"reason": " "}).status_code == 422
    standing = counter.receive(position="00")
    taken = counter.post(path, {"reason": "x", "position": "00"})
    assert (taken.status_code, taken.json()["package"]["package_id"]) == (409, standing["package_id"])
    counter.receive()
    full = counter.post(path, {"reason": "x"})
    assert (full.status_code, full.json()["package"]["status"]) == (409, "DELIVERED")
    assert sql("SELECT count(*) AS n FROM payments")[0]["n"] == 1


def test_a_payment_is_reversed_once(counter: Counter, sql: Sql) -> None:
    """The database says so too."""
    package = counter.deliver(counter.receive())
    counter.post(f"/packages/{package['package_id']}/delivery-reversal", {"reason": "x"})
    columns = "package_id, site_id, method, amount, due, amount_reason, reverses, staff_id, at"
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(f"INSERT INTO payments ({columns}) SELECT {columns} FROM payments WHERE reverses IS NOT NULL")
