"""`verify` finds whatever differs, excuses only what is on its way, and repairs it."""

import pytest

from db.pools import Connection
from infra.settings import Settings
from projections import verify as verify_module
from projections.projector import project_batch
from projections.verify import verify
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
