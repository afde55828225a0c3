"""Cancelling: the place is free at once and the clock stops."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.commands.conftest import Counter, Sql

Changes = Callable[..., list[dict[str, Any]]]


def test_a_received_parcel_is_cancelled(
    counter: Counter, sql: Sql, changes: Changes, later: Callable[..., None]
) -> None:
    """Its fee is frozen, nothing is due and nothing was paid."""
    package = counter.receive()
    later(hours=50)
    body = {"reason": "RETURNED_TO_CARRIER", "observations": "nadie vino"}
    answer = counter.post(f"/packages/{package['package_id']}/cancellation", body)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    cancelled = answer.json()
    later(days=9)
    assert (cancelled["status"], cancelled["position"], cancelled["next_fee_at"]) == ("CANCELLED", None, None)
    assert [cancelled[name] for name in ("storage_days", "total", "due", "paid")] == [2, 3500, 0, 0]
    assert sql("SELECT total, due FROM charges") == [{"total": 3500, "due": 0}]
    assert sql("SELECT FROM positions WHERE package_id IS NOT NULL") == []
    assert sql("SELECT cancellation_reason AS r, observations AS o FROM packages") == [
        {"r": "RETURNED_TO_CARRIER", "o": "nadie vino"}
    ]
    change = changes(package["package_id"])[-1]
    assert (change["type"], change["data"]["after"]["reason"]) == ("PackageCancelled", "RETURNED_TO_CARRIER")


def test_an_announcement_is_cancelled(counter: Counter, sql: Sql) -> None:
    """It never stood on the shelf, so there is nothing to freeze."""
    package = counter.announce()
    answer = counter.post(f"/packages/{package['package_id']}/cancellation", {"reason": "CUSTOMER_REQUEST"})
    assert (answer.status_code, answer.json()["total"], answer.json()["received_at"]) == (200, 1500, None)
    assert sql("SELECT FROM charges") == []


@pytest.mark.parametrize("body", [{}, {"reason": "BORED"}, {"reason": None}])
def test_a_reason_is_needed(counter: Counter, body: dict[str, object]) -> None:
    package = counter.announce()
    answer = counter.post(f"/packages/{package['package_id']}/cancellation", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["reason"])


def test_what_has_left_cannot_be_cancelled(counter: Counter) -> None:
    """Delivered or cancelled, 409 with the parcel."""
    delivered = counter.deliver(counter.receive())
    cancelled = counter.announce()
    counter.post(f"/packages/{cancelled['package_id']}/cancellation", {"reason": "LOST"})
    for package, status in ((delivered, "DELIVERED"), (cancelled, "CANCELLED")):
        answer = counter.post(f"/packages/{package['package_id']}/cancellation", {"reason": "LOST"})
        assert (answer.status_code, answer.json()["package"]["status"]) == (409, status)
