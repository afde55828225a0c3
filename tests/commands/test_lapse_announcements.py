"""Announcements lapse after 30 days, by the schedule, in bounded transactions."""

import pytest

from commands import lapse_announcements, transaction
from commands.lapse_announcements import lapse_announcements as lapse
from db.pools import connect
from tests.commands.conftest import Counter, Sql
from tests.support import Clock


@pytest.mark.anyio
async def test_what_nobody_brought_is_cancelled(
    counter: Counter, sql: Sql, clock: Clock, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXPIRED, with a log row each and no actor; what is younger or received stays; no chunk is forgotten."""
    for module in (transaction, lapse_announcements):
        monkeypatch.setattr(module, "CHUNK", 2)
    for _ in range(5):
        counter.announce()
    received = counter.receive()
    clock.advance(seconds=1)
    counter.announce()
    async with await connect(database, "test") as conn:
        assert await lapse(conn, clock.advance(days=30)) == 5
        assert await lapse(conn, clock()) == 0
    rows = sql("SELECT status, cancellation_reason AS reason, count(*) AS n FROM packages GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [
        ("ANNOUNCED", None, 1),
        ("CANCELLED", "EXPIRED", 5),
        ("RECEIVED", None, 1),
    ]
    changes = sql("SELECT actor, version, at FROM change_log WHERE type = 'PackageCancelled'")
    assert changes == [{"actor": None, "version": 2, "at": clock()}] * 5
    assert received["status"] == "RECEIVED"
