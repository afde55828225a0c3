"""Whatever dies under load, at whatever instant: nothing is lost, nothing shows twice, and nobody helps."""

import random
import time
from collections.abc import Callable

import pytest

from tests.chaos.conftest import Rounds
from tests.chaos.doomed import POINTS
from tests.chaos.house import House

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

FAULTS: dict[str, tuple[Callable[[House], None], int, int]] = {
    "the leading projector is killed": (lambda house: house.kill(house.leader), 2, 100),
    "the API's worker is killed": (lambda house: house.kill(lambda: house.child("serve")), 1, 5),
    "PostgreSQL is stopped immediately": (lambda house: house.stop_postgres_immediately(), 1, 5),
    "Valkey is killed": (lambda house: house.kill(house.valkey), 1, 5),
    "Valkey is emptied": (lambda house: house.empty_redis(), 1, 10),
}
"""Each with its rounds, short and long."""


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_when(house: House, rounds: Rounds, fault: str) -> None:
    """After each fault every acknowledged command is there, once, and every page shows what the tables say."""
    strike, short, long = FAULTS[fault]
    with house.at_work():
        for number in range(rounds(short, long)):
            time.sleep(random.Random(number).uniform(0.05, 0.6))  # noqa: S311 (an instant, not a secret)
            strike(house)
            time.sleep(0.1)
            house.settle()


QUICK = ("before the commit", "before the cache bump")
"""Points that the short form tries; the long one tries all."""


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=() if point in QUICK else pytest.mark.long) for point in POINTS]
)
def test_nothing_is_lost_when_the_projector_dies(house: House, rounds: Rounds, point: str) -> None:
    """At no point of its work does a projector's death leave a half-done batch or a page from before."""
    with house.at_work():
        for number in range(rounds(1, 3)):
            with house.doomed(point, 1 + 3 * number):
                house.settle()
