"""Who listens may lose its connection: changes show all the same, and soon it listens again."""

import pytest

from tests.chaos.conftest import Rounds
from tests.chaos.house import House
from tests.support import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

LISTENERS = """
SELECT application_name, pid FROM pg_stat_activity
WHERE application_name IN ('paqueteria projector wake-up', 'paqueteria checkpoint')
"""


def listeners(house: House) -> dict[str, set[int]]:
    """The backends that somebody listens on, by what for."""
    found: dict[str, set[int]] = {}
    with house.database() as conn:
        for name, pid in conn.execute(LISTENERS).fetchall():
            found.setdefault(name, set()).add(pid)
    return found


def test_listeners_whose_connections_are_ended(house: House, rounds: Rounds) -> None:
    """With every LISTEN gone the clerks' work still shows, and all who listened listen again."""
    with house.at_work():
        for _ in range(rounds(1, 10)):
            wait_until(lambda: len(listeners(house)) == 2)
            before = listeners(house)
            with house.database() as conn:
                conn.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS l".encode())
            house.settle()

            def all_are_back(before: dict[str, set[int]] = before) -> bool:
                now = listeners(house)
                return all(now.get(name) and not now[name] & pids for name, pids in before.items())

            wait_until(all_are_back)
            house.settle()
