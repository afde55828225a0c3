"""Delivering: the server says what is due, and what was paid stands beside it."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI

from tests.commands.conftest import Counter, Headers, Serve, Sql

Changes = Callable[..., list[dict[str, Any]]]


def test_a_parcel_is_delivered(counter: Counter, sql: Sql, changes: Changes, later: Callable[..., None]) -> None:
    """Base, days, storage, due and paid are stored; the position is free; nothing grows any more."""
    package = counter.receive(package_type="EXTRA_SIZED")
    later(hours=72)
    body = {"payment_method": "NEQUI", "amount": 4000, "collected_by": "La vecina"}
    answer = counter.post(f"/packages/{package['package_id']}/delivery", body)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    delivered = answer.json()
    shown = {name: delivered[name] for name in ("status", "position", "next_fee_at", "base_fee", "storage_days")}
    assert shown == {"status": "DELIVERED", "position": None, "next_fee_at": None, "base_fee": 2000, "storage_days": 2}
    assert [delivered[name] for name in ("storage_fee", "total", "due", "paid")] == [2000, 4000, 0, 4000]
    (charge,) = sql("SELECT base_fee, storage_days, storage_fee, total, due FROM charges")
    assert list(charge.values()) == [2000, 2, 2000, 4000, 4000]
    (payment,) = sql("SELECT method, amount, due, amount_reason, collected_by FROM payments")
    assert list(payment.values()) == ["NEQUI", 4000, 4000, None, "La vecina"]
    assert sql("SELECT FROM positions WHERE package_id IS NOT NULL") == []
    change = changes(package["package_id"])[-1]
    assert (change["type"], change["data"]["after"]["due"]) == ("PackageDelivered", 4000)
    assert change["data"]["person"] == {"after": {"collected_by": "La vecina"}}


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ({"hours": 0}, 1500),
        ({"hours": 24}, 1500),
        ({"hours": 24, "microseconds": 1}, 2500),
        ({"hours": 48}, 2500),
        ({"hours": 48, "seconds": 1}, 3500),
        ({"hours": 720}, 30500),
    ],
)
def test_what_is_due_is_computed_at_that_instant(
    counter: Counter, later: Callable[..., None], after: dict[str, float], due: int
) -> None:
    """Another amount without a reason is 409, with what is due; with a reason it is taken."""
    package = counter.receive()
    later(**after)
    path = f"/packages/{package['package_id']}/delivery"
    refused = counter.post(path, {"payment_method": "CASH", "amount": due + 1})
    assert (refused.status_code, refused.json()["due"]) == (409, due)
    assert refused.json()["package"]["status"] == "RECEIVED"
    waived = counter.post(path, {"payment_method": "CASH", "amount": 0, "amount_reason": "cortesía"})
    assert (waived.status_code, waived.json()["paid"], waived.json()["total"]) == (200, 0, due)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payment_method", "BITCOIN"),
        ("amount", -1),
        ("amount", "1500"),
        ("amount", 1500.5),
        ("amount", 2**63),
        ("due", 0),
    ],
)
def test_a_field_that_cannot_be_accepted(counter: Counter, field: str, value: object) -> None:
    package = counter.receive()
    body = {"payment_method": "CASH", "amount": 1500} | {field: value}
    answer = counter.post(f"/packages/{package['package_id']}/delivery", body)
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [field]


def test_only_what_is_in_storage_is_delivered(counter: Counter) -> None:
    body = {"payment_method": "CASH", "amount": 1500}
    announced = counter.announce()
    assert counter.post(f"/packages/{announced['package_id']}/delivery", body).status_code == 409
    delivered = counter.deliver(counter.receive())
    again = counter.post(f"/packages/{delivered['package_id']}/delivery", body)
    assert (again.status_code, again.json()["package"]) == (409, delivered)


@pytest.mark.anyio
async def test_delivered_or_cancelled_at_once(
    app: FastAPI, serve: Serve, counter: Counter, operator: Headers, sql: Sql
) -> None:
    """Eight deliveries and eight cancellations of one parcel: one has its effect, the money is counted once."""
    package = counter.receive()
    path = f"/api/v1/packages/{package['package_id']}"
    async with serve(app) as client:
        delivery, cancellation = {"payment_method": "CASH", "amount": 1500}, {"reason": "OTHER"}
        requests = [client.post(f"{path}/delivery", json=delivery, headers=operator) for _ in range(8)]
        requests += [client.post(f"{path}/cancellation", json=cancellation, headers=operator) for _ in range(8)]
        answers = await asyncio.gather(*requests)
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 15
    assert sql("SELECT count(*) AS n FROM charges")[0]["n"] == 1
    assert sql("SELECT version FROM packages") == [{"version": 2}]


@pytest.mark.parametrize("table", ["charges", "payments"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET due = 0", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_money_is_append_only(counter: Counter, sql: Sql, table: str, statement: str) -> None:
    """A correction is another row: the database lets nobody change or remove one."""
    counter.deliver(counter.receive())
    with pytest.raises(psycopg.errors.IntegrityError):
        sql(statement.format(table))
