"""The fee's one rule, at every instant that the shop's own table names, and on each side of its steps."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RECEIVED = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # a Monday, 10:00 in Bogota

TABLE = [
    (timedelta(0), 0, 1500),
    (timedelta(hours=24), 0, 1500),
    (timedelta(hours=24, seconds=1), 1, 2500),
    (timedelta(hours=47), 1, 2500),
    (timedelta(hours=48), 1, 2500),
    (timedelta(hours=48, seconds=1), 2, 3500),
    (timedelta(hours=72), 2, 3500),
    (timedelta(hours=720), 29, 30500),
    (timedelta(hours=24, microseconds=1), 1, 2500),
    (timedelta(hours=-1), 0, 1500),
]

FEE = "SELECT storage_days, storage_fee, total, next_fee_at FROM package_fee(%s, %s, %s, %s)"


@pytest.mark.parametrize(("span", "days", "total"), TABLE)
def test_the_table(database: str, span: timedelta, days: int, total: int) -> None:
    """Base 1,500 and 1,000 a day: what the counter charges after each span."""
    with psycopg.connect(database) as conn:
        row = conn.execute(FEE, (1500, 1000, RECEIVED, RECEIVED + span)).fetchone()
    assert row == (days, total - 1500, total, RECEIVED + timedelta(hours=24 * (days + 1)))


def test_an_announcement_is_a_quote(database: str) -> None:
    """Without a reception there are no days, and no instant at which the fee changes."""
    with psycopg.connect(database) as conn:
        assert conn.execute(FEE, (1500, 1000, None, RECEIVED)).fetchone() == (0, 0, 1500, None)
        quote = "SELECT base_fee(NULL, 1500, 2000), base_fee('NORMAL', 1500, 2000), base_fee('EXTRA_SIZED', 1500, 2000)"
        assert conn.execute(quote).fetchone() == (1500, 1500, 2000)


def test_any_span_agrees_with_the_rule(database: str) -> None:
    """max(0, ceil(hours / 24) - 1), by exact fractions, at the microsecond; and it changes at next_fee_at alone."""
    with psycopg.connect(database) as conn:

        @settings(max_examples=200)
        @given(st.timedeltas(timedelta(0), timedelta(days=400)))
        def agrees(span: timedelta) -> None:
            row = conn.execute(FEE, (2000, 1000, RECEIVED, RECEIVED + span)).fetchone()
            assert row is not None
            microseconds = span // timedelta(microseconds=1)
            days = max(0, ceil(Fraction(microseconds, 24 * 3600 * 10**6)) - 1)
            assert row[:3] == (days, 1000 * days, 2000 + 1000 * days)
            for instant, expected in ((row[3], days), (row[3] + timedelta(microseconds=1), days + 1)):
                step = conn.execute(FEE, (2000, 1000, RECEIVED, instant)).fetchone()
                assert step is not None
                assert step[0] == expected

        agrees()
