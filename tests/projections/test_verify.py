"""`verify` finds whatever differs, excuses only what is on its way, and repairs it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from db.pools import Connection
from infra.settings import Settings
from projections import verify as verify_module
from projections.projector import project_batch
from projections.rebuild import rebuild
from projections.verify import scheduled_verify, verify
from tests.projections.conftest import Shop
from tests.projections.test_projector import assert_equal_sides
from tests.support import Clock

pytestmark = pytest.mark.anyio

TAMPERINGS = [
    "UPDATE package_listing SET total = total + 1000 WHERE status = 'DELIVERED'",
    "UPDATE package_listing SET customer_name = 'Somebody' WHERE status = 'RECEIVED'",
    "UPDATE package_listing SET position = '42' WHERE status = 'RECEIVED'",
    "UPDATE package_listing SET received_at = received_at + interval '1 microsecond' WHERE status = 'RECEIVED'",
    "UPDATE package_listing SET other_codes = '{abc}' WHERE status = 'ANNOUNCED'",
    "UPDATE package_listing SET paid = 0 WHERE status = 'DELIVERED'",
    "DELETE FROM package_listing WHERE status = 'ANNOUNCED'",
    """INSERT INTO package_listing
       SELECT (json_populate_record(l, json_build_object('package_id', uuidv7()))).* FROM package_listing AS l
       WHERE status = 'ANNOUNCED'""",
    "UPDATE package_search SET text = text || ' x' WHERE package_id = (SELECT package_id FROM packages LIMIT 1)",
    "DELETE FROM package_search WHERE package_id = (SELECT package_id FROM packages LIMIT 1)",
    "UPDATE customer_listing SET phone = NULL",
    "UPDATE payment_listing SET amount = amount - 1",
    "DELETE FROM payment_listing",
    "UPDATE package_counts SET count = count + 1 WHERE status = 'DELIVERED'",
    "INSERT INTO package_counts VALUES ('NOWHERE', 'RECEIVED', 1)",
    # The other way round: the write side changed by hand, with nothing in the log.
    "UPDATE packages SET observations = 'by hand' WHERE status = 'RECEIVED'",
]


@pytest.fixture
async def packages(shop: Shop, projector: Connection, clock: Clock) -> None:
    shop.announce()
    shop.receive(shop.announce())
    delivered = shop.announce()
    shop.receive(delivered)
    clock.advance(hours=30)
    shop.deliver(delivered)
    await project_batch(projector, clock)


@pytest.mark.usefixtures("packages")
async def test_equal_sides_differ_in_nothing(settings: Settings, clock: Clock) -> None:
    """What the projector made is what the oracle says, in every read model."""
    said: list[str] = []
    assert await verify(settings, report=said.append, clock=clock) == 0, said


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_one_changed_field_is_found_and_repaired(
    shop: Shop, settings: Settings, clock: Clock, tampering: str
) -> None:
    """Any one row that was changed by hand is named, and derived again with `repair`."""
    changed = shop.conn.execute(tampering.encode()).rowcount
    said: list[str] = []
    assert changed == 1
    assert await verify(settings, report=said.append, clock=clock) >= 1
    assert await verify(settings, repair=True, report=said.append, clock=clock) >= 1
    assert await verify(settings, report=said.append, clock=clock) == 0, said
    assert_equal_sides(shop)


@pytest.mark.usefixtures("packages")
async def test_a_difference_names_what_is_and_what_should_be(shop: Shop, settings: Settings, clock: Clock) -> None:
    """The person on duty reads which package and which field."""
    shop.conn.execute("UPDATE package_listing SET paid = 0 WHERE status = 'DELIVERED'")
    said: list[str] = []
    await verify(settings, report=said.append, clock=clock)
    key = shop.value("SELECT package_id FROM packages WHERE status = 'DELIVERED'")
    assert said == [f"package_listing {key}: paid is 0, and should be 2500"]


@pytest.mark.usefixtures("packages")
async def test_what_is_on_its_way_is_no_difference(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A command that no batch has read yet excuses its own package, and nothing else."""
    shop.receive(shop.value("SELECT package_id FROM packages WHERE status = 'ANNOUNCED'"))
    shop.announce(phone="+573008888888")
    shop.rename("+573008888888", "Otro Nombre")
    said: list[str] = []
    assert await verify(settings, report=said.append, clock=clock) == 0, said
    shop.conn.execute("UPDATE package_listing SET paid = 1 WHERE status = 'DELIVERED'")
    assert await verify(settings, clock=clock) == 1


@pytest.mark.usefixtures("packages")
async def test_a_repair_discards_every_page(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A page that shows the wrong row isn't served after the repair: each scope's generation is the repair's batch."""
    shop.conn.execute("UPDATE package_listing SET paid = 0 WHERE status = 'DELIVERED'")
    await verify(settings, repair=True, clock=clock)
    batch = shop.value("SELECT batch FROM projection_checkpoint")
    assert {row["batch"] for row in shop.all("SELECT batch FROM page_generations")} == {batch}


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("most", [1, 1000])
async def test_many_differences_are_counted_and_repaired_to_the_last(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Only the first are named; past a number a rebuild repairs them."""
    monkeypatch.setattr(verify_module, "MOST_NAMED", 1)
    monkeypatch.setattr(verify_module, "MOST_REPAIRED", most)
    shop.conn.execute("UPDATE package_listing SET carrier = 'Nobody'")
    said: list[str] = []
    assert await verify(settings, repair=True, report=said.append, clock=clock) == 3
    assert said[1:] == ["package_listing: 2 more"]
    assert await verify(settings, clock=clock) == 0
    assert_equal_sides(shop)


@pytest.mark.usefixtures("packages")
async def test_a_change_excuses_its_own_rows_alone(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A new parcel excuses itself, and not the other parcels of its customer; a renamed customer excuses them all."""
    shop.conn.execute("UPDATE package_listing SET paid = 1 WHERE status = 'DELIVERED'")
    shop.announce()
    assert await verify(settings, clock=clock) == 1
    shop.rename("+573001234567", "Otro Nombre")
    assert await verify(settings, clock=clock) == 0


@pytest.mark.usefixtures("packages")
async def test_what_is_unfinished_is_excused(shop: Shop, settings: Settings, clock: Clock) -> None:
    """The rest of a change that is too large for one batch is on its way."""
    shop.conn.execute("UPDATE package_listing SET paid = 1")
    shop.conn.execute(
        "INSERT INTO unfinished_changes SELECT '3', 1, array_agg(package_id), '{}' FROM packages"
        " WHERE status <> 'DELIVERED'"
    )
    assert await verify(settings, clock=clock) == 1


@pytest.mark.usefixtures("packages")
async def test_another_life_s_changes_excuse_nothing(shop: Shop, settings: Settings, clock: Clock) -> None:
    """After a restore, numbers of the old life may lie beyond every snapshot: they would excuse their keys for good."""
    shop.conn.execute("UPDATE package_listing SET paid = 1 WHERE status = 'DELIVERED'")
    shop.conn.execute(
        "INSERT INTO change_log (xid, life, package_id, type, at)"
        " SELECT '999999999999', 2, package_id, 'Later', now() FROM packages"
    )
    assert await verify(settings, clock=clock) == 1


OVERFLOW = """
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, at)
SELECT package_id, 0, %(days)s, 0, 0, 0, now() FROM packages, generate_series(1, 2) WHERE status = 'RECEIVED'
"""


@pytest.mark.usefixtures("packages")
async def test_what_is_parked_is_named_and_tried_again(shop: Shop, settings: Settings, clock: Clock) -> None:
    """A parked key is no row on its way: it is a difference with its reason, until a repair can derive it."""
    key = shop.value("SELECT package_id FROM packages WHERE status = 'RECEIVED'")
    xid = f"(SELECT max(xid::text::bigint)::text::xid8 FROM change_log WHERE package_id = '{key}')"
    shown = f"SELECT pg_visible_in_snapshot({xid}, snapshot) FROM projection_checkpoint"
    shop.conn.execute(OVERFLOW, {"days": 2_000_000_000})
    await rebuild(settings, None, clock=clock)
    still_listed = f"SELECT status FROM package_listing WHERE package_id = '{key}'"
    assert shop.value(still_listed) == "RECEIVED"
    named = f"package_listing {key}: parked since 2026-11-25T21:00:00.000000Z: integer out of range"
    said: list[str] = []
    assert await verify(settings, report=said.append, clock=clock) == 1
    assert await verify(settings, repair=True, report=said.append, clock=clock) == 1
    assert said == [named, named]
    assert shop.value(still_listed) == "RECEIVED", "what can't be derived again isn't taken away"
    assert not shop.value(shown)
    shop.conn.execute(OVERFLOW, {"days": -2_000_000_000})
    assert await verify(settings, repair=True, clock=clock) == 1
    assert await verify(settings, clock=clock) == 0
    assert shop.value("SELECT count(*) FROM parked_changes") == 0
    assert shop.value(shown)
    assert_equal_sides(shop)


@pytest.mark.usefixtures("packages")
async def test_parts_are_together_the_whole(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at any keys, each row is compared once."""
    monkeypatch.setattr(verify_module, "SAMPLE", verify_module.SAMPLE.replace("TABLESAMPLE SYSTEM (1)", ""))
    assert await verify(settings, clock=clock) == 0
    shop.conn.execute("UPDATE package_listing SET paid = paid + 1")
    assert await verify(settings, clock=clock) == 3


@pytest.mark.usefixtures("packages")
async def test_no_transaction_takes_an_id(shop: Shop, second_shop: Shop, settings: Settings, clock: Clock) -> None:
    """Every batch of the projector would scan from it on, for as long as the comparison takes."""
    verifiers = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'paqueteria verify'"
    with second_shop.conn.transaction():
        second_shop.conn.execute("LOCK TABLE package_counts IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(verify(settings, clock=clock))
        async with asyncio.timeout(30):
            while not shop.value(f"SELECT bool_or(wait_event_type = 'Lock') {verifiers}"):  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.01)
        assert shop.value(f"SELECT count(backend_xid) {verifiers}") == 0
    assert await task == 0


@pytest.mark.usefixtures("packages")
async def test_the_outcome_is_noted(shop: Shop, settings: Settings, projector: Connection, clock: Clock) -> None:
    """Whoever asks later learns when it was and what was found."""
    shop.conn.execute("UPDATE package_listing SET paid = 0 WHERE status = 'DELIVERED'")
    await scheduled_verify(settings)(projector, clock())
    assert shop.all("SELECT verified_at, differences, took > '0' AS took FROM verifications") == [
        {"verified_at": clock(), "differences": 1, "took": True}
    ]
    verified_at = clock()
    await scheduled_verify(settings)(projector, clock.advance(seconds=settings.verify_seconds - 1))
    assert shop.value("SELECT verified_at FROM verifications") == verified_at, "it is not due yet"
    await scheduled_verify(settings)(projector, clock.advance(seconds=1))
    assert shop.value("SELECT verified_at FROM verifications") == clock()


def share_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "SELECT * FROM package_listing_source WHERE package_id BETWEEN %(first)s AND %(last)s"
    listing, *others = verify_module.COMPARED
    monkeypatch.setattr(verify_module, "COMPARED", (replace(listing, expected=source), *others))


def excuse_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    unread = "AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM here))"
    monkeypatch.setattr(
        verify_module,
        "ON_THE_WAY",
        verify_module.ON_THE_WAY.replace(unread, "").replace(
            "xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM here)", "true"
        ),
    )


def change_nothing(_monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the real one."""


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("edit", "found"), [(change_nothing, True), (share_the_source, False)])
async def test_an_oracle_that_shares_the_source_misses_its_fault(
    shop: Shop,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[pytest.MonkeyPatch], None],
    *,
    found: bool,
) -> None:
    """A fault in the view is in every row that it derives; only another statement of the rule sees it."""
    definition = shop.value("SELECT pg_get_viewdef('package_listing_source'::regclass)").rstrip(";")
    faulty = definition.replace("m.paid", "m.paid / 2 AS paid")
    assert faulty != definition
    shop.conn.execute(f"CREATE OR REPLACE VIEW package_listing_source AS {faulty}".encode())
    await rebuild(settings, None, clock=clock)
    edit(monkeypatch)
    assert (await verify(settings, clock=clock) > 0) is found


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("edit", "found"), [(change_nothing, True), (excuse_everything, False)])
async def test_a_verify_that_excuses_every_change_finds_nothing(
    shop: Shop,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[pytest.MonkeyPatch], None],
    *,
    found: bool,
) -> None:
    """Every package has a change in the log: what is projected excuses nothing."""
    shop.conn.execute("UPDATE package_listing SET paid = 7 WHERE status = 'DELIVERED'")
    edit(monkeypatch)
    assert (await verify(settings, clock=clock) > 0) is found
