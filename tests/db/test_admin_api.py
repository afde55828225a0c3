"""What an ADMIN is told of the projections is what readiness and the gauges are told."""

import psycopg
import pytest
from fastapi.testclient import TestClient

from db import projection_health
from db.leadership import LEAD
from infra.auth import Session, encode_session
from infra.settings import Settings
from tests.projections.conftest import Shop
from tests.support import Clock
from web.api import create_app

ADD_ADMIN = """
INSERT INTO staff (username, full_name, role, password_hash) VALUES ('admin', 'Admin', 'ADMIN', '-') RETURNING staff_id
"""


def test_an_admin_sees_what_stands_in_the_way(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lag, what is unfinished or parked, who leads, the views, the last verification, and who holds a transaction."""
    monkeypatch.setattr(projection_health, "OLD_TRANSACTION", 0.0)
    shop = Shop(settings.postgres_dsn, clock)
    made_at = clock()
    shop.announce()
    shop.conn.execute(LEAD)
    shop.conn.execute("INSERT INTO parked_changes VALUES ('package', gen_random_uuid(), '3', 'poison', now())")
    shop.conn.execute("INSERT INTO verifications VALUES ('listing', %s, '1 s', 0)", (made_at,))
    shop.conn.execute("INSERT INTO view_refreshes VALUES ('package_fees', %s, '2 s')", (made_at,))
    staff = shop.conn.execute(ADD_ADMIN).fetchone()
    assert staff is not None
    clock.advance(seconds=40)
    token = encode_session(Session(staff[0], 1), settings.signing_key(), clock())
    with (
        TestClient(create_app(settings, clock), headers={"Authorization": f"Bearer {token}"}) as client,
        psycopg.connect(settings.postgres_dsn, application_name="report") as holder,
    ):
        holder.execute("SELECT pg_current_xact_id()")
        told = client.get("/api/v1/admin/projections").json()
        assert [(one["pid"], one["application_name"], one["state"]) for one in told.pop("old_transactions")] == [
            (holder.info.backend_pid, "report", "idle in transaction")
        ]
    shop.conn.close()
    instant = "2026-11-24T15:00:00.000000Z"
    assert told.pop("incarnation")
    assert told.pop("projected_at")
    assert told == {
        "batch": 1,
        "lag_changes": 1,
        "lag_since": instant,
        "lag_seconds": 40.0,
        "unfinished": 0,
        "parked": 1,
        "led": True,
        "needs_rebuild": False,
        "views": {
            "daily_summary": {"refreshed_at": None, "took_seconds": None},
            "package_fees": {"refreshed_at": instant, "took_seconds": 2.0},
        },
        "verification": {"verified_at": instant, "age_seconds": 40.0, "differences": 0},
    }
