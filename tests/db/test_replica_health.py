"""A standby that is behind, or away, shows as that."""

import math
from pathlib import Path

import psycopg
import pytest

from db import replica_health
from db.replica_health import Written, watch
from infra.tasks import running
from tests.support import gauge, until

WRITE = "SELECT pg_logical_emit_message(true, 'test', 'something')"


def test_lag_is_the_age_of_the_oldest_thing_that_is_missing() -> None:
    """An idle primary makes nobody late, and how far behind in bytes is no time."""
    written = Written()
    assert math.isnan(written.lag(0, 0.0)), "nothing is known yet"
    written.see(100, 10.0)
    assert written.lag(100, 1000.0) == 0, "there was nothing to replay"
    assert written.lag(99, 12.0) == 2
    for at in range(11, 60):
        written.see(200, float(at))
    assert written.lag(100, 60.0) == 49
    written.see(300, 60.0)
    assert (written.lag(100, 61.0), written.lag(200, 61.0), written.lag(300, 61.0)) == (50, 1, 0)


@pytest.mark.anyio
async def test_one_that_has_replayed_everything_is_not_behind_and_one_that_is_away_has_no_lag(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its number, not by its address."""
    monkeypatch.setattr(replica_health, "EVERY", 0.01)
    away = f"postgresql://nobody@/nothing?host={tmp_path}"
    with psycopg.connect(database, autocommit=True) as conn:
        async with running(watch(database, (database, away))):
            await until(
                lambda: (
                    gauge("replica_up", replica="replica 1") == 1
                    and gauge("replica_lag_seconds", replica="replica 1") == 0
                )
            )
            await until(
                lambda: (
                    gauge("replica_up", replica="replica 2") == 0
                    and math.isnan(gauge("replica_lag_seconds", replica="replica 2") or 0.0)
                )
            )
            conn.execute(WRITE)
            monkeypatch.setattr(replica_health, "REPLAYED", "SELECT 1::bigint")  # it replays nothing any more
            await until(lambda: (gauge("replica_lag_seconds", replica="replica 1") or 0.0) > 0)
    assert gauge("replica_up", replica="replica 1") is None  # nobody looks any more
