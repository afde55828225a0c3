"""One leads: whatever the leader's silence looks like, another takes its place, and nothing shows twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from tests.chaos.conftest import Rounds
from tests.chaos.equal_sides import assert_equal_sides, lag
from tests.chaos.house import House, Standby, own_environment
from tests.chaos.proxy import Proxy
from tests.projections.conftest import Shop
from tests.support import Clock, moved, wait_until

pytestmark = pytest.mark.chaos


@pytest.mark.xdist_group("chaos")
def test_the_standby_takes_over_from_a_leader_that_was_killed(house: House, rounds: Rounds) -> None:
    """The lead is free with the leader's last breath, and the next one is there already."""
    with house.at_work():
        for _ in range(rounds(1, 10)):
            leader = house.leader()
            killed_at = time.monotonic()
            leader.kill()
            house.wait_for_another(leader)
            print(f"another leads after {time.monotonic() - killed_at:.2f} s")  # noqa: T201 (shown by `make chaos`)
            house.settle()


@pytest.mark.xdist_group("chaos")
def test_a_leader_that_was_frozen_applies_nothing_twice(house: House, rounds: Rounds) -> None:
    """Stopped past its lock within a batch, it loses the lead; woken, it is fenced off, even if about to commit."""
    points = ["before the commit", "after reading", "after the upsert", "before the cache bump"]
    with house.at_work():
        for number, point in enumerate(points[: rounds(1, 4)]):
            with house.doomed(point, 1 + 3 * number, "STOP") as frozen:
                house.settle()
                process = frozen.running()
                assert process is not None
                process.resume()
                wait_until(frozen.has_lost_the_lead)
                house.settle()
                assert frozen.statuses == [], "it stands by again, as it is"
                frozen.log.unlink()
        for _ in range(rounds(0, 10)):  # and at any other instant
            leader = house.leader()
            leader.suspend()
            house.wait_for_another(leader)
            leader.resume()
            house.settle()


@pytest.fixture
def shop(settings: Settings, clock: Clock) -> Iterator[Shop]:
    shop = Shop(settings.database_url, clock)
    yield shop
    shop.conn.close()


@pytest.mark.parametrize(
    "ending",
    [
        "it forwards what is new",
        pytest.param("it forwards again", marks=pytest.mark.long),
        pytest.param("it refuses", marks=pytest.mark.long),
    ],
)
def test_a_leader_whose_network_died_without_a_word(
    settings: Settings, shop: Shop, tmp_path: Path, ending: str
) -> None:
    """Neither end of its connections is told anything: another leads, and it stands by once its network is back.

    Behind a proxy or a pooler the old connections may stay silent for good, while new ones are served.
    """
    other = Standby(own_environment(settings), tmp_path / "other.log")

    def shown() -> bool:
        return lag(shop.conn) == 0

    with Proxy.before(settings.database_url) as (proxy, dsn):
        far = moved(settings, dsn)
        cut_off = Standby(own_environment(far), tmp_path / "cut_off.log")
        with cut_off.kept():
            wait_until(lambda: cut_off.last_lead() != "")
            with other.kept():
                shop.announce()
                wait_until(shown)
                proxy.hush()
                silent_at = time.monotonic()
                shop.announce()
                wait_until(shown)
                print(f"another leads after {time.monotonic() - silent_at:.2f} s")  # noqa: T201 (shown by `make chaos`)
                assert other.last_lead() > cut_off.last_lead()
                if ending == "it forwards again":
                    proxy.speak()
                elif ending == "it refuses":
                    proxy.refuse()
                    proxy.accept_again()
                else:
                    proxy.serve_others()
                time.sleep(1)
            shop.announce()
            wait_until(shown)
            assert cut_off.statuses == [], "it came back by itself"
    assert_equal_sides(shop.conn)
