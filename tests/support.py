"""What tests share beside fixtures."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY
from psycopg.conninfo import make_conninfo

from infra.settings import PROJECT_ROLE, READ_ROLE, WRITE_ROLE, Settings


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


def urls_of(dsn: str) -> dict[str, str]:
    """Give the settings by which every process reaches a database, each by its own role."""
    return {
        "database_url": dsn,
        "commands_url": make_conninfo(dsn, user=WRITE_ROLE),
        "queries_url": make_conninfo(dsn, user=READ_ROLE),
        "projector_url": make_conninfo(dsn, user=PROJECT_ROLE),
    }


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
