"""What must hold, as functions: with the product as it is they pass, and with any guard broken they must fail."""

import asyncio
import contextlib
import functools
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from db.consistency import Checkpoint, CheckpointWatcher, Token
from db.page_cache import EpochKeeper, Page, PageCache, generation_key
from db.pools import Connection
from infra.clock import system_clock
from infra.errors import Unavailable
from infra.settings import Settings
from projections import process, projector
from projections.process import Job
from tests.chaos.equal_sides import assert_equal_sides, lag
from tests.chaos.proxy import Proxy
from tests.projections.conftest import Shop
from tests.support import Clock

WRITE_COMMANDS = """
CREATE PROCEDURE write_commands(writer integer, commands integer) LANGUAGE plpgsql AS $$
DECLARE
    customer uuid;
    package uuid;
    now_version integer;
BEGIN
    PERFORM setseed(writer / 1000.0);
    FOR n IN 1..commands LOOP
        IF n % 3 = 1 THEN
            INSERT INTO customers (name, phone) VALUES ('Ana Peña', '+5731' || writer || n % 50)
                ON CONFLICT (phone) DO UPDATE SET phone = excluded.phone RETURNING customer_id INTO customer;
            INSERT INTO packages (guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id,
                    announced_at)
                SELECT 'W-' || writer || '-' || n,
                       translate(upper(lpad(to_hex(writer), 2, '0') || lpad(to_hex(n), 6, '0')), '01', 'GH'),
                       customer, 'Ana Peña', (SELECT site_id FROM sites), 'ANNOUNCED', (SELECT tariff_id FROM tariffs),
                       now()
                RETURNING package_id INTO package;
            now_version := 1;
        ELSE
            UPDATE packages SET observations = n::text, version = version + 1 WHERE package_id = package
                RETURNING version INTO now_version;
        END IF;
        INSERT INTO change_log (package_id, customer_id, type, version, at)
            VALUES (package, customer, 'PackageWritten', now_version, now());
        PERFORM pg_sleep(random() * 0.004);
        COMMIT;
    END LOOP;
END $$
"""


@dataclass
class Stage:
    """A database and a Redis of the scenario's own, and how long to wait for what must happen.

    `hope` is for what a guard brings about: without that guard it would never happen.
    """

    settings: Settings
    clock: Clock
    patience: float = 60.0
    hope: float = 60.0

    @contextlib.contextmanager
    def shop(self) -> Iterator[Shop]:
        """A clerk who writes by SQL."""
        shop = Shop(self.settings.postgres_dsn, self.clock)
        with contextlib.closing(shop.conn):
            yield shop

    @contextlib.asynccontextmanager
    async def projector(self) -> AsyncIterator[Connection]:
        """A connection for batches."""
        async with await projector.open_projector(self.settings.postgres_dsn) as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """An empty Redis."""
        async with Redis.from_url(self.settings.redis_dsn) as redis:
            await redis.flushdb()
            yield redis

    @contextlib.asynccontextmanager
    async def projecting(self) -> AsyncIterator[None]:
        """Run the projector's process in this loop."""
        task = asyncio.create_task(process.run(self.settings, self.clock))
        try:
            yield
        finally:
            jobs = [each for each in asyncio.all_tasks() if "run_coroutine_job" in repr(each)]
            task.cancel()
            await asyncio.gather(task, *jobs, return_exceptions=True)  # its jobs are cancelled with it, not awaited

    async def until(self, condition: Callable[[], bool], what: str, patience: float | None = None) -> None:
        """Wait for what must happen."""
        deadline = asyncio.get_running_loop().time() + (self.patience if patience is None else patience)
        while not await asyncio.to_thread(condition):
            assert asyncio.get_running_loop().time() < deadline, what
            await asyncio.sleep(0.02)


Scenario = Callable[[Stage], Awaitable[None]]


@contextlib.contextmanager
def wrapped(owner: object, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Put something around a function, as it is by now, while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, wrap(getattr(owner, name)))
        yield


def count_of(shop: Shop, table: str) -> int:
    return int(shop.value(f"SELECT count(*) FROM {table}"))


def projected() -> float:
    """How many log rows this process's projectors have taken in."""
    return REGISTRY.get_sample_value("paqueteria_projected_changes_total") or 0.0


async def a_slow_commit_is_not_lost(stage: Stage) -> None:
    """A change whose transaction began first and committed last shows, like those between."""
    with stage.shop() as slow, stage.shop() as fast:
        async with stage.projector() as conn:
            with slow.conn.transaction():
                slow.announce(phone="+573001111111")
                fast.announce(phone="+573002222222")
                await projector.project_batch(conn, stage.clock)
            await projector.project_batch(conn, stage.clock)
        assert_equal_sides(fast.conn)


async def nothing_is_taken_in_twice(stage: Stage) -> None:
    """A commit between a batch's first statement and its reading belongs to the next batch alone."""

    def late(read_changes: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read(conn: Connection, *bounds: Any) -> object:  # noqa: ANN401
            if count_of(shop, "packages") == 1:
                shop.announce()
            return await read_changes(conn, *bounds)

        return read

    with stage.shop() as shop, wrapped(projector, "read_changes", late):
        async with stage.projector() as conn:
            shop.announce()
            changes = sum([(await projector.project_batch(conn, stage.clock)).changes for _ in range(3)])
        assert changes == count_of(shop, "change_log"), "a change was taken in twice"
        assert_equal_sides(shop.conn)


async def the_checkpoint_never_goes_back(stage: Stage) -> None:
    """A projector that wakes up within a batch, after others have taken in that one and the next, changes nothing."""
    add = "INSERT INTO change_log (type, at) VALUES ('SiteChanged', now())"
    async with stage.projector() as frozen, stage.projector() as other:

        def freezing(read_changes: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def read(conn: Connection, *bounds: Any) -> object:  # noqa: ANN401
                changes = await read_changes(conn, *bounds)
                if conn is frozen:
                    await projector.project_batch(other, stage.clock)
                    shop.conn.execute(add)
                    await projector.project_batch(other, stage.clock)
                return changes

            return read

        with stage.shop() as shop, wrapped(projector, "read_changes", freezing):
            shop.conn.execute(add)
            with contextlib.suppress(projector.Fenced):
                await projector.project_batch(frozen, stage.clock)
            assert shop.value("SELECT batch FROM projection_checkpoint") == 3, "the checkpoint went back"
            assert lag(shop.conn) == 0


async def a_change_shows_without_a_signal(stage: Stage) -> None:
    """A signal that is lost costs one poll: here none is sent at all."""
    with stage.shop() as shop:
        shop.announce()
        async with stage.projecting():
            await stage.until(lambda: count_of(shop, "package_listing") == 1, "the first change was not shown")
            await asyncio.sleep(0.3)  # now it waits
            shop.announce()
            await stage.until(
                lambda: count_of(shop, "package_listing") == 2, "a change without a signal was not shown", stage.hope
            )


async def what_is_announced_is_committed(stage: Stage) -> None:
    """A projector that dies before its commit has said nothing: Redis knows of no batch that PostgreSQL doesn't."""
    with stage.shop() as shop:

        def dying(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def project(conn: Connection, *rest: object, **options: object) -> object:
                batch = await work(conn, *rest, **options)
                shop.conn.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
                return batch

            return project

        shop.announce()
        async with stage.redis() as redis, stage.projector() as conn:
            keeper = EpochKeeper(redis)
            await keeper.begin()
            with wrapped(projector, "_project", dying), pytest.raises(psycopg.OperationalError):
                await projector.project_pending(conn, keeper, stage.clock)
            known = await redis.get(generation_key("all"))
        committed = shop.value("SELECT coalesce(max(batch), 0) FROM page_generations WHERE scope = 'all'")
        assert _batch_of(known) <= committed, "a batch was announced that never committed"


def _batch_of(known: bytes | str | None) -> int:
    return int(known.partition(b":")[2]) if isinstance(known, bytes) else 0


SCOPES = ("status:RECEIVED",)


def page_of(batch: int) -> Page:
    """A page that tells which batch it was computed in."""
    return Page(str(batch).encode(), f'"{batch}"', Checkpoint("life", batch, "10:10:"), None, system_clock())


async def found_in(cache: PageCache) -> int | None:
    """Of which batch the page is that a reader gets, if it gets one."""
    _, page = await cache.find("digest", SCOPES)
    return None if page is None else page.checkpoint.batch


@contextlib.asynccontextmanager
async def kept_cache(stage: Stage) -> AsyncIterator[tuple[Redis, EpochKeeper, PageCache]]:
    """A page cache whose scopes are known to be of batch 5."""
    async with stage.redis() as redis:
        keeper = EpochKeeper(redis)
        await keeper.begin()
        await keeper.announce(SCOPES, 5)
        yield redis, keeper, PageCache(redis, ttl=30)


async def a_slow_reader_fills_in_vain(stage: Stage) -> None:
    """A page that was computed before a write and stored after it is given to nobody."""
    async with kept_cache(stage) as (_, keeper, cache):
        place, _ = await cache.find("digest", SCOPES)
        assert place is not None
        await keeper.announce(SCOPES, 6)
        await cache.keep(place, page_of(5), [5], stage.clock())
        assert await found_in(cache) in {None, 6}, "an old page was found"


async def an_emptied_redis_forgets(stage: Stage) -> None:
    """After Redis was emptied, a fill that was begun before is not believed, though no generation is known any more."""
    async with kept_cache(stage) as (redis, keeper, cache):
        unknown, _ = await cache.find("digest", ("status:DELIVERED",))
        place, _ = await cache.find("digest", SCOPES)
        assert place is not None
        assert unknown is not None
        await keeper.announce(SCOPES, 6)
        await redis.flushdb()
        await keeper.renew()
        late = type(unknown)("digest", place.epoch, SCOPES, None, place.discards)
        await cache.keep(late, page_of(5), [5], stage.clock())
        assert await found_in(cache) is None, "an old page was found"


async def a_late_announcement_lowers_nothing(stage: Stage) -> None:
    """An announcement of an old batch, from a slow process, brings no old page back."""
    async with kept_cache(stage) as (_, keeper, cache):
        place, _ = await cache.find("digest", SCOPES)
        assert place is not None
        await cache.keep(place, page_of(5), [5], stage.clock())
        await keeper.announce(SCOPES, 6)
        await keeper.announce(SCOPES, 5)
        assert await found_in(cache) in {None, 6}, "an old page was found"


async def a_page_from_behind_is_not_believed(stage: Stage) -> None:
    """A page whose own snapshot lags behind what Redis was told stands under its own generation, not under Redis's."""
    async with kept_cache(stage) as (_, keeper, cache):
        await keeper.announce(SCOPES, 6)
        place, _ = await cache.find("digest", SCOPES)
        assert place is not None
        await cache.keep(place, page_of(5), [5], stage.clock())
        assert await found_in(cache) in {None, 6}, "an old page was found"


async def a_token_waits_for_its_own_change(stage: Stage) -> None:
    """A token of a transaction that committed late isn't met by later ones that show, nor by the commit itself."""
    with stage.shop() as slow, stage.shop() as fast:
        watcher = CheckpointWatcher(stage.settings.postgres_dsn)
        watching = asyncio.create_task(watcher.run())
        try:
            async with stage.projector() as conn:
                with slow.conn.transaction():
                    package_id = slow.announce(phone="+573001111111")
                    xid = int(slow.value("SELECT pg_current_xact_id()::text"))
                    fast.announce(phone="+573002222222")
                    await projector.project_batch(conn, stage.clock)
                token = Token(slow.value("SELECT incarnation FROM projection_checkpoint"), xid=xid)
                shown = f"package_listing WHERE package_id = '{package_id}'"
                with contextlib.suppress(Unavailable):
                    await watcher.wait_for(token, 0.5)
                    assert count_of(fast, shown) == 1, "a reader with a token was shown a listing without its change"
                await projector.project_batch(conn, stage.clock)
                await watcher.wait_for(token, stage.patience)
                assert count_of(fast, shown) == 1
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def a_silent_connection_is_given_up(stage: Stage) -> None:
    """Readers with a token aren't refused for ever because one connection never answers again: another is made."""
    with stage.shop() as shop, Proxy.before(stage.settings.postgres_dsn) as (proxy, dsn):
        watcher = CheckpointWatcher(dsn)
        watching = asyncio.create_task(watcher.run())
        incarnation = shop.value("SELECT incarnation FROM projection_checkpoint")
        try:
            await watcher.wait_for(Token(incarnation, batch=1), stage.patience)
            proxy.hush()
            shop.announce()
            async with stage.projector() as conn:
                token = Token(incarnation, batch=(await projector.project_batch(conn, stage.clock)).number)
            with pytest.raises(Unavailable):
                await watcher.wait_for(token, 0.5)
            proxy.serve_others()
            is_seen = True
            try:
                await watcher.wait_for(token, stage.hope)
            except Unavailable:
                is_seen = False
            assert is_seen, "a connection that is silent for good was not given up"
        finally:
            proxy.speak()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def a_frozen_leader_is_replaced(stage: Stage) -> None:
    """A leader whose connections stay up and which says nothing loses the lead; woken, it applies nothing twice."""
    freeze, thaw = threading.Event(), threading.Event()

    async def block(_conn: Connection, _now: datetime) -> None:
        if freeze.is_set():
            await asyncio.sleep(0)
            thaw.wait(stage.patience)  # the whole loop, as SIGSTOP would

    loop = asyncio.new_event_loop()
    lease = process.LEAD_LEASE.replace("'5s'", "'1s'")
    with stage.shop() as shop, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "LEAD_LEASE", lease)
        shop.announce()
        leader = loop.create_task(process.run(stage.settings, stage.clock, (Job("block", 0.02, block),)))
        thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([leader])))
        thread.start()
        try:
            await stage.until(lambda: count_of(shop, "package_listing") == 1, "nobody led")
            freeze.set()
            async with stage.projecting():
                await asyncio.sleep(0.5)
                shop.announce()
                await stage.until(
                    lambda: count_of(shop, "package_listing") == 2, "a frozen leader was not replaced", stage.hope
                )
                freeze.clear()
                thaw.set()
                shop.announce()
                await stage.until(lambda: count_of(shop, "package_listing") == 3, "the lead was lost")
        finally:
            freeze.clear()
            thaw.set()
            loop.call_soon_threadsafe(leader.cancel)
            await asyncio.to_thread(thread.join)
            loop.close()
        assert_equal_sides(shop.conn)


def many_writers(commands: int, hold: float) -> Scenario:
    """Make the scenario of 16 writers, so many commands in all, and a transaction left open for `hold` seconds."""

    async def scenario(stage: Stage) -> None:
        """All is seen, nothing twice, and nobody waits for the open transaction but its own change."""
        before = projected()
        with stage.shop() as held, stage.shop() as shop:
            shop.conn.execute(WRITE_COMMANDS.encode())
            async with stage.projecting():
                work = asyncio.gather(
                    *(asyncio.to_thread(_write, stage, writer, commands // 16) for writer in range(16, 32))
                )
                try:
                    with held.conn.transaction():
                        package_id = held.announce(phone="+573001111111")
                        await _others_show(stage, shop, hold)
                        assert count_of(shop, f"package_listing WHERE package_id = '{package_id}'") == 0
                finally:
                    await work
                await stage.until(lambda: lag(shop.conn) == 0, "what has committed was not all taken in")
                await stage.until(
                    lambda: projected() - before >= count_of(shop, "change_log"), "not all was counted", stage.hope
                )
            assert projected() - before == count_of(shop, "change_log"), "a change was taken in twice"
            assert count_of(shop, "change_log") >= commands // 16 * 16
            assert_equal_sides(shop.conn)

    return scenario


def _write(stage: Stage, writer: int, commands: int) -> None:
    with psycopg.connect(stage.settings.postgres_dsn, autocommit=True) as conn:
        conn.execute("CALL write_commands(%s, %s)", (writer, commands))


def _is_shown(shop: Shop, package_id: uuid.UUID) -> bool:
    return count_of(shop, f"package_listing WHERE package_id = '{package_id}'") == 1


async def _others_show(stage: Stage, shop: Shop, seconds: float) -> None:
    """Announce one parcel after another for so long, each of which must show."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        package_id = shop.announce()
        await stage.until(functools.partial(_is_shown, shop, package_id), "what others announced was not shown")
        await asyncio.sleep(0.05)
