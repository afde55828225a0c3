"""What an ADMIN is told of the projections is what readiness and the gauges are told."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient

from db import projection_health
from db.leadership import LEAD
from db.page_cache import EPOCH_KEY, discards_key
from infra.auth import Session, encode_session
from infra.settings import Settings
from tests.projections.conftest import Shop
from tests.support import Clock
from web.api import create_app

ADD_ADMIN = """
INSERT INTO staff (username, full_name, role, password_hash) VALUES ('admin', 'Admin', 'ADMIN', '-') RETURNING staff_id
"""


def admin_of(settings: Settings, clock: Callable[[], datetime]) -> dict[str, str]:
    with psycopg.connect(settings.postgres_dsn, autocommit=True) as conn:
        staff = conn.execute(ADD_ADMIN).fetchone()
    assert staff is not None
    token = encode_session(Session(staff[0], 1), settings.signing_key(), clock())
    return {"Authorization": f"Bearer {token}"}


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
    shop.conn.execute(
        "INSERT INTO scheduled_runs VALUES ('analyze', %s, '3 s', 'done', '{\"tables\": 31}')", (made_at,)
    )
    clock.advance(seconds=40)
    with (
        TestClient(create_app(settings, clock), headers=admin_of(settings, clock)) as client,
        psycopg.connect(settings.postgres_dsn, application_name="report") as holder,
    ):
        holder.execute("SELECT pg_current_xact_id()")
        told = client.get("/api/v1/admin/projections").json()
        # Those that look at the database have one for a moment, too.
        old = [one for one in told.pop("old_transactions") if not one["application_name"].startswith("paqueteria")]
        assert [(one["pid"], one["application_name"], one["state"]) for one in old] == [
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
        "jobs": [
            {"job": "analyze", "ran_at": instant, "took_seconds": 3.0, "outcome": "done", "found": {"tables": 31}}
        ],
    }


def test_an_admin_sees_what_the_cache_did_and_what_it_takes(settings: Settings, clock: Clock) -> None:
    """By level, with what each found; nobody vouches for Redis here, so that both levels are passed by."""
    with TestClient(create_app(settings, clock), headers=admin_of(settings, clock)) as client:
        before = client.get("/api/v1/admin/cache").json()
        for headers in ({}, {"Cache-Control": "no-store"}):
            assert client.get("/api/v1/packages", headers=headers).headers["X-Cache"] == "BYPASS"
        after = client.get("/api/v1/admin/cache").json()
    for level in ("L1", "L2"):
        for outcome in ("bypassed", "untrusted"):
            assert after["levels"][level][outcome] == before["levels"][level][outcome] + 1
    assert after["redis"]["believed"] is False
    assert after["redis"]["used_memory_bytes"] > 0
    assert after["memory"].keys() == {"pages", "bytes", "evicted"}


def test_without_redis_the_cache_is_told_all_the_same(settings: Settings, clock: Clock, tmp_path: Path) -> None:
    """What isn't known is null, and discarding what nobody shows is refused."""
    away = settings.model_copy(update={"redis_url": f"unix://{tmp_path}/nobody.sock?db=0"})
    with TestClient(create_app(away, clock), headers=admin_of(settings, clock)) as client:
        assert client.get("/api/v1/admin/cache").json()["redis"] is None
        assert client.delete("/api/v1/admin/cache").status_code == 503


def test_an_admin_sees_the_pools(settings: Settings, clock: Clock) -> None:
    """Of the whole service, by name."""
    with TestClient(create_app(settings, clock), headers=admin_of(settings, clock)) as client:
        pools = client.get("/api/v1/admin/pools").json()["items"]
    assert {"commands", "queries"} <= {pool["name"] for pool in pools}
    assert all(pool["max_size"] == settings.pool_max for pool in pools if pool["name"] in ("commands", "queries"))


def test_a_customers_and_a_statuss_pages_are_discarded_alone(settings: Settings, clock: Clock) -> None:
    """The scopes that pages of theirs are in, and the listing of all that shows them too; nobody else may."""
    customer = "01234567-89ab-7def-8123-456789abcdef"
    with (
        TestClient(create_app(settings, clock), headers=admin_of(settings, clock)) as client,
        redis.Redis.from_url(settings.redis_dsn) as cache,
    ):
        cache.flushdb()
        cache.set(EPOCH_KEY, "an epoch")
        address = "/api/v1/admin/cache"
        assert client.delete(f"{address}?customer_id={customer}&status=RECEIVED").json() == {
            "scopes": [f"customer:{customer}", "status:RECEIVED"]
        }
        for scope in (f"customer:{customer}", "status:RECEIVED", "all"):
            assert cache.get(discards_key(scope)) == b"1"
        assert (cache.get(discards_key("status:DELIVERED")), cache.get(EPOCH_KEY)) == (None, b"an epoch")
        assert client.delete(f"{address}?status=LOST").status_code == 422
        assert client.delete(address).json() == {"scopes": ["everything"]}
        assert cache.get(EPOCH_KEY) is None
        for method, path in (("GET", "cache"), ("DELETE", "cache"), ("GET", "pools"), ("GET", "projections")):
            assert client.request(method, f"/api/v1/admin/{path}", headers={"Authorization": ""}).status_code == 401
