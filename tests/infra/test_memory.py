"""A process that stays doesn't look again and again at what it began with."""

import gc
from collections.abc import Iterator

import pytest

from infra import cli
from infra.serving import Config


@pytest.fixture
def collector() -> Iterator[None]:
    """Leaves this process's collector as it was."""
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_whoever_serves_settles_once_the_application_is_made() -> None:
    """In every worker, for each makes the application by itself."""
    made: list[int] = []

    async def application() -> None:
        """Answer nothing."""

    def make() -> object:
        made.append(gc.get_freeze_count())
        return application

    Config(make, factory=True, log_config=None).load()
    assert made == [0]
    assert gc.get_freeze_count() > 0


@pytest.mark.anyio
@pytest.mark.usefixtures("collector")
async def test_whoever_works_until_a_signal_settles_first() -> None:
    """The projector and whoever looks after it, before they begin."""
    frozen: list[int] = []

    async def work() -> None:
        frozen.append(gc.get_freeze_count())

    await cli.until_signal(work())
    assert frozen[0] > 0
