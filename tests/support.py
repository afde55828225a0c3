"""What tests share beside fixtures."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from db.roles import urls_of
from infra.settings import Settings


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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must happen soon; a generous deadline is no measurement."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.01)
