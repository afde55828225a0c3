"""The time, passed to whoever needs it, so that a test can move it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, Request

Clock = Callable[[], datetime]
"""Gives the present instant, aware, in UTC."""

BOGOTA = ZoneInfo("America/Bogota")


def system_clock() -> datetime:
    """Read the machine's clock."""
    return datetime.now(UTC)


def current_clock(request: Request) -> Clock:
    """Give the application's clock to a route."""
    clock: Clock = request.app.state.clock
    return clock


TheClock = Annotated[Clock, Depends(current_clock)]
