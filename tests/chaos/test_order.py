"""Commits come in any order: all is seen, once, and an open transaction delays its own change alone."""

import pytest

from tests.chaos.conftest import Rounds
from tests.chaos.scenarios import Stage, many_writers

pytestmark = [pytest.mark.chaos, pytest.mark.anyio]


async def test_sixteen_writers_with_random_commits(stage: Stage, rounds: Rounds) -> None:
    """Of all that sixteen writers commit nothing is lost and nothing is taken in twice, nor does anything stall."""
    stage.patience = stage.hope = 300.0
    await many_writers(rounds(2_000, 100_000), rounds(2, 10))(stage)
