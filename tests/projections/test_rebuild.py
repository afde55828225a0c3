"""A rebuilt read model is what its source says, and nobody notices the rebuild."""

import asyncio
import contextlib

import pytest

from db.pools import Connection
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections.projector import Fenced, project_batch
from projections.rebuild import rebuild
from tests.db.test_migrate import SCHEMA, dump
from tests.projections.conftest import Shop
from tests.projections.test_projector import assert_equal_sides
from tests.support import Clock

pytestmark = pytest.mark.anyio

STRUCTURE = """
SELECT c.relname, c.relkind, pg_get_indexdef(c.oid) AS definition FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 1
"""


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
