"""A false calm is impossible: what is late, stuck or parked shows, whatever a projector says of itself."""

import contextlib
import math
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import commands.api
import queries.api
import web.api
from db import projection_health
from db.leadership import LEAD
from db.pools import Connection
from db.projection_health import OldTransaction, measure, old_transactions, warnings, watch
from infra import logs
from infra.errors import Unavailable
from infra.settings import Settings
from infra.tasks import running
from projections.projector import open_projector, project_batch
from projections.refresh import refresh_views
from tests.projections.conftest import Shop
from tests.support import Clock, gauge, until

pytestmark = pytest.mark.anyio

FROM_THE_FUTURE = "UPDATE projection_checkpoint SET snapshot = '900000000000:900000000000:'"


@pytest.fixture
def shop(database: str, clock: Clock) -> Iterator[Shop]:
    shop = Shop(database, clock)
    yield shop
    shop.conn.close()


@pytest.fixture
async def projector(database: str, anyio_backend: str) -> AsyncIterator[Connection]:
    assert anyio_backend == "asyncio"
    async with await open_projector(database) as conn:
        yield conn


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look so often that a test needn't wait."""
    monkeypatch.setattr(projection_health, "EVERY", 0.02)


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [one for one in told if one.get("event") == event]


async def test_a_frozen_projector_shows_as_lag(shop: Shop, conn: Connection, projector: Connection) -> None:
    """Its checkpoint stands, and what commits after it counts, from the first row on and until it is in a batch."""
    shop.announce()
    await project_batch(projector, shop.clock)
    calm = await measure(conn, shop.clock())
    assert (calm.lag, calm.since, calm.lag_seconds) == (0, None, 0.0)
    made_at = shop.clock()
    shop.receive(shop.announce())
    late = await measure(conn, shop.clock.advance(seconds=90))
    assert (late.lag, late.since, late.lag_seconds, late.batch) == (2, made_at, 90, calm.batch)
    await project_batch(projector, shop.clock)
    assert (await measure(conn, shop.clock())).lag == 0


async def test_mutant_a_lag_against_what_was_read_last_is_calm(
    shop: Shop, conn: Connection, projector: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head that a projector keeps stands still with it, so that a lag against that is 0 where there is one."""
    kept = "(SELECT pg_snapshot_xmax(snapshot) FROM projection_checkpoint WHERE name = 'listing')"
    mutant = projection_health.MEASURE.replace(
        "xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))", f"xid < {kept}"
    )
    assert mutant != projection_health.MEASURE
    shop.announce()
    await project_batch(projector, shop.clock)
    shop.announce()
    assert (await measure(conn, shop.clock())).lag == 1
    monkeypatch.setattr(projection_health, "MEASURE", mutant)
    assert (await measure(conn, shop.clock())).lag == 0


async def test_a_transaction_still_open_at_the_checkpoint_counts_once_it_commits(
    shop: Shop, conn: Connection, projector: Connection, clock: Clock, database: str
) -> None:
    """It is older than what was read, and unread all the same: a position compared with another would miss it."""
    slow = Shop(database, clock)
    with contextlib.closing(slow.conn):
        slow.conn.execute("BEGIN")
        slow.announce(phone="+573110000000")
        shop.announce()
        await project_batch(projector, clock)
        assert (await measure(conn, clock())).lag == 0
        slow.conn.execute("COMMIT")
    assert (await measure(conn, clock())).lag == 1


async def test_rows_of_an_older_life_neither_count_nor_hide(
    shop: Shop, conn: Connection, projector: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transaction ids of another life mean nothing in this one, however many rows have them."""
    await project_batch(projector, shop.clock)
    shop.conn.execute("UPDATE projection_checkpoint SET life = 2")
    for _ in range(3):
        shop.announce()
    assert (await measure(conn, shop.clock())).lag == 0
    shop.conn.execute("ALTER TABLE change_log ALTER COLUMN life SET DEFAULT 2")
    shop.conn.execute("ALTER TABLE change_log_other ALTER COLUMN life SET DEFAULT 2")
    shop.announce()
    monkeypatch.setattr(projection_health, "MOST_COUNTED", 2)
    assert (await measure(conn, shop.clock())).lag == 1


async def test_a_checkpoint_of_another_life_is_no_calm(shop: Shop, conn: Connection) -> None:
    """A snapshot that shows what is still to come hides every change, and a system other than ours says nothing."""
    shop.announce()
    assert not (await measure(conn, shop.clock())).needs_rebuild
    shop.conn.execute("UPDATE projection_checkpoint SET system_identifier = 17")
    assert (await measure(conn, shop.clock())).needs_rebuild
    shop.conn.execute("UPDATE projection_checkpoint SET system_identifier = NULL")
    shop.conn.execute(FROM_THE_FUTURE.encode())
    health = await measure(conn, shop.clock())
    assert (health.lag, health.needs_rebuild) == (0, True)
    assert "rebuild" in warnings(health, 60)
    shop.conn.execute("DELETE FROM projection_checkpoint")
    with pytest.raises(Unavailable):
        await measure(conn, shop.clock())


async def test_what_is_unfinished_is_late_and_what_is_parked_is_told_apart(
    shop: Shop, conn: Connection, projector: Connection
) -> None:
    """A change that is in in part counts until its last part; a parked key is no lag, and is counted as a key."""
    made_at = shop.clock()
    shop.announce()
    unfinished = shop.value("SELECT max(xid)::text FROM change_log")
    shop.announce()
    parked = shop.value("SELECT max(xid)::text FROM change_log")
    await project_batch(projector, shop.clock)
    xmax = shop.value("SELECT pg_snapshot_xmax(snapshot)::text FROM projection_checkpoint")
    hide = "UPDATE projection_checkpoint SET snapshot = %s::text::pg_snapshot"
    shop.conn.execute(hide, (f"{unfinished}:{xmax}:{unfinished},{parked}",))
    namesake = "INSERT INTO change_log (xid, life, type, at) VALUES (%s::text::xid8, 0, 'SiteAdded', %s)"
    shop.conn.execute(namesake, (unfinished, made_at))
    for part in (1, 2):
        row = (unfinished, part)
        shop.conn.execute("INSERT INTO unfinished_changes VALUES (%s::text::xid8, %s, '{}', '{}')", row)
    key = uuid.uuid4()
    for kind in ("package", "customer"):
        for xid in (parked, "3"):
            park = "INSERT INTO parked_changes VALUES (%s, %s, %s::text::xid8, 'poison', %s)"
            shop.conn.execute(park, (kind, key, xid, shop.clock()))
    shop.clock.advance(seconds=30)
    shop.announce()
    health = await measure(conn, shop.clock.advance(seconds=30))
    assert (health.unread, health.unfinished, health.lag, health.parked) == (1, 1, 2, 2)
    assert (health.since, health.lag_seconds) == (made_at, 60)


async def test_a_long_frozen_projector_does_not_make_the_measure_dear(
    shop: Shop, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more rows are counted than it takes to know that there are many, and they are found by the index."""
    fill = "INSERT INTO change_log (type, at) SELECT 'SiteAdded', %s FROM generate_series(1, 20000)"
    shop.conn.execute(fill, (shop.clock(),))
    shop.conn.execute("UPDATE projection_checkpoint SET snapshot = pg_current_snapshot()")
    shop.conn.execute("VACUUM ANALYZE change_log")
    explained = await conn.execute(f"EXPLAIN {projection_health.MEASURE}".encode(), {"most": 100_000})
    plan = "\n".join(line for (line,) in await explained.fetchall())
    month = f"change_log_{shop.clock():%Y_%m}"
    assert plan.count(f"Index Scan using {month}_xid_idx") == 2, plan
    assert f"Seq Scan on {month}" not in plan, plan
    assert (await measure(conn, shop.clock())).lag == 0
    for _ in range(3):
        shop.announce()
    monkeypatch.setattr(projection_health, "MOST_COUNTED", 2)
    health = await measure(conn, shop.clock.advance(seconds=6))
    assert health.lag == 2
    assert warnings(health, 60)["projection"] == "nobody projects at the moment; behind by 2 or more changes for 6 s"


async def test_views_and_verification_have_an_age(shop: Shop, conn: Connection) -> None:
    """A view that never was refreshed is as old as can be, and a verification tells what it found."""
    never = await measure(conn, shop.clock())
    assert {name: view.age_seconds for name, view in never.views.items()} == {
        "daily_summary": math.inf,
        "package_fees": math.inf,
    }
    assert never.verification is None
    await refresh_views(conn, shop.clock())
    shop.conn.execute("INSERT INTO verifications VALUES ('listing', %s, '2 s', 4)", (shop.clock(),))
    health = await measure(conn, shop.clock.advance(seconds=301))
    assert {view.age_seconds for view in health.views.values()} == {301}
    assert health.verification is not None
    assert (health.verification.age_seconds, health.verification.differences) == (301, 4)
    assert warnings(health, 60) == {
        "projection": "nobody projects at the moment",
        "views": "daily_summary not refreshed for 301 s; package_fees not refreshed for 301 s",
        "verify": "the last verification found 4 differences",
    }
    assert "views" not in warnings(health, 61)
    assert warnings(never, 60)["views"] == "daily_summary never refreshed; package_fees never refreshed"


async def test_what_is_as_it_should_be_is_ready(shop: Shop, settings: Settings, clock: Clock, conn: Connection) -> None:
    """Somebody leads, all is projected and refreshed: nothing is said."""
    await refresh_views(conn, clock())
    shop.conn.execute(LEAD)
    with TestClient(queries.api.create_app(settings, clock)) as client:
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready", "missing": {}, "warnings": {}})
        shop.announce()
        clock.advance(seconds=5)
        assert client.get("/health/ready").json()["status"] == "ready"
        clock.advance(seconds=1)
        answer = client.get("/health/ready")
    expected = {"projection": "behind by 1 changes for 6 s"}
    assert (answer.status_code, answer.json()) == (200, {"status": "degraded", "missing": {}, "warnings": expected})


@pytest.mark.parametrize("create_app", [commands.api.create_app, queries.api.create_app, web.api.create_app])
async def test_every_api_says_that_nobody_projects(
    shop: Shop, settings: Settings, clock: Clock, conn: Connection, create_app: Callable[..., FastAPI]
) -> None:
    """With no projector at all, and without a sign-in, the check says so; it goes on to serve."""
    await refresh_views(conn, clock())
    shop.announce()
    shop.conn.execute(
        "INSERT INTO parked_changes VALUES ('package', gen_random_uuid(), pg_current_xact_id(), 'poison', now())"
    )
    shop.conn.execute("UPDATE projection_checkpoint SET needs_rebuild = true")
    with TestClient(create_app(settings, clock)) as client:
        answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["warnings"] == {
        "projection": "nobody projects at the moment; behind by 1 changes for 0 s",
        "parked": "1 packages or customers are parked: their rows can't be derived",
        "rebuild": "the read models are being rebuilt after a restore",
    }


def test_what_can_not_serve_is_503_and_what_can_not_be_measured_is_said(
    shop: Shop, settings: Settings, clock: Clock
) -> None:
    """An empty database is missing something; one that can't tell how late it is isn't calm."""
    with TestClient(queries.api.create_app(settings, clock)) as client:
        shop.conn.execute("DELETE FROM projection_checkpoint")
        assert client.get("/health/ready").json()["warnings"] == {
            "projection": "how far it is can't be measured: Unavailable"
        }
        shop.conn.execute("DROP TABLE schema_migrations")
        answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"], answer.json()["warnings"]) == (503, "missing", {})
    assert "migrations" in answer.json()["missing"]


@pytest.mark.usefixtures("often")
async def test_an_old_transaction_is_named_and_then_gone(
    shop: Shop, conn: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By pid and application, in the metric while it is open and once in the log."""
    logs.configure()
    monkeypatch.setattr(projection_health, "OLD_TRANSACTION", 0.0)
    dsn = shop.conn.info.dsn
    with psycopg.connect(dsn, application_name="a clerk's console") as holder:
        holder.execute("SELECT pg_current_xact_id()")
        pid = holder.info.backend_pid

        async def ours() -> list[OldTransaction]:  # other shops of this server have transactions of a moment, too
            return [one for one in await old_transactions(conn) if one.pid == pid]

        def told() -> list[Any]:
            return [one["application"] for one in events(caplog, "old_transaction") if one["pid"] == pid]

        def seconds() -> float | None:
            return gauge("old_transaction_seconds", pid=str(pid), application="a clerk's console")

        (found,) = await ours()
        assert (found.application_name, found.state) == ("a clerk's console", "idle in transaction")
        async with running(watch(dsn, clock)):
            await until(lambda: seconds() is not None)
            first = seconds()
            await until(lambda: seconds() != first)
            assert told() == ["a clerk's console"]
            holder.rollback()
            await until(lambda: seconds() is None)
            holder.execute("SELECT pg_current_xact_id()")
            await until(lambda: len(told()) == 2)
        holder.rollback()
        assert await ours() == []


async def test_a_transaction_is_old_by_the_servers_clock(shop: Shop, conn: Connection) -> None:
    """What has just begun is no news, and a session that merely is connected never is."""
    shop.conn.execute("BEGIN")
    shop.conn.execute("SELECT pg_current_xact_id()")
    assert await old_transactions(conn) == []


@pytest.mark.usefixtures("often")
async def test_the_gauges_follow_and_a_lost_connection_is_made_again(
    shop: Shop, conn: Connection, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each process keeps them true by itself; what cut its connection is in the log."""
    logs.configure()
    await refresh_views(conn, clock())
    shop.conn.execute("INSERT INTO verifications VALUES ('listing', %s, '1 s', 3)", (clock(),))
    async with running(watch(shop.conn.info.dsn, clock)):
        await until(lambda: gauge("view_age_seconds", view="package_fees") == 0)
        assert (gauge("verify_differences"), gauge("verify_last_run_timestamp_seconds")) == (3, clock().timestamp())
        assert (gauge("projection_led"), gauge("projection_lag_changes")) == (0, 0)
        shop.conn.execute(LEAD)
        shop.announce()
        clock.advance(seconds=7)
        await until(lambda: gauge("projection_lag_changes") == 1 and gauge("projection_lag_seconds") == 7)
        assert gauge("projection_led") == 1
        assert gauge("view_age_seconds", view="package_fees") == 7
        assert gauge("health_measured_timestamp_seconds") == clock().timestamp()
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'paqueteria health'"
        await until(lambda: bool(shop.all(cut)))
        await until(lambda: bool(events(caplog, "health_not_measured")))
        shop.announce()
        await until(lambda: gauge("projection_lag_changes") == 2)
        await until(lambda: gauge("view_age_seconds", view="package_fees") == 7)
    assert math.isnan(gauge("projection_lag_changes") or 0.0)  # what nobody looks at any more is no number either
    assert gauge("view_age_seconds", view="package_fees") is None


@pytest.mark.usefixtures("often")
async def test_what_is_not_known_is_no_number(shop: Shop, clock: Clock) -> None:
    """A zero, or the last figure, would look like calm while nothing can be measured."""
    async with running(watch(shop.conn.info.dsn, clock)):
        await until(lambda: gauge("projection_lag_changes") == 0)
        shop.conn.execute("DELETE FROM projection_checkpoint")
        await until(lambda: math.isnan(gauge("projection_lag_changes") or 0.0))
        assert math.isnan(gauge("projection_led") or 0.0)
        assert gauge("view_age_seconds", view="package_fees") is None
