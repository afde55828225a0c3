"""How long the shop is tormented, and the shop that is."""

from collections.abc import Callable, Iterator

import pytest

from infra.settings import Settings
from tests.chaos.house import House
from tests.chaos.scenarios import Stage
from tests.support import Clock

Rounds = Callable[[int, int], int]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", choices=["short", "long"], default="short", help="how many rounds of each scenario")


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Rounds:
    """Chooses between a scenario's short and its long number of rounds."""
    is_long = request.config.getoption("--chaos", "short") == "long"
    return lambda short, long: long if is_long else short


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A whole shop with a standby, for all scenarios together: no fault may need a new one."""
    house = House(tmp_path_factory.mktemp("house"))
    with house.open():
        yield house


@pytest.fixture
def stage(settings: Settings, clock: Clock) -> Stage:
    return Stage(settings, clock)
