"""What tests share beside fixtures."""

from datetime import UTC, datetime, timedelta


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
