"""Given what has committed, when a batch is projected, then the read models are exactly that."""

import asyncio
import re
import uuid
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from psycopg import IsolationLevel
from redis.asyncio import Redis

from db.page_cache import EPOCH_KEY, MANY_CUSTOMERS, EpochKeeper, customer_scopes, generation_key
from db.pools import Connection
from projections import changes as changes_module
from projections import projector as projector_module
from projections.changes import PACKAGES_OF_CUSTOMERS, READ_CHANGES, Change, Unread, by_transaction, read_changes
from projections.derivation import DERIVE
from projections.page_generations import MOST_CUSTOMERS
from projections.projector import Fenced, open_projector, project_batch, project_pending
from tests.projections.conftest import Shop
from tests.support import Clock

pytestmark = pytest.mark.anyio

BOTH_WAYS = """
SELECT (SELECT count(*) FROM (TABLE package_listing_source EXCEPT TABLE package_listing) AS missing)
     + (SELECT count(*) FROM (TABLE package_listing EXCEPT TABLE package_listing_source) AS wrong)
"""

TRUE_COUNTS = """
SELECT coalesce(sum(abs(coalesce(c.count, 0) - coalesce(t.count, 0))), 0)
FROM package_counts AS c
FULL JOIN (
    SELECT s.code AS site, p.status, count(*) FROM packages AS p JOIN sites AS s USING (site_id) GROUP BY 1, 2) AS t
USING (site, status)
"""


def assert_equal_sides(shop: Shop) -> None:
    assert shop.value(BOTH_WAYS) == 0
    assert shop.value(TRUE_COUNTS) == 0


async def test_a_package_lives_through_the_listing(shop: Shop, projector: Connection, clock: Clock) -> None:
    """Each step shows, with its frozen fee in the end, and the counts move with it."""
    package_id = shop.announce()
    assert (await project_batch(projector, clock)).changes == 1
    assert shop.all("SELECT status, total, paid, customer_name FROM package_listing") == [
        {"status": "ANNOUNCED", "total": 1500, "paid": 0, "customer_name": "Ana Peña"}
    ]
    shop.receive(package_id)
    await project_batch(projector, clock)
    assert shop.all("SELECT status, position, total FROM package_listing") == [
        {"status": "RECEIVED", "position": "00", "total": None}
    ]
    clock.advance(hours=24, seconds=1)
    shop.deliver(package_id)
    await project_batch(projector, clock)
    assert shop.all("SELECT status, position, storage_days, total, paid FROM package_listing") == [
        {"status": "DELIVERED", "position": None, "storage_days": 1, "total": 2500, "paid": 2500}
    ]
    assert shop.all("SELECT method, amount FROM payment_listing") == [{"method": "CASH", "amount": 2500}]
    assert shop.all("SELECT status, count FROM package_counts WHERE count > 0") == [{"status": "DELIVERED", "count": 1}]
    assert_equal_sides(shop)


async def test_an_earlier_transaction_that_commits_later_is_not_lost(
    shop: Shop, second_shop: Shop, projector: Connection, clock: Clock
) -> None:
    """Positions and ids are given before the commit, so that a cursor over them would pass the slow one by."""
    with shop.conn.transaction():
        slow = shop.announce(phone="+573001111111")
        fast = second_shop.announce(phone="+573002222222")
        await project_batch(projector, clock)
        assert [row["package_id"] for row in second_shop.all("SELECT package_id FROM package_listing")] == [fast]
    await project_batch(projector, clock)
    assert {row["package_id"] for row in shop.all("SELECT package_id FROM package_listing")} == {slow, fast}


async def test_a_cursor_would_lose_it(
    shop: Shop, second_shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that reads past the highest position it has seen fails the same scenario."""
    last = 0

    async def by_cursor(conn: Connection, _limit: int, _unread: Unread) -> tuple[list[Change], int | None]:
        nonlocal last
        read = f"{changes_module.LOG_ROW} change_log WHERE position > %s".encode()
        rows = await (await conn.execute(read, (last,))).fetchall()
        (last,) = await (await conn.execute("SELECT coalesce(max(position), 0) FROM change_log")).fetchone() or (last,)
        return by_transaction(rows), None

    monkeypatch.setattr(projector_module, "read_changes", by_cursor)
    with shop.conn.transaction():
        slow = shop.announce(phone="+573001111111")
        second_shop.announce(phone="+573002222222")
        await project_batch(projector, clock)
    await project_batch(projector, clock)
    assert slow not in {row["package_id"] for row in shop.all("SELECT package_id FROM package_listing")}


async def test_an_open_transaction_holds_nobody_up(
    shop: Shop, second_shop: Shop, projector: Connection, clock: Clock
) -> None:
    """A write transaction that stays open delays its own change alone."""
    with shop.conn.transaction():
        shop.announce(phone="+573001111111")
        for number in range(5):
            second_shop.announce(phone=f"+57300222222{number}")
            assert (await project_batch(projector, clock)).changes == 1
    assert (await project_batch(projector, clock)).changes == 1
    assert_equal_sides(shop)


async def test_a_rolled_back_command_never_shows(shop: Shop, projector: Connection, clock: Clock) -> None:
    """What didn't commit is in no snapshot."""
    with shop.conn.transaction(force_rollback=True):
        shop.announce()
    assert (await project_batch(projector, clock)).changes == 0
    assert shop.value("SELECT count(*) FROM package_listing") == 0


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

UNFENCED = projector_module.MOVE_CHECKPOINT.replace(" AND batch = %(old_batch)s", "")

GUARDS = [
    (IsolationLevel.REPEATABLE_READ, projector_module.MOVE_CHECKPOINT),
    (IsolationLevel.REPEATABLE_READ, UNFENCED),
    (IsolationLevel.READ_COMMITTED, projector_module.MOVE_CHECKPOINT),
]


async def freeze_within_a_batch(
    database: str, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch, isolation: IsolationLevel, move: str
) -> None:
    """Let one projector sleep between reading and deriving, while another one takes in that batch and the next."""
    add = "INSERT INTO change_log (type, at) VALUES ('SiteChanged', now())"
    async with await open_projector(database) as frozen, await open_projector(database) as other:
        await frozen.set_isolation_level(isolation)

        async def read_and_freeze(conn: Connection, limit: int, unread: Unread) -> tuple[list[Change], int | None]:
            read = await read_changes(conn, limit, unread)
            if conn is frozen:
                await project_batch(other, clock)
                shop.conn.execute(add)
                await project_batch(other, clock)
                monkeypatch.setattr(projector_module, "MOVE_CHECKPOINT", move)
            return read

        monkeypatch.setattr(projector_module, "read_changes", read_and_freeze)
        shop.conn.execute(add)
        await project_batch(frozen, clock)


@pytest.mark.parametrize(("isolation", "move"), GUARDS)
async def test_a_projector_that_wakes_up_late_is_fenced_off(
    database: str, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch, isolation: IsolationLevel, move: str
) -> None:
    """One snapshot a batch and the old batch's number each keep it from moving the checkpoint back."""
    with pytest.raises(Fenced):
        await freeze_within_a_batch(database, shop, clock, monkeypatch, isolation, move)
    assert shop.value("SELECT batch FROM projection_checkpoint") == 3


async def test_without_its_guards_it_would_move_the_checkpoint_back(
    database: str, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that has neither takes back what readers have been told."""
    await freeze_within_a_batch(database, shop, clock, monkeypatch, IsolationLevel.READ_COMMITTED, UNFENCED)
    assert shop.value("SELECT batch FROM projection_checkpoint") == 2


async def test_a_batch_is_bounded_and_the_rest_follows(shop: Shop, projector: Connection, clock: Clock) -> None:
    """A long backlog is taken in part by part, and no part says that the whole is in."""
    shop.conn.autocommit = True
    for number in range(10):
        shop.announce(phone=f"+57300333333{number}")
    last_xid = shop.value("SELECT max(xid::text::bigint) FROM change_log")
    shows_last = f"SELECT pg_visible_in_snapshot('{last_xid}', snapshot) FROM projection_checkpoint"
    seen = 0
    while not (batch := await project_batch(projector, clock, largest=3)).is_last:
        assert 0 < batch.changes <= 3
        assert shop.value(shows_last) is False
        seen += batch.changes
    assert seen + batch.changes == 10
    assert shop.value(shows_last) is True
    assert_equal_sides(shop)


async def take_in_from_9_to_12(shop: Shop, projector: Connection, clock: Clock) -> list[tuple[int, ...]]:
    """Announce in transactions of these numbers, project two batches of two, and tell what each has read."""
    shop.conn.execute("SET session_replication_role = replica")  # no trigger keeps the log from being rewritten
    for number in range(9, 13):
        package_id = shop.announce(phone=f"+5730033333{number:02}")
        shop.conn.execute("UPDATE change_log SET xid = %s WHERE package_id = %s", (str(number), package_id))
    shop.conn.execute("UPDATE projection_checkpoint SET snapshot = '9:9:', unread_from = '9'")
    return [(await project_batch(projector, clock, largest=2)).xids for _ in range(2)]


async def test_a_backlog_is_taken_in_by_number(shop: Shop, projector: Connection, clock: Clock) -> None:
    """Transaction 9 comes before 10, so that a batch that ends before 11 has it."""
    assert await take_in_from_9_to_12(shop, projector, clock) == [(9, 10), (11, 12)]
    assert_equal_sides(shop)


async def test_by_its_digits_it_would_lose_one(
    shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that orders by the number as it is written: 9 comes last, and is taken for read before it was."""
    by_digits = READ_CHANGES.replace("ORDER BY change_log.xid", "ORDER BY xid")
    monkeypatch.setattr(changes_module, "READ_CHANGES", by_digits)
    assert await take_in_from_9_to_12(shop, projector, clock) == [(10, 11), (12,)]


async def test_a_transaction_larger_than_a_batch_is_taken_whole(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """One command of a thousand parcels shows at once or not at all."""
    with shop.conn.transaction():
        for number in range(7):
            shop.announce(phone=f"+57300333333{number}")
    after = shop.announce(phone="+573004444444")
    assert (await project_batch(projector, clock, largest=3)).changes == 7
    assert (await project_batch(projector, clock, largest=3)).changes == 1
    assert shop.value(f"SELECT count(*) FROM package_listing WHERE package_id = '{after}'") == 1


async def test_changes_out_of_order_end_on_the_last_state(shop: Shop, projector: Connection, clock: Clock) -> None:
    """The log may say version 3 before version 2: the row is derived again, not folded from what the log says."""
    package_id = shop.announce()
    with shop.conn.transaction():
        shop.receive(package_id)
        shop.conn.execute("UPDATE packages SET version = 9 WHERE package_id = %s", (package_id,))
        for version in (9, 2):
            shop.conn.execute(
                "INSERT INTO change_log (package_id, type, version, at) VALUES (%s, 'PackageReceived', %s, now())",
                (package_id, version),
            )
    await project_batch(projector, clock)
    assert shop.all("SELECT version, status FROM package_listing") == [{"version": 9, "status": "RECEIVED"}]


async def test_a_customers_change_shows_on_all_their_packages(shop: Shop, projector: Connection, clock: Clock) -> None:
    """One log row names the customer, and every row and word of theirs is derived again; others' are left alone."""
    mine = [shop.announce() for _ in range(3)]
    shop.announce(name="Luis Ñáñez", phone="+573009999999")
    await project_batch(projector, clock)
    shop.rename("+573001234567", "Zoë Ibáñez")
    batch = await project_batch(projector, clock)
    named = shop.all("SELECT package_id FROM package_listing WHERE customer_name = 'Zoë Ibáñez'")
    assert {row["package_id"] for row in named} == set(mine)
    assert shop.value("SELECT count(*) FROM package_search WHERE text LIKE '% zoe ibanez%'") == 3
    assert shop.value("SELECT name FROM customer_listing WHERE phone = '+573001234567'") == "Zoë Ibáñez"
    assert "customers" in batch.scopes


async def test_a_customer_that_no_log_row_names_shows_with_their_package(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """A correction may make the customer that it moves the package to."""
    package_id = shop.announce()
    await project_batch(projector, clock)
    (customer_id,) = shop.conn.execute(
        "INSERT INTO customers (name, phone) VALUES ('Eva Ruiz', '+573009999999') RETURNING customer_id"
    ).fetchone() or (None,)
    shop.conn.execute("UPDATE packages SET customer_id = %s", (customer_id,))
    shop.receive(package_id)
    batch = await project_batch(projector, clock)
    assert shop.value("SELECT count(*) FROM customer_listing WHERE name = 'Eva Ruiz'") == 1
    assert {"customers", f"customer:{customer_id}"} <= batch.scopes
    shop.deliver(package_id)
    assert "customers" not in (await project_batch(projector, clock)).scopes


async def test_a_batch_of_many_customers_raises_one_scope_for_all(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """Whose pages there are many of, they share a scope that each of their pages has; others' own are left alone."""
    shop.announce()
    few = await project_batch(projector, clock)
    (customer_id,) = shop.conn.execute("SELECT customer_id FROM customers").fetchone() or (None,)
    assert few.scopes == {"all", "status:ANNOUNCED", "customers", f"customer:{customer_id}"}
    for number in range(MOST_CUSTOMERS + 1):
        shop.announce(phone=f"+57300000{number:04d}")
    many = await project_batch(projector, clock)
    assert many.scopes == {"all", "status:ANNOUNCED", "customers", MANY_CUSTOMERS}
    assert customer_scopes(customer_id) == (f"customer:{customer_id}", MANY_CUSTOMERS)


async def test_a_row_that_is_gone_goes(shop: Shop, projector: Connection, clock: Clock) -> None:
    """No command deletes a package; whoever does so by hand, and says so in the log, sees it go with its count."""
    package_id = shop.announce()
    shop.announce()
    await project_batch(projector, clock)
    with shop.conn.transaction():
        shop.conn.execute("DELETE FROM packages WHERE package_id = %s", (package_id,))
        shop.conn.execute(
            "INSERT INTO change_log (package_id, type, at) VALUES (%s, 'PackageDeleted', now())", (package_id,)
        )
    batch = await project_batch(projector, clock)
    assert {"all", "status:ANNOUNCED"} <= batch.scopes
    assert shop.value("SELECT count(*) FROM package_search") == 1
    assert shop.value("SELECT count FROM package_counts WHERE status = 'ANNOUNCED'") == 1
    assert_equal_sides(shop)


async def test_a_checkpoint_moved_by_another_ends_the_belief_in_every_page(
    shop: Shop, projector: Connection, redis: Redis, clock: Clock
) -> None:
    """A rebuild or a repair may die after its commit and before it has told the cache."""
    keeper = EpochKeeper(redis)
    await keeper.begin()
    shop.announce()
    known = await project_pending(projector, keeper, clock)
    epoch = await redis.get(EPOCH_KEY)
    known = await project_pending(projector, keeper, clock, known=known)
    shop.announce()
    known = await project_pending(projector, keeper, clock, known=known)
    assert await redis.get(EPOCH_KEY) == epoch
    shop.conn.execute("UPDATE projection_checkpoint SET batch = batch + 1")
    await project_pending(projector, keeper, clock, known=known)
    assert await redis.get(EPOCH_KEY) not in {None, epoch}


async def test_the_time_to_visible_is_measured_by_transaction(
    shop: Shop, projector: Connection, redis: Redis, clock: Clock
) -> None:
    """From the instant that a command names to the commit that shows it, once for each command."""

    def measured() -> tuple[float, float]:
        name = "paqueteria_projection_commit_to_visible_seconds"
        return REGISTRY.get_sample_value(f"{name}_count") or 0, REGISTRY.get_sample_value(f"{name}_sum") or 0

    count, seconds = measured()
    with shop.conn.transaction():
        shop.announce()
        shop.announce()
    shop.announce()
    clock.advance(seconds=2)
    await project_pending(projector, EpochKeeper(redis), clock)
    assert measured() == (count + 2, seconds + 4)


async def test_a_batch_raises_the_scopes_it_changes(
    shop: Shop, projector: Connection, redis: Redis, clock: Clock
) -> None:
    """The status that a parcel leaves, the one it comes to, its customer and the whole: no other page is discarded."""
    package_id = shop.announce()
    shop.receive(package_id)
    customer = shop.value("SELECT customer_id FROM packages")
    await project_batch(projector, clock)
    shop.deliver(package_id)
    keeper = EpochKeeper(redis)
    await keeper.begin()
    await project_pending(projector, keeper, clock)
    batch = shop.value("SELECT batch FROM projection_checkpoint")
    raised = shop.all(f"SELECT scope FROM page_generations WHERE batch = {batch}")
    expected = {"all", "status:RECEIVED", "status:DELIVERED", f"customer:{customer}"}
    assert {row["scope"] for row in raised} == expected
    for scope in expected:
        assert (await redis.get(generation_key(scope)) or b"")[-2:] == f":{batch}".encode()
    assert await redis.get(generation_key("status:ANNOUNCED")) is None
    assert shop.all(f"SELECT packages FROM batch_changes WHERE batch = {batch}") == [
        {"packages": [{"package_id": str(package_id), "status": "DELIVERED", "version": 3}]}
    ]


async def test_quiet_transactions_move_the_checkpoint(shop: Shop, projector: Connection, clock: Clock) -> None:
    """With nothing to show the batch stays, and the snapshot doesn't fall behind for ever."""
    before = shop.value("SELECT snapshot::text FROM projection_checkpoint")
    for _ in range(projector_module.QUIET_TRANSACTIONS + 1):
        shop.conn.execute("SELECT pg_current_xact_id()")
    assert (await project_batch(projector, clock)).changes == 0
    assert shop.value("SELECT batch FROM projection_checkpoint") == 1
    assert shop.value("SELECT snapshot::text FROM projection_checkpoint") != before


async def test_a_batch_is_found_by_the_index_on_xid(shop: Shop, projector: Connection, clock: Clock) -> None:
    """With 100,000 rows in the log, the next batch's scan begins at the checkpoint."""
    for _ in range(10):
        shop.conn.execute(
            "INSERT INTO change_log (package_id, type, at) SELECT NULL, 'PackageAnnounced', now()"
            " FROM generate_series(1, 10000)"
        )
    while not (await project_batch(projector, clock)).is_last:
        pass
    shop.conn.execute("ANALYZE change_log")
    shop.announce()
    binds = {"limit": 5001, "unfinished": [], "since": LONG_AGO}
    explain = await projector.execute(f"EXPLAIN (ANALYZE) {READ_CHANGES}".encode(), binds)
    text = "\n".join(line for (line,) in await explain.fetchall())
    scans = re.findall(r"(\w+ Scan).* on change_log\w* .*actual time=\S+ rows=(\S+)", text)
    assert len(scans) >= 3, text
    assert {kind for kind, _ in scans} == {"Index Scan"}, text
    assert sum(float(rows) for _, rows in scans) == 1, text


async def test_a_batch_finds_every_row_by_a_key(projector: Connection) -> None:
    """Its plans are made once, maybe in an empty shop, and must do for a full one: nothing is ever read whole."""
    ids = [uuid.uuid4()]
    keys: dict[str, object] = {"package_ids": ids, "customer_ids": ids}
    keys |= {"limit": 5001, "unfinished": [], "since": LONG_AGO, "batch": 2, "at": LONG_AGO}
    for statement in (READ_CHANGES, PACKAGES_OF_CUSTOMERS, DERIVE):
        plan = await (await projector.execute(f"EXPLAIN {statement}".encode(), keys)).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "Seq Scan" not in text, text


async def test_parcels_under_many_writers_all_show(database: str, clock: Clock) -> None:
    """Eight clerks with slow commits and a projector beside them: all seen, none twice, both sides equal."""
    shops = [Shop(database, clock) for _ in range(8)]

    def work(shop: Shop, seed: int) -> None:
        for number in range(10):
            with shop.conn.transaction():
                package_id = shop.announce(phone=f"+5730055{seed}{number:04d}")
                shop.conn.execute("SELECT pg_sleep(%s)", (0.001 * ((seed * number) % 7),))
            if seed == 0:
                shop.receive(package_id)

    clerks = asyncio.gather(*(asyncio.to_thread(work, shop, seed) for seed, shop in enumerate(shops)))
    changes = 0
    async with await open_projector(database) as conn:
        while not clerks.done():
            changes += (await project_batch(conn, clock)).changes
            await asyncio.sleep(0)
        await clerks
        changes += (await project_batch(conn, clock)).changes
    assert changes == 90
    assert_equal_sides(shops[0])
    for shop in shops:
        shop.conn.close()
