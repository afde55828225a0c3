"""A rebuilt read model is what its source says, and nobody notices the rebuild."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid

import psycopg
import pytest

from db.pools import Connection
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections import rebuild as rebuild_module
from projections import shadows
from projections.projector import Fenced, project_batch
from projections.rebuild import rebuild
from projections.verify import verify
from tests.db.test_migrate import SCHEMA, dump
from tests.projections.conftest import Shop
from tests.projections.test_projector import assert_equal_sides
from tests.support import Clock

pytestmark = pytest.mark.anyio

STRUCTURE = """
SELECT c.relname, c.relkind, pg_get_indexdef(c.oid) AS definition FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 1
"""


@pytest.fixture(autouse=True)
def one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts end at sampled keys: of a shop's one block, one time in a hundred. Here there is one part, every time."""
    monkeypatch.setattr(shadows, "QUANTILES", shadows.QUANTILES.replace("SYSTEM (1)", "SYSTEM (0)"))


async def test_a_rebuild_mends_what_was_changed_by_hand(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """Whatever happened to the read models, the normalized tables define them; their structure stays the same."""
    for _ in range(3):
        shop.receive(shop.announce())
    await project_batch(projector, clock)
    structure = shop.all(STRUCTURE)
    shop.conn.execute("UPDATE package_listing SET customer_name = 'nobody'")
    shop.conn.execute("DELETE FROM package_search")
    shop.conn.execute("UPDATE package_counts SET count = 77")
    steps: list[tuple[str, int, int]] = []
    await rebuild(settings, None, lambda *step: steps.append(step), clock)
    assert_equal_sides(shop)
    assert shop.value("SELECT count(*) FROM package_search") == 3
    assert shop.all(STRUCTURE) == structure
    assert ("filling package_listing", 1, 1) in steps
    assert steps[-1] == ("catching up", 1, 1)


async def test_what_was_not_projected_yet_is_in_and_not_twice(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """A rebuild of all moves the checkpoint to its own snapshot; one of one model leaves it to the projector."""
    shop.announce()
    await rebuild(settings, None, clock=clock)
    assert (await project_batch(projector, clock)).changes == 0
    shop.announce()
    await rebuild(settings, "package_listing", clock=clock)
    assert_equal_sides(shop)
    assert (await project_batch(projector, clock)).changes == 1
    assert_equal_sides(shop)
    assert shop.value("SELECT count(*) FROM package_search") == 2


async def test_a_rebuild_beside_writers_readers_and_the_projector(
    shop: Shop, second_shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """No error for anybody, no short page, and both sides equal in the end."""
    for number in range(20):
        shop.announce(phone=f"+5730011{number:05d}")
    await project_batch(projector, clock)
    done = asyncio.Event()
    shortest = 20

    def write() -> None:
        while not done.is_set():
            second_shop.announce(phone="+573002222222")

    def read() -> None:
        nonlocal shortest
        while not done.is_set():
            shortest = min(shortest, shop.value("SELECT count(*) FROM package_listing"))

    async def project() -> None:
        while not done.is_set():
            with contextlib.suppress(Fenced):  # the swap moved the checkpoint: the projector tries again
                await project_batch(projector, clock)
            await asyncio.sleep(0.01)

    others = asyncio.gather(asyncio.to_thread(write), asyncio.to_thread(read), project())
    try:
        for _ in range(3):
            await rebuild(settings, None, clock=clock)
    finally:
        done.set()
        await others
    await project_batch(projector, clock)
    assert shortest == 20
    assert_equal_sides(shop)


async def test_a_rebuilt_schema_is_the_migrated_one(database: str, settings: Settings, clock: Clock) -> None:
    """Names, constraints and indexes are as the migrations made them, however often the tables are swapped."""
    for _ in range(2):
        await rebuild(settings, None, clock=clock)
    assert dump(database) == SCHEMA.read_text()


async def test_the_counts_alone_are_rebuilt(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """They are counted from the listing as it stands, and what is on its way is added by its batch."""
    shop.announce()
    await project_batch(projector, clock)
    shop.announce()
    shop.conn.execute("UPDATE package_counts SET count = 77")
    await rebuild(settings, "package_counts", clock=clock)
    assert shop.value("SELECT sum(count)::int FROM package_counts") == 1
    await project_batch(projector, clock)
    assert_equal_sides(shop)


async def test_a_long_reader_is_waited_for_and_others_read_on(
    shop: Shop, second_shop: Shop, settings: Settings, clock: Clock
) -> None:
    """An export holds the old table for as long as it reads; the swap tries again and again, and comes after it."""
    shop.announce()
    with second_shop.conn.transaction():
        assert second_shop.value("SELECT count(*) FROM package_listing") == 0
        task = asyncio.create_task(rebuild(settings, None, clock=clock))
        waits = (
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            " AND relation = 'package_listing'::regclass)"
        )
        async with asyncio.timeout(30):
            for waiting in (True, False, True, False):
                while shop.value(waits) is not waiting:  # noqa: ASYNC110 (a lock in the database has no event of ours)
                    await asyncio.sleep(0.005)
        assert second_shop.value("SELECT count(*) FROM package_listing") == 0
    await task
    assert shop.value("SELECT count(*) FROM package_listing") == 1


async def test_redis_away_is_no_obstacle(shop: Shop, settings: Settings, clock: Clock) -> None:
    """What is cached there is discarded by the projector, which meets a batch that isn't its own."""
    shop.announce()
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    await rebuild(away, None, clock=clock)
    assert shop.value("SELECT count(*) FROM package_listing") == 1


async def test_a_shadow_left_by_a_kill_is_no_obstacle(shop: Shop, settings: Settings, clock: Clock) -> None:
    """The next rebuild begins anew."""
    shop.announce()
    shop.conn.execute("CREATE TABLE package_listing_shadow (LIKE package_listing)")
    await rebuild(settings, "package_listing", clock=clock)
    assert shop.value("SELECT count(*) FROM package_listing") == 1


async def test_only_one_rebuild_at_a_time(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Two would fill the same shadow; and what isn't a read model is named so."""
    shop.conn.execute("SELECT pg_advisory_lock(hashtextextended('paqueteria.rebuild', 0))")
    with pytest.raises(ConfigurationError, match="Another rebuild"):
        await rebuild(settings, None, clock=clock)
    with pytest.raises(ConfigurationError, match="no read model packages"):
        await rebuild(settings, "packages", clock=clock)


async def test_parts_are_together_the_whole(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at any keys, each row is in one part; how many parts are done is told."""
    monkeypatch.setattr(shadows, "QUANTILES", shadows.QUANTILES.replace("TABLESAMPLE SYSTEM (0)", ""))
    for number in range(20):
        shop.receive(shop.announce(phone=f"+5730011{number:05d}"))
    steps: list[tuple[str, int, int]] = []
    await rebuild(settings, None, lambda *step: steps.append(step), clock)
    assert_equal_sides(shop)
    assert await verify(settings, clock=clock) == 0
    assert ("filling package_listing", 8, 8) in steps


async def test_right_words_stay_and_wrong_ones_are_mended(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words' index is dear: few wrong rows are mended where they stand, many are a reason for a new table."""
    table = "SELECT 'package_search'::regclass::oid::bigint"
    for _ in range(3):
        shop.announce()
    await project_batch(projector, clock)
    shop.conn.execute(
        "UPDATE package_search SET text = ' nothing'"
        " WHERE package_id = (SELECT min(package_id::text) FROM packages)::uuid"
    )
    shop.announce()
    before = shop.value(table)
    await rebuild(settings, None, clock=clock)
    assert shop.value(table) == before
    assert await verify(settings, clock=clock) == 0
    monkeypatch.setattr(rebuild_module, "FEW_DIFFERENCES", 1)
    shop.conn.execute("UPDATE package_search SET text = ' nothing'")
    await rebuild(settings, None, clock=clock)
    assert shop.value(table) != before
    assert await verify(settings, clock=clock) == 0
    before = shop.value(table)
    await rebuild(settings, "package_search", clock=clock)
    assert shop.value(table) != before


async def test_new_words_are_not_missed_after_a_rebuild_of_the_listing_alone(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """The projector writes words where the listing's row changes, and finds nothing to change after the rebuild."""
    shop.announce()
    await project_batch(projector, clock)
    shop.rename("+573001234567", "Zoraida Ñáñez")
    await rebuild(settings, "package_listing", clock=clock)
    await project_batch(projector, clock)
    assert shop.value("SELECT text LIKE '%zoraida nanez%' FROM package_search")
    assert await verify(settings, clock=clock) == 0


OVERFLOW = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, at)
SELECT %(id)s, 0, 2000000000, 0, 0, 0, now() FROM generate_series(1, 2)
"""

MEND_OVERFLOW = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, at)
SELECT %(id)s, 0, -2000000000, 0, 0, 0, now() FROM generate_series(1, 2)
"""


async def test_a_poison_row_is_parked_and_the_rest_is_rebuilt(shop: Shop, settings: Settings, clock: Clock) -> None:
    """It is named with the reason, its tokens are not met, and a rebuild after the cause is gone takes it in again."""
    for _ in range(5):
        shop.receive(shop.announce())
    poison = uuid.UUID(str(shop.value("SELECT max(package_id::text) FROM packages")))
    shop.conn.execute(OVERFLOW, {"id": poison})
    xid = f"(SELECT max(xid::text::bigint)::text::xid8 FROM change_log WHERE package_id = '{poison}')"
    shown = f"SELECT pg_visible_in_snapshot({xid}, snapshot) FROM projection_checkpoint"
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT count(*) FROM package_listing") == 4
    assert shop.all("SELECT kind, key, reason, at FROM parked_changes") == [
        {"kind": "package", "key": poison, "reason": "integer out of range", "at": clock()}
    ]
    assert shop.value(f"SELECT xid = {xid} FROM parked_changes")
    assert not shop.value(shown)
    since = clock()
    clock.advance(hours=1)
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT at FROM parked_changes") == since
    shop.conn.execute(MEND_OVERFLOW, {"id": poison})
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT count(*) FROM parked_changes") == 0
    assert shop.value(shown)
    assert_equal_sides(shop)


async def test_a_poison_customer_is_parked(shop: Shop, settings: Settings, clock: Clock) -> None:
    """By the change that named the customer last, be it of a package; the packages are in."""
    shop.announce()
    definition = shop.value("SELECT pg_get_viewdef('customer_listing_source'::regclass)").replace(
        " version,", " version / (length(name) - 4) AS version,"
    )
    assert " / " in definition
    shop.conn.execute(f"CREATE OR REPLACE VIEW customer_listing_source AS {definition}".encode())
    shop.announce("José", "+573005555555")
    key = shop.value("SELECT customer_id FROM customers WHERE name = 'José'")
    await rebuild(settings, None, clock=clock)
    newest = shop.value("SELECT max(xid::text::bigint)::text FROM change_log")
    parked = shop.all("SELECT kind, key, xid::text, reason FROM parked_changes")
    assert parked == [{"kind": "customer", "key": key, "xid": newest, "reason": "division by zero"}]
    assert shop.value("SELECT count(*) FROM package_listing") == 2
    assert shop.value("SELECT count(*) FROM customer_listing") == 1


async def test_a_row_that_turns_poison_meanwhile_is_parked(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catch-up leaves it out as the filling does."""
    shop.receive(shop.announce())
    poison = shop.announce()
    fill = shadows.fill

    async def fill_and_poison(conn: Connection, shadow: shadows.Shadow, part: shadows.Part) -> None:
        await fill(conn, shadow, part)
        if shadow.model.name == "package_listing":
            await asyncio.to_thread(shop.receive, poison)
            await asyncio.to_thread(shop.conn.execute, OVERFLOW.encode(), {"id": poison})

    monkeypatch.setattr(shadows, "fill", fill_and_poison)
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT key FROM parked_changes") == poison
    assert shop.value("SELECT count(*) FROM package_listing") == 1


async def test_a_source_that_is_wrong_for_all_parks_nothing(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a number of poison rows the rebuild fails, and what serves goes on."""
    monkeypatch.setattr("projections.parking.MOST_FOUND", 2)
    for _ in range(4):
        package_id = shop.announce()
        shop.receive(package_id)
        shop.conn.execute(OVERFLOW, {"id": package_id})
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT count(*) FROM parked_changes") == 0


async def test_a_rebuild_settles_what_was_unfinished(shop: Shop, settings: Settings, clock: Clock) -> None:
    """Whatever was read and not finished is in the new tables: nothing is left to do, or to wait for."""
    package_id = shop.announce()
    shop.conn.execute("INSERT INTO unfinished_changes VALUES ('7', 1, %s, '{}')", ([package_id],))
    shop.conn.execute("INSERT INTO parked_changes VALUES ('package', %s, '7', 'once', now())", (package_id,))
    shop.conn.execute("UPDATE projection_checkpoint SET needs_rebuild = true, unread_from = '0'")
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT (SELECT count(*) FROM unfinished_changes) + (SELECT count(*) FROM parked_changes)") == 0
    assert shop.value("SELECT NOT needs_rebuild AND unread_from > '7' FROM projection_checkpoint")


async def test_another_life_s_changes_are_never_caught_up(shop: Shop, settings: Settings, clock: Clock) -> None:
    """After a restore their numbers mean nothing: a rebuild would look at them again and again."""
    shop.announce()
    shop.conn.execute("INSERT INTO change_log (xid, life, type, at) VALUES ('999999999999', 2, 'Later', now())")
    await rebuild(settings, None, clock=clock)
    assert shop.value("SELECT pg_snapshot_xmax(snapshot) < '999999999999' FROM projection_checkpoint")
    assert_equal_sides(shop)


async def test_a_changed_source_is_deployed_by_a_rebuild(
    shop: Shop, projector: Connection, settings: Settings, clock: Clock
) -> None:
    """A migration adds the column to both; until the rebuild it is empty, and what only one side has is no obstacle."""
    shop.announce()
    await project_batch(projector, clock)
    shop.conn.execute("ALTER TABLE customer_listing ADD COLUMN initial text")
    await rebuild(settings, "customer_listing", clock=clock)
    definition = shop.value("SELECT pg_get_viewdef('customer_listing_source'::regclass)").rstrip(";")
    wider = f"SELECT s.*, left(s.name, 1) AS initial FROM ({definition}) AS s"
    shop.conn.execute(f"CREATE OR REPLACE VIEW customer_listing_source AS {wider}".encode())
    assert shop.all("SELECT initial FROM customer_listing") == [{"initial": None}]
    await rebuild(settings, "customer_listing", clock=clock)
    assert shop.all("SELECT initial FROM customer_listing") == [{"initial": "A"}]
    shop.conn.execute("ALTER TABLE customer_listing DROP COLUMN initial")
    await rebuild(settings, "customer_listing", clock=clock)
    shop.conn.execute("ALTER TABLE customer_listing ADD COLUMN age integer NOT NULL DEFAULT 1")
    await rebuild(settings, "customer_listing", clock=clock)
    shop.conn.execute("ALTER TABLE customer_listing ALTER COLUMN age DROP DEFAULT")
    with pytest.raises(ConfigurationError, match="customer_listing needs a column age"):
        await rebuild(settings, "customer_listing", clock=clock)


def environment(settings: Settings) -> dict[str, str]:
    """Give a process of its own these settings."""
    given = {"DATABASE_URL": settings.postgres_dsn, "REDIS_URL": settings.redis_dsn, "SECRET_KEY": "k" * 40}
    return os.environ | {f"PAQUETERIA_{name}": value for name, value in given.items()}


def run_rebuild(settings: Settings) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "manage.py", "rebuild"]
    return subprocess.Popen(command, env=environment(settings), stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "blocked",
    [
        "LOCK TABLE payments IN ACCESS EXCLUSIVE MODE",  # it fills
        "SELECT pg_advisory_lock(4, 4)",  # it indexes
        "LOCK TABLE package_listing IN SHARE UPDATE EXCLUSIVE MODE",  # it has caught up, and swaps
        "LOCK TABLE projection_checkpoint IN ROW EXCLUSIVE MODE",  # it waits for the projector
        "LOCK TABLE package_listing IN ACCESS SHARE MODE",  # it has projected and waits for readers
    ],
)
def test_a_rebuild_killed_anywhere_leaves_the_old_table_serving(
    shop: Shop, second_shop: Shop, settings: Settings, blocked: str
) -> None:
    """The process dies by kill -9 where it is held; the table serves what it served, and the command runs again."""
    if "advisory" in blocked:  # an index whose every entry waits
        second_shop.conn.execute(
            "CREATE FUNCTION held(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS"
            " $$ BEGIN PERFORM pg_advisory_lock_shared(4, 4); RETURN $1; END $$"
        )
        second_shop.conn.execute("CREATE INDEX held ON package_listing (held(guide_number))")
    shop.announce()
    waits = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    with second_shop.conn.transaction():
        second_shop.conn.execute(blocked.encode())
        process = run_rebuild(settings)
        deadline = time.monotonic() + 60
        while not shop.value(waits):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    second_shop.conn.execute("SELECT pg_advisory_unlock_all()")
    assert shop.value("SELECT count(*) FROM package_listing") == 0
    shop.announce()
    deadline = time.monotonic() + 60
    while (status := run_rebuild(settings).wait(60)) != 0:  # until the server has noticed that the first one is gone
        assert time.monotonic() < deadline, status
    assert shop.value("SELECT count(*) FROM package_listing") == 2
    assert_equal_sides(shop)


async def rebuild_beside_a_write(shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be received after its row was filled, with nobody projecting."""
    package_id = shop.announce()
    fill = shadows.fill

    async def fill_and_write(conn: Connection, shadow: shadows.Shadow, part: shadows.Part) -> None:
        await fill(conn, shadow, part)
        if shadow.model.name == "package_listing":
            await asyncio.to_thread(shop.receive, package_id)

    monkeypatch.setattr(shadows, "fill", fill_and_write)
    await rebuild(settings, None, clock=clock)


@pytest.mark.parametrize(("is_mutant", "lost"), [(False, 0), (True, 1)])
async def test_without_its_catch_up_a_rebuild_loses_changes(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, is_mutant: bool, lost: int
) -> None:
    """The mutant that takes no change in after the fill shows the old row for good."""
    if is_mutant:
        monkeypatch.setattr(rebuild_module, "CHANGED_SINCE", rebuild_module.CHANGED_SINCE + " AND false")
    await rebuild_beside_a_write(shop, settings, clock, monkeypatch)
    assert shop.value("SELECT count(*) FROM package_listing AS l JOIN packages USING (package_id, status)") == 1 - lost


@pytest.mark.parametrize("is_mutant", [False, True])
async def test_a_swap_holds_the_checkpoint(
    shop: Shop,
    projector: Connection,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_mutant: bool,
) -> None:
    """A batch that comes after the last catch-up waits for the swap; beside the mutant it commits, and undoes it."""
    package_id = shop.announce()
    await project_batch(projector, clock)
    batches: list[asyncio.Task[None]] = []

    async def project() -> None:
        with contextlib.suppress(Fenced):
            await project_batch(projector, clock)

    original = rebuild_module.catch_up

    async def catch_up_and_let_others_on(
        conn: Connection, made: list[shadows.Shadow], snapshot: str
    ) -> tuple[str, int]:
        caught = await original(conn, made, snapshot)
        calls.append(caught)
        if len(calls) == 2:  # the first catches up before the swap, the second within it
            await asyncio.to_thread(shop.receive, package_id)
            batches.append(asyncio.create_task(project()))
            await asyncio.wait(batches, timeout=0.5)
        return caught

    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(rebuild_module, "catch_up", catch_up_and_let_others_on)
    if is_mutant:
        monkeypatch.setattr(rebuild_module, "HOLD_CHECKPOINT", "SELECT")
        with pytest.raises(psycopg.errors.SerializationFailure):
            await rebuild(settings, "package_listing", clock=clock)
    else:
        await rebuild(settings, "package_listing", clock=clock)
    await asyncio.wait(batches)
    await project()
    assert_equal_sides(shop)
