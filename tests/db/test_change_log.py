"""The log is kept by month; a month is made ahead, and nothing is ever refused for want of one."""

from datetime import UTC, datetime

import psycopg
import pytest

from db.change_log import MONTHS_AHEAD, add_months
from db.pools import connect

pytestmark = pytest.mark.anyio

FUTURE = datetime(2031, 11, 15, 12, 0, tzinfo=UTC)

PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'change_log'::regclass ORDER BY 1"

WHERE = "SELECT tableoid::regclass::text FROM change_log WHERE type = %s"

APPEND = "INSERT INTO change_log (type, at, logged_at) VALUES (%s, now(), %s)"


async def test_months_are_made_ahead(database: str) -> None:
    """The month of the clock and those after it, each once, over the turn of a year."""
    with psycopg.connect(database, autocommit=True) as conn:
        before = {name for (name,) in conn.execute(PARTS)}
        async with await connect(database, "test") as job:
            for _ in range(2):
                await add_months(job, FUTURE)
        made = {name for (name,) in conn.execute(PARTS)} - before
    assert made == {f"change_log_{month}" for month in ("2031_11", "2031_12", "2032_01", "2032_02")}
    assert len(made) == 1 + MONTHS_AHEAD


async def test_a_change_stands_in_its_month(database: str) -> None:
    """Months begin at midnight UTC, inclusive."""
    async with await connect(database, "test") as job:
        await add_months(job, FUTURE)
    with psycopg.connect(database, autocommit=True) as conn:
        for name, at in (("last", "2031-11-30T23:59:59.999999Z"), ("first", "2031-12-01T00:00:00Z")):
            conn.execute(APPEND, (name, at))
        assert conn.execute(WHERE, ("last",)).fetchone() == ("change_log_2031_11",)
        assert conn.execute(WHERE, ("first",)).fetchone() == ("change_log_2031_12",)


async def test_a_month_that_nobody_made_is_written_all_the_same(database: str) -> None:
    """It stays where it was written; the job makes the others and goes on."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(APPEND, ("late", FUTURE))
        async with await connect(database, "test") as job:
            await add_months(job, FUTURE)
        conn.execute(APPEND, ("later", FUTURE))
        for name in ("late", "later"):
            assert conn.execute(WHERE, (name,)).fetchone() == ("change_log_other",)
        made = {name for (name,) in conn.execute(PARTS)}
    assert "change_log_2031_12" in made
    assert "change_log_2031_11" not in made


async def test_each_month_is_append_only(database: str) -> None:
    """History can't be deleted through a partition either."""
    async with await connect(database, "test") as job:
        await add_months(job, FUTURE)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(APPEND, ("kept", FUTURE))
        for statement in ("DELETE FROM change_log_2031_11", "TRUNCATE change_log_2031_11", "TRUNCATE change_log_other"):
            with pytest.raises(psycopg.errors.IntegrityError):
                conn.execute(statement.encode())
