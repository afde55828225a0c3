"""The life cycle against a model in memory: whatever order the steps come in, both say the same."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.commands.conftest import Counter, Headers, Sql
from tests.support import Clock

PLACES = ("00", "01", "02")
"""A small shelf is often full."""


@dataclass(frozen=True)
class Parcel:
    """What the model knows of one parcel."""

    status: str
    announced_at: datetime
    received_at: datetime | None = None
    base_fee: int = 1500
    position: str | None = None
    paid: int = 0
    version: int = 1

    def due(self, now: datetime) -> int:
        """The fee by the words of the rule: each day begun after the first one costs."""
        if self.received_at is None:
            return 0
        days, rest = divmod(now - self.received_at, timedelta(days=1))
        return self.base_fee + 1000 * max(0, days + bool(rest) - 1)


class LifeCycle(RuleBasedStateMachine):
    """Does each step over HTTP and in the model."""

    parcels = Bundle("parcels")

    counter: ClassVar[Counter]
    sql: ClassVar[Sql]
    clock: ClassVar[Clock]
    later: ClassVar[Callable[..., None]]
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.site = f"SITE-{next(self.numbers)}"
        self.model: dict[str, Parcel] = {}

    @initialize()
    def open_a_site(self) -> None:
        self.sql("INSERT INTO sites (code, name) VALUES (%s, 'Prueba')", self.site)
        insert = """INSERT INTO positions (site_id, code, ordinal)
            SELECT site_id, place, ordinal FROM sites, unnest(%s::text[]) WITH ORDINALITY AS p (place, ordinal)
            WHERE sites.code = %s"""
        self.sql(insert, list(PLACES), self.site)

    @property
    def taken(self) -> set[str]:
        return {parcel.position for parcel in self.model.values() if parcel.position is not None}

    def place(self, wanted: str | None) -> str | None:
        """Where the parcel goes by the rule; None is nowhere."""
        free = [place for place in PLACES if place not in self.taken]
        return wanted if wanted in free else None if wanted or not free else free[0]

    def expect(self, package_id: str, answer: Any, after: Parcel | None) -> None:  # noqa: ANN401
        """Hold the answer against the model: `after` is the parcel one version on, None is a refusal."""
        if after is None:
            assert answer.status_code == 409, answer.text
            return
        assert answer.status_code == 200, answer.text
        self.model[package_id] = replace(after, version=after.version + 1)

    @rule(target=parcels, count=st.integers(1, 2))
    def announce(self, count: int) -> Any:  # noqa: ANN401
        ids = [self.counter.announce(site=self.site)["package_id"] for _ in range(count)]
        self.model |= {package_id: Parcel("ANNOUNCED", self.clock()) for package_id in ids}
        return multiple(*ids)

    @rule(package_id=parcels, kind=st.sampled_from(["NORMAL", "EXTRA_SIZED"]), wanted=st.sampled_from([None, *PLACES]))
    def receive(self, package_id: str, kind: str, wanted: str | None) -> None:
        parcel, place = self.model[package_id], self.place(wanted)
        body = {"package_type": kind, "condition": "GOOD", "position": wanted}
        answer = self.counter.post(f"/packages/{package_id}/reception", body)
        after = None
        if parcel.status == "ANNOUNCED" and place and self.clock() - parcel.announced_at <= timedelta(days=30):
            fee = 1500 if kind == "NORMAL" else 2000
            after = replace(parcel, status="RECEIVED", received_at=self.clock(), base_fee=fee, position=place)
        self.expect(package_id, answer, after)

    @rule(package_id=parcels, wanted=st.sampled_from(PLACES))
    def relocate(self, package_id: str, wanted: str) -> None:
        parcel, place = self.model[package_id], self.place(wanted)
        answer = self.counter.post(f"/packages/{package_id}/relocation", {"position": wanted})
        is_possible = parcel.status == "RECEIVED" and place is not None
        self.expect(package_id, answer, replace(parcel, position=place) if is_possible else None)

    @rule(package_id=parcels)
    def deliver(self, package_id: str) -> None:
        parcel = self.model[package_id]
        due = parcel.due(self.clock())
        answer = self.counter.post(f"/packages/{package_id}/delivery", {"payment_method": "CASH", "amount": due})
        after = replace(parcel, status="DELIVERED", position=None, paid=due) if parcel.status == "RECEIVED" else None
        self.expect(package_id, answer, after)

    @rule(package_id=parcels, wanted=st.sampled_from([None, *PLACES]))
    def revert(self, package_id: str, wanted: str | None) -> None:
        parcel, place = self.model[package_id], self.place(wanted)
        answer = self.counter.post(f"/packages/{package_id}/delivery-reversal", {"reason": "x", "position": wanted})
        is_possible = parcel.status == "DELIVERED" and place is not None
        self.expect(
            package_id, answer, replace(parcel, status="RECEIVED", position=place, paid=0) if is_possible else None
        )

    @rule(package_id=parcels)
    def cancel(self, package_id: str) -> None:
        parcel = self.model[package_id]
        answer = self.counter.post(f"/packages/{package_id}/cancellation", {"reason": "OTHER"})
        is_possible = parcel.status in {"ANNOUNCED", "RECEIVED"}
        self.expect(package_id, answer, replace(parcel, status="CANCELLED", position=None) if is_possible else None)

    @rule(package_id=parcels, kind=st.sampled_from(["NORMAL", "EXTRA_SIZED"]))
    def correct(self, package_id: str, kind: str) -> None:
        parcel = self.model[package_id]
        answer = self.counter.patch(f"/packages/{package_id}", {"package_type": kind})
        fee = 1500 if kind == "NORMAL" else 2000
        self.expect(package_id, answer, replace(parcel, base_fee=fee) if parcel.status == "RECEIVED" else None)

    @rule(hours=st.sampled_from([1, 24, 25, 47, 720]))
    def wait(self, hours: int) -> None:
        self.later(hours=hours)

    @invariant()
    def both_say_the_same(self) -> None:
        rows = self.sql(
            """SELECT l.package_id::text, l.status, l.version, l.position, l.paid, l.received_at,
                (SELECT count(*) FROM change_log AS c WHERE c.package_id = l.package_id) AS changes
            FROM package_listing_source AS l WHERE l.site = %s""",
            self.site,
        )
        assert {row.pop("package_id"): row for row in rows} == {
            package_id: {
                "status": parcel.status,
                "version": parcel.version,
                "position": parcel.position,
                "paid": parcel.paid,
                "received_at": parcel.received_at,
                "changes": parcel.version,
            }
            for package_id, parcel in self.model.items()
        }


def test_the_life_cycle_is_the_models(
    counter: Counter, sql: Sql, clock: Clock, admin: Headers, later: Callable[..., None]
) -> None:
    """Nothing but the drawn steps is possible, money and places agree, and each accepted step is one log row."""
    counter.headers = admin  # who may revert any delivery

    class OfThisShop(LifeCycle):
        pass

    OfThisShop.counter, OfThisShop.clock = counter, clock
    OfThisShop.sql, OfThisShop.later = staticmethod(sql), staticmethod(later)
    run_state_machine_as_test(
        OfThisShop,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
