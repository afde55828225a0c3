"""What was read and isn't in yet, the rest of a large change or a key that can't be derived, is told to nobody."""

import uuid
from typing import Any

import pytest
from psycopg.errors import RaiseException
from redis.asyncio import Redis

from db.page_cache import EpochKeeper
from db.pools import Connection
from projections import changes, parking
from projections import projector as projector_module
from projections.parking import list_parked, retry
from projections.projector import Batch, open_projector, project_batch, project_pending
from projections.snapshot import Snapshot
from tests.projections.conftest import Shop
from tests.projections.test_projector import assert_equal_sides
from tests.support import Clock

pytestmark = pytest.mark.anyio

MINE = "+573001234567"
OTHER = "+573009999999"
NAMED = "SELECT count(*) FROM package_listing WHERE customer_name = 'Zoë Ibáñez'"

POISON = """
CREATE FUNCTION refuse_listing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.package_id = '{package_id}' THEN RAISE EXCEPTION 'cannot list %', NEW.guide_number; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_listing BEFORE INSERT OR UPDATE ON package_listing
FOR EACH ROW EXECUTE FUNCTION refuse_listing()
"""


def last_xid(shop: Shop) -> int:
    return int(shop.value("SELECT max(xid::text::bigint) FROM change_log"))


def shows(shop: Shop, xid: int) -> bool:
    """Ask what decides about a Consistency-Token."""
    return bool(shop.value(f"SELECT pg_visible_in_snapshot('{xid}', snapshot) FROM projection_checkpoint"))


async def project_all(projector: Connection, clock: Clock) -> int:
    """Project until nothing is left, and tell how many batches that took."""
    batches = 1
    while not (await project_batch(projector, clock)).is_last:
        batches += 1
    return batches


@pytest.fixture
async def large_customer(
    shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> list[uuid.UUID]:
    """A customer whose change is too large for one batch."""
    monkeypatch.setattr(projector_module, "AT_ONCE", 4)
    monkeypatch.setattr(changes, "PART", 3)
    package_ids = [shop.announce(phone=MINE) for _ in range(8)]
    await project_all(projector, clock)
    return package_ids


async def fan_out(shop: Shop, projector: Connection, clock: Clock) -> None:
    """Rename the large customer, and change something else after each batch."""
    shop.rename(MINE, "Zoë Ibáñez")
    renamed = last_xid(shop)
    batch = await project_batch(projector, clock)
    parts = 1
    while not batch.is_last:
        assert 0 < shop.value(NAMED) < 8
        assert not shows(shop, renamed)
        other = shop.announce(phone=OTHER, name="Luis Ñáñez")
        batch = await project_batch(projector, clock)
        parts += 1
        assert shop.value(f"SELECT count(*) FROM package_listing WHERE package_id = '{other}'") == 1
        assert shows(shop, last_xid(shop))
    assert parts == 3
    assert shop.value(NAMED) == 8
    assert shows(shop, renamed)
    assert_equal_sides(shop)


@pytest.mark.usefixtures("large_customer")
async def test_a_large_change_is_taken_in_parts_and_told_when_it_is_in(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """Other changes show meanwhile, and the token of the large one is met by its last part alone."""
    await fan_out(shop, projector, clock)


@pytest.mark.usefixtures("large_customer")
async def test_a_brief_batch_takes_in_the_others_alone(shop: Shop, projector: Connection, clock: Clock) -> None:
    """So that what else changes waits for one part, not for two; with nothing else to do, the next part is taken."""
    shop.rename(MINE, "Zoë Ibáñez")
    renamed = last_xid(shop)
    assert (await project_batch(projector, clock, is_brief=True)).has_part
    shown = shop.value(NAMED)
    shop.announce(phone=OTHER, name="Luis Ñáñez")
    batch = await project_batch(projector, clock, is_brief=True)
    assert (batch.changes, batch.has_part, batch.is_last, shop.value(NAMED)) == (1, False, False, shown)
    assert (shows(shop, last_xid(shop)), shows(shop, renamed)) == (True, False)
    batch = await project_batch(projector, clock, is_brief=True)
    assert (batch.changes, batch.has_part, shop.value(NAMED) > shown) == (0, True, True)
    await project_all(projector, clock)
    assert_equal_sides(shop)


@pytest.mark.usefixtures("large_customer")
async def test_parts_and_others_take_turns(
    shop: Shop, projector: Connection, clock: Clock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much else changes all the time, a large change gets on."""
    parts: list[bool] = []

    async def busy(*arguments: Any, **how: Any) -> Batch:  # noqa: ANN401 (what project_batch takes)
        batch = await project_batch(*arguments, **how)
        parts.append(batch.has_part)
        if len(parts) < 6:
            shop.announce(phone=OTHER, name="Luis Ñáñez")
        return batch

    monkeypatch.setattr(projector_module, "project_batch", busy)
    keeper = EpochKeeper(redis)
    await keeper.begin()
    shop.rename(MINE, "Zoë Ibáñez")
    await project_pending(projector, keeper, clock)
    assert parts[:5] == [True, False, True, False, True]
    assert shop.value(NAMED) == 8


@pytest.mark.usefixtures("large_customer")
async def test_a_checkpoint_that_forgot_the_rest_would_lie(
    shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant whose snapshot shows a change once it was read tells of rows that aren't there yet."""
    advanced = Snapshot.advanced
    monkeypatch.setattr(Snapshot, "advanced", lambda stored, current, end, _unfinished: advanced(stored, current, end))
    with pytest.raises(AssertionError):
        await fan_out(shop, projector, clock)


@pytest.mark.usefixtures("large_customer")
async def test_another_projector_goes_on_with_the_rest(
    database: str, shop: Shop, projector: Connection, clock: Clock
) -> None:
    """The parts are in the database: whoever leads next finds them there."""
    shop.rename(MINE, "Zoë Ibáñez")
    await project_batch(projector, clock)
    async with await open_projector(database) as other:
        await project_all(other, clock)
    assert shop.value(NAMED) == 8
    assert shop.value("SELECT count(*) FROM unfinished_changes") == 0
    assert_equal_sides(shop)


@pytest.mark.usefixtures("large_customer")
async def test_what_changes_meanwhile_ends_on_its_last_state(shop: Shop, projector: Connection, clock: Clock) -> None:
    """A later part derives again, it doesn't put back: neither an older name nor a package that has moved on."""
    shop.rename(MINE, "Eva Ruiz")
    await project_batch(projector, clock)
    shop.rename(MINE, "Zoë Ibáñez")
    for package_id in (row["package_id"] for row in shop.all("SELECT package_id FROM packages")):
        shop.receive(package_id)
    await project_all(projector, clock)
    assert shop.value(NAMED) == 8
    assert shop.value("SELECT count(*) FROM package_listing WHERE status = 'RECEIVED'") == 8
    assert_equal_sides(shop)


async def test_too_many_keys_are_left_for_the_next_batch(shop: Shop, projector: Connection, clock: Clock) -> None:
    """Few log rows may make many rows dirty: a batch is bounded by both."""
    phones = [f"+57300555000{number}" for number in range(3)]
    for phone in phones * 2:
        shop.announce(phone=phone)
    await project_all(projector, clock)
    for phone in phones:
        shop.rename(phone, "Zoë Ibáñez")
    for shown in (2, 4, 6):
        batch = await project_batch(projector, clock, largest=2)
        assert (batch.changes, batch.is_last) == (1, shown == 6)
        assert shop.value(NAMED) == shown
    assert_equal_sides(shop)


async def poison(shop: Shop, projector: Connection, clock: Clock) -> tuple[uuid.UUID, int]:
    """Receive a package that can't be listed among others that can; give it with its transaction."""
    package_ids = [shop.announce() for _ in range(5)]
    await project_all(projector, clock)
    poisoned = package_ids[2]
    shop.conn.execute(POISON.format(package_id=poisoned).encode())
    for package_id in package_ids:
        shop.receive(package_id)
    xid = int(
        shop.value(f"SELECT xid::text FROM change_log WHERE package_id = '{poisoned}' AND type = 'PackageReceived'")
    )
    await project_all(projector, clock)
    assert shop.value("SELECT count(*) FROM package_listing WHERE status = 'RECEIVED'") == 4
    assert shop.value("SELECT count FROM package_counts WHERE status = 'RECEIVED'") == 4
    assert not shows(shop, xid)
    return poisoned, xid


async def test_a_package_that_cannot_be_listed_holds_up_no_other(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """It is parked with the reason; the others show, and later changes of it are parked behind it, in order."""
    poisoned, xid = await poison(shop, projector, clock)
    clock.advance(hours=1)
    shop.deliver(poisoned)
    other = shop.announce(phone=OTHER)
    await project_all(projector, clock)
    assert shop.value(f"SELECT count(*) FROM package_listing WHERE package_id = '{other}'") == 1
    (parked,) = await list_parked(projector)
    assert (parked.kind, parked.key, parked.changes) == ("package", poisoned, 2)
    assert parked.reason.startswith("cannot list G-")
    xids = [int(row["xid"]) for row in shop.all("SELECT xid::text FROM parked_changes AS p ORDER BY p.xid")]
    assert xids[0] == xid < xids[1]
    assert not any(shows(shop, number) for number in xids)
    assert shows(shop, last_xid(shop))


async def test_a_batch_that_is_derived_piece_by_piece_tells_of_every_piece(
    shop: Shop, projector: Connection, clock: Clock
) -> None:
    """Whoever follows the changes hears of all parcels that were beside the one that is parked, each once."""
    poisoned, _ = await poison(shop, projector, clock)
    told = shop.value("SELECT packages FROM batch_changes ORDER BY batch DESC LIMIT 1")
    received = shop.all("SELECT package_id::text, status, version FROM package_listing WHERE status = 'RECEIVED'")
    assert sorted(told, key=lambda one: one["package_id"]) == sorted(received, key=lambda one: one["package_id"])
    assert str(poisoned) not in {one["package_id"] for one in told}


async def test_what_is_parked_makes_no_batch_dearer(shop: Shop, projector: Connection, clock: Clock) -> None:
    """A parked change stays hidden for as long as it takes, and the next scan begins behind it all the same."""
    _, xid = await poison(shop, projector, clock)
    shop.announce(phone=OTHER)
    await project_all(projector, clock)
    assert int(shop.value("SELECT unread_from::text FROM projection_checkpoint")) > xid
    assert int(shop.value("SELECT pg_snapshot_xmin(snapshot)::text FROM projection_checkpoint")) == xid


@pytest.mark.parametrize("way", ["retry", "change"])
async def test_what_was_parked_comes_back(shop: Shop, projector: Connection, clock: Clock, way: str) -> None:
    """Once the cause is gone, a retry or the next change of the package brings it back, and its tokens are met."""
    poisoned, xid = await poison(shop, projector, clock)
    shop.conn.execute("DROP TRIGGER refuse_listing ON package_listing")
    clock.advance(hours=1)
    if way == "retry":
        await retry(projector)
    else:
        shop.deliver(poisoned)
    await project_all(projector, clock)
    assert await list_parked(projector) == []
    assert shows(shop, xid)
    assert_equal_sides(shop)


async def test_what_is_still_wrong_is_parked_again(shop: Shop, projector: Connection, clock: Clock) -> None:
    """A retry in vain loses nothing: the key, its changes and their order stay."""
    _, xid = await poison(shop, projector, clock)
    before = shop.all("SELECT kind, key, xid::text FROM parked_changes")
    await retry(projector)
    assert not shows(shop, xid)
    await project_all(projector, clock)
    assert shop.all("SELECT kind, key, xid::text FROM parked_changes") == before
    assert shop.value("SELECT count(*) FROM unfinished_changes") == 0


async def test_a_customer_that_cannot_be_listed_is_parked_too(shop: Shop, projector: Connection, clock: Clock) -> None:
    """Their packages go on with the name that the listing can show."""
    shop.announce(phone=MINE)
    await project_all(projector, clock)
    refuse = POISON.replace("package_listing", "customer_listing").replace("NEW.guide_number", "NEW.name")
    customer_id = shop.value("SELECT customer_id FROM customers")
    shop.conn.execute(refuse.replace("NEW.package_id", "NEW.customer_id").format(package_id=customer_id).encode())
    shop.rename(MINE, "Zoë Ibáñez")
    renamed = last_xid(shop)
    await project_all(projector, clock)
    assert {(parked.kind, parked.key) for parked in await list_parked(projector)} >= {("customer", customer_id)}
    assert not shows(shop, renamed)
    shop.conn.execute("DROP TRIGGER refuse_listing ON customer_listing")
    await retry(projector)
    await project_all(projector, clock)
    assert shop.value("SELECT name FROM customer_listing") == "Zoë Ibáñez"
    assert shows(shop, renamed)
    assert_equal_sides(shop)


async def test_without_parking_everybody_would_wait(
    shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that takes bad data for a failure of the server stands still for good."""
    monkeypatch.setattr(parking, "POISON", ())
    with pytest.raises(RaiseException):
        await poison(shop, projector, clock)


async def test_a_skipped_change_would_be_told_as_in(
    shop: Shop, projector: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant that skips what it can't derive says of a change that isn't in that it is."""

    async def skip(*_: object) -> None:
        pass

    monkeypatch.setattr(parking, "park", skip)
    with pytest.raises(AssertionError):
        await poison(shop, projector, clock)
