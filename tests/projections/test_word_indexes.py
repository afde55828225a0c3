"""What is written to the words' indexes is sorted in beside the projector, so that no batch has to."""

import asyncio

import pytest

from db.pools import Connection
from infra.settings import Settings
from infra.tasks import running
from projections.projector import project_batch
from projections.word_indexes import keep_sorted, sort_in
from tests.projections.conftest import Shop
from tests.support import Clock

pytestmark = pytest.mark.anyio

WAITING = "SELECT pending_pages FROM monitoring.pgstatginindex('package_search_text')"


async def test_what_waits_is_sorted_in(shop: Shop, projector: Connection, settings: Settings, clock: Clock) -> None:
    """A batch leaves its words in the list, and they are gone from there a moment later."""
    shop.announce()
    await project_batch(projector, clock)
    assert shop.value(WAITING) > 0
    async with running(keep_sorted(settings)), asyncio.timeout(30):
        while await asyncio.to_thread(shop.value, WAITING) > 0:  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.05)


# The words of each are those of some twenty parcels.
LARGE = """
INSERT INTO package_search (package_id, announced_at, text)
SELECT uuidv7(), now(), string_agg(md5(n || ' ' || word), ' ')
FROM generate_series(1, 400) AS n CROSS JOIN generate_series(1, 32) AS word GROUP BY n
"""


def test_a_large_batch_does_not_sort_in_its_own(shop: Shop) -> None:
    """What the largest batch writes, 7 MB for 5,000 new parcels, finds room in the list."""
    shop.conn.execute(LARGE)
    pages = shop.value(WAITING)
    assert pages * 8 > 7 * 1024


async def test_a_table_that_is_being_swapped_is_passed_over(shop: Shop, projector: Connection) -> None:
    """Somebody else's lock is no failure of the projector's process; a connection that is gone is one."""
    await projector.execute("SELECT set_config('lock_timeout', '50ms', false)")
    with shop.conn.transaction():
        shop.conn.execute("LOCK TABLE package_search IN ACCESS EXCLUSIVE MODE")
        await sort_in(projector)
    await sort_in(projector)
    await projector.close()
    with pytest.raises(Exception, match="closed"):
        await sort_in(projector)
