"""What tests share beside fixtures."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from db.roles import urls_of
from infra.settings import Settings

PATIENCE = 60.0
"""Seconds after which what must happen hasn't."""


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # a Tuesday, 10:00 in Bogota

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> datetime:
        """Move on by `timedelta(**span)`."""
        self.now += timedelta(**span)
        return self.now


def moved(settings: Settings, dsn: str) -> Settings:
    """Give the same settings for another database, or for another way to it."""
    return settings.model_copy(update=urls_of(dsn))


def gauge(name: str, **labels: str) -> float | None:
    """What this process tells under a name, without its prefix; None for nothing."""
    return REGISTRY.get_sample_value(f"paqueteria_{name}", labels)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what must happen soon; a generous deadline is no measurement."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """Wait as `wait_until` does, and let everything else go on."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.01)
