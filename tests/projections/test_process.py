"""Of several projecting processes one leads; what it does by itself is done once, and comes back after any failure."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg.errors import DivisionByZero, IdleInTransactionSessionTimeout
from redis.asyncio import Redis

from db.change_log import CHANNEL
from db.leadership import LEAD
from db.page_cache import EPOCH_KEY
from db.pools import Connection, connect
from infra.settings import Settings
from projections import process, projector, refresh
from projections.batch_changes import forget_batch_changes
from projections.process import Job
from projections.projector import open_projector, project_batch
from projections.refresh import refresh_views
from tests.projections.conftest import Shop
from tests.support import Clock, moved

pytestmark = pytest.mark.anyio

LEADS = """
locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid::bigint << 32 | objid::bigint = hashtextextended('paqueteria.project', 0)
"""

Condition = Callable[[], Awaitable[bool]]


async def until(condition: Condition) -> None:
    """Wait for what must happen soon; a generous deadline is no measurement."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def processes(settings: Settings, clock: Clock, number: int = 1, *jobs: Job) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(process.run(settings, clock, jobs)) for _ in range(number)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def shown(shop: Shop, count: int) -> Condition:
    async def condition() -> bool:
        return bool(await asyncio.to_thread(shop.value, "SELECT count(*) FROM package_listing") == count)

    return condition


def cut(shop: Shop, names: str) -> None:
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %s"
    )
    assert shop.conn.execute(statement, (names,)).fetchall()


async def test_a_change_shows_without_a_signal(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A signal that got lost costs one poll: here none is ever sent."""
    async with processes(settings, clock):
        shop.announce()
        await until(shown(shop, 1))


async def test_a_signal_wakes_the_projector(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no poll in sight, the write side's signal is enough."""
    monkeypatch.setattr(process, "POLL", 3600.0)
    async with processes(settings, clock):
        shop.announce()

        async def signalled() -> bool:
            shop.conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
            return await shown(shop, 1)()

        await until(signalled)


@pytest.mark.parametrize("names", ["paqueteria leader", "paqueteria projector", "paqueteria projector wake-up", "%"])
async def test_any_lost_connection_is_made_again(shop: Shop, settings: Settings, clock: Clock, names: str) -> None:
    """Whichever of its connections dies, the projector takes the lead again by itself."""
    async with processes(settings, clock):
        shop.announce()
        await until(shown(shop, 1))
        cut(shop, names)
        shop.announce()
        await until(shown(shop, 2))


async def test_a_standby_takes_over(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Two processes and one lead: when the leader's lock is gone, somebody leads again; nothing is applied twice."""
    async with processes(settings, clock, 2):
        shop.announce()
        await until(shown(shop, 1))
        leaders = f"SELECT count(*) FROM pg_locks WHERE granted AND {LEADS}"
        assert shop.value(leaders) == 1
        cut(shop, "paqueteria leader")
        shop.announce()
        await until(shown(shop, 2))
    assert shop.value("SELECT sum(count)::int FROM package_counts") == 2


async def test_a_frozen_leader_loses_the_lead(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay up and it says nothing: the server takes the lock from it, and the standby leads."""
    monkeypatch.setattr(process, "LEAD_LEASE", "SET idle_session_timeout = '1s'")
    freeze, thaw = threading.Event(), threading.Event()

    async def block(_conn: Connection, _now: datetime) -> None:
        if freeze.is_set():
            thaw.wait(30)  # the whole loop, as SIGSTOP would

    loop = asyncio.new_event_loop()
    leader = loop.create_task(process.run(settings, clock, (Job("block", 0.02, block),)))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([leader])))
    thread.start()
    shop.announce()
    await until(shown(shop, 1))
    try:
        async with processes(settings, clock):
            freeze.set()
            shop.announce()
            await until(shown(shop, 2))
            freeze.clear()
            thaw.set()
            shop.announce()
            await until(shown(shop, 3))
    finally:
        freeze.clear()
        thaw.set()
        loop.call_soon_threadsafe(leader.cancel)
        await asyncio.to_thread(thread.join)
        loop.close()
    assert shop.value("SELECT sum(count)::int FROM package_counts") == 3


async def test_a_batch_that_freezes_lets_go_of_the_checkpoint(
    database: str, shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the checkpoint's row, and would keep every later leader from moving it."""
    monkeypatch.setattr(projector, "SESSION", projector.SESSION.replace("'5s'", "'500ms'"))
    async with await projector.open_projector(database) as frozen, frozen.transaction(force_rollback=True):
        await frozen.execute("UPDATE projection_checkpoint SET at = at")
        shop.announce()
        async with processes(settings, clock):
            await until(shown(shop, 1))
        with pytest.raises(IdleInTransactionSessionTimeout):
            await frozen.execute("SELECT 1")


async def test_the_cache_is_vouched_for_only_while_somebody_leads(
    shop: Shop, settings: Settings, redis: Redis, clock: Clock
) -> None:
    """The leader lends the epoch; a process that merely stands by, or has stopped, lends none."""
    shop.conn.execute(LEAD)  # somebody else leads, and keeps no cache

    async def is_believed() -> bool:
        return bool(await redis.exists(EPOCH_KEY))

    async with processes(settings, clock):
        await asyncio.sleep(2 * process.STAND_BY)
        assert not await is_believed()
        shop.conn.execute("SELECT pg_advisory_unlock_all()")
        await until(is_believed)

    async def is_not_believed() -> bool:
        return not await is_believed()

    await until(is_not_believed)


async def test_jobs_run_in_the_leader_alone(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A job that several processes are given runs in one of them, at the clock's time."""
    ran: list[datetime] = []

    async def note(_conn: Connection, now: datetime) -> None:
        ran.append(now)

    async with processes(settings, clock, 3, Job("note", 3600, note)):
        shop.announce()
        await until(shown(shop, 1))

        async def has_run() -> bool:
            return bool(ran)

        await until(has_run)
    assert ran == [clock()]


async def test_a_job_that_fails_is_seen(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A failed run is counted, logged and noted, and the projector goes on."""

    async def fail(conn: Connection, _now: datetime) -> None:
        await conn.execute("SELECT 1 / 0")

    def failures() -> float:
        labels = {"job": "fail", "outcome": "failed"}
        return REGISTRY.get_sample_value("paqueteria_scheduled_jobs_not_done_total", labels) or 0.0

    before = failures()
    async with processes(settings, clock, 1, Job("fail", 3600, fail)):

        async def is_counted() -> bool:
            return failures() == before + 1

        await until(is_counted)
        assert shop.all("SELECT outcome, found FROM scheduled_runs WHERE job = 'fail'") == [
            {"outcome": "failed", "found": "DivisionByZero"}
        ]
    with pytest.raises(DivisionByZero):
        async with await connect(settings.postgres_dsn, "test") as conn:
            await fail(conn, clock())


async def test_a_job_that_the_end_interrupts_is_no_failure(settings: Settings, clock: Clock) -> None:
    """A clean end leaves nothing in the log that somebody would have to look at."""
    begun = asyncio.Event()

    async def linger(_conn: Connection, _now: datetime) -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with processes(settings, clock, 1, Job("linger", 3600, linger)):
        await asyncio.wait_for(begun.wait(), 30)
    labels = {"job": "linger", "outcome": "failed"}
    assert REGISTRY.get_sample_value("paqueteria_scheduled_jobs_not_done_total", labels) == 0


async def test_failures_are_told_before_there_are_any(settings: Settings, clock: Clock) -> None:
    """Of each job and outcome, by whoever stands by too: Prometheus sees no increase in a series that begins at one."""
    begun = asyncio.Event()

    async def rest(_conn: Connection, _now: datetime) -> None:
        begun.set()

    async with processes(settings, clock, 1, Job("rest", 3600, rest)):
        await asyncio.wait_for(begun.wait(), 30)
        for job in ("rest", "verify", "refresh_views"):
            for outcome in ("failed", "missed", "overlapping"):
                labels = {"job": job, "outcome": outcome}
                assert REGISTRY.get_sample_value("paqueteria_scheduled_jobs_not_done_total", labels) is not None


async def test_the_views_are_refreshed_by_the_clock(shop: Shop, settings: Settings, clock: Clock) -> None:
    """The fees of what is in storage are as of the refresh, and the day's money is Bogota's day."""
    package_id = shop.announce()
    shop.receive(package_id)
    paid = shop.announce()
    shop.receive(paid)
    clock.advance(hours=24, seconds=1)
    shop.deliver(paid)
    async with await connect(settings.postgres_dsn, "test") as conn:
        await refresh_views(conn, clock())
        assert shop.all("SELECT package_id, version, storage_days, total, site FROM package_fees") == [
            {"package_id": package_id, "version": 2, "storage_days": 1, "total": 2500, "site": "PRINCIPAL"}
        ]
        assert shop.value("SELECT next_fee_at FROM package_fees") == clock() + timedelta(hours=24, seconds=-1)
        row = shop.all("SELECT day::text, method, amount::int, waived::int, count::int FROM daily_summary")
        assert row == [{"day": "2026-11-25", "method": "CASH", "amount": 2500, "waived": 0, "count": 1}]
        refreshed = {
            row["view"]: row["refreshed_at"] for row in shop.all("SELECT view, refreshed_at FROM view_refreshes")
        }
        assert refreshed == {"package_fees": clock(), "daily_summary": clock()}


async def refresh_in_four_processes(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Let four processes find another's refresh under way, read meanwhile, and let them try again."""
    async with contextlib.AsyncExitStack() as stack:
        conns = [await stack.enter_async_context(await connect(settings.postgres_dsn, "test")) for _ in range(4)]
        shop.conn.execute("BEGIN")
        shop.conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('paqueteria.refresh', 0))")
        await asyncio.gather(*(refresh_views(conn, clock()) for conn in conns))
        assert shop.value("SELECT count(*) FROM view_refreshes") == 0
        shop.conn.execute("COMMIT")
        shop.conn.execute("BEGIN")
        assert shop.value("SELECT count(*) FROM package_fees") == 0
        await asyncio.gather(*(refresh_views(conn, clock()) for conn in conns))
        shop.conn.execute("COMMIT")
        assert shop.value("SELECT count(*) FROM view_refreshes") == 2


async def test_one_refresh_in_the_whole_cluster(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Who finds another refresh under way leaves the work to it; readers go on meanwhile."""
    await refresh_in_four_processes(shop, settings, clock)


async def test_without_taking_turns_refreshes_would_pile_up(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that doesn't ask whether another is at it refreshes as well."""
    monkeypatch.setattr(refresh, "TAKE_TURN", "SELECT true")
    with pytest.raises(AssertionError):
        await refresh_in_four_processes(shop, settings, clock)


async def test_a_database_that_is_away_at_first(settings: Settings, clock: Clock, shop: Shop) -> None:
    """The process waits for its database instead of ending."""
    nowhere = moved(settings, settings.database_url.replace("test_", "later_"))
    name = psycopg.conninfo.conninfo_to_dict(nowhere.database_url)["dbname"]
    async with processes(nowhere, clock):
        await asyncio.sleep(3 * process.STAND_BY)
        shop.conn.execute(f"CREATE DATABASE {name} TEMPLATE template_paqueteria".encode())
        later = Shop(nowhere.database_url, clock)
        later.announce()
        await until(shown(later, 1))
        later.conn.close()
    shop.conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_an_end_is_an_end_while_the_database_goes_away(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told to stop at the moment that a connection dies stops, and doesn't take the lead again."""
    led = 0

    async def lose_the_lead(*_: object) -> None:
        nonlocal led
        led += 1

        async def fail() -> None:
            task.cancel()  # the end, at the very moment at which something within fails
            raise psycopg.OperationalError

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    monkeypatch.setattr(process, "_lead", lose_the_lead)
    task = asyncio.create_task(process.run(settings, clock))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert led == 1


async def test_fees_that_the_view_has_not_are_counted(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Parcels that it lacks, and those whose next step has passed; at exactly that instant the old fee still holds."""

    async def outdated(conn: Connection) -> float | None:
        await refresh_views(conn, clock())
        return REGISTRY.get_sample_value("paqueteria_fees_outdated_rows")

    shop.receive(shop.announce())
    async with (
        await connect(settings.postgres_dsn, "test") as conn,
        await open_projector(settings.postgres_dsn) as projector,
    ):
        await project_batch(projector, clock)
        assert await outdated(conn) == 1, "the view was empty"
        clock.advance(hours=24)
        assert await outdated(conn) == 0
        clock.advance(hours=24, microseconds=1)
        assert await outdated(conn) == 1


async def test_a_job_that_rests_is_not_run_again_by_another_leader(
    shop: Shop, settings: Settings, clock: Clock
) -> None:
    """Its outcome is noted, whoever looks; once it has rested for so long it is run again."""
    ran: list[datetime] = []

    async def look(_conn: Connection, now: datetime) -> dict[str, int]:
        ran.append(now)
        return {"found": len(ran)}

    async def lead(times: int) -> None:
        async def is_noted() -> bool:
            noted = shop.value("SELECT count(*) FROM scheduled_runs WHERE job IN ('look', 'after')")
            return noted == 2 and len(ran) >= times

        after = Job("after", 3600, forget_batch_changes)
        async with processes(settings, clock, 1, Job("look", 3600, look, rests=3600), after):
            await until(is_noted)
        shop.conn.execute("DELETE FROM scheduled_runs WHERE job = 'after'")

    await lead(1)
    noted = shop.all("SELECT ran_at, outcome, found FROM scheduled_runs WHERE job = 'look'")
    assert noted == [{"ran_at": clock(), "outcome": "done", "found": {"found": 1}}]
    clock.advance(seconds=3599)
    await lead(1)
    assert len(ran) == 1
    clock.advance(seconds=1)
    await lead(2)
    assert len(ran) == 2
