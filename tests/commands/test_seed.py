"""A sample is believable, breaks no rule, and can be put into a shop that is open."""

import asyncio
from datetime import timedelta
from typing import Any

import phonenumbers
import psycopg
import pytest

from commands import seed as seed_module
from commands.seed import seed
from commands.seed_sample import phone, tracking_code
from db.leadership import IS_LED
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections import process
from projections.rebuild import rebuild
from projections.verify import verify
from tests.support import Clock, moved

pytestmark = pytest.mark.anyio

ANNOUNCED_BY_HAND = """
WITH customer AS (INSERT INTO customers (name, phone) VALUES ('Ana Peña', %(phone)s) RETURNING customer_id),
package AS (
    INSERT INTO packages (
        guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id, announced_at)
    SELECT %(guide)s, %(code)s, customer_id, 'Ana Peña', (SELECT site_id FROM sites), 'ANNOUNCED',
           (SELECT tariff_id FROM tariffs), %(now)s
    FROM customer RETURNING package_id, customer_id)
INSERT INTO change_log (package_id, customer_id, type, at)
SELECT package_id, customer_id, 'PackageAnnounced', %(now)s FROM package
"""

CONTENT = """
SELECT p.guide_number, p.tracking_code, p.status, p.announced_at, p.received_at, s.code, c.name, c.phone, place.code,
       (SELECT sum(amount) FROM payments AS y WHERE y.package_id = p.package_id)
FROM packages AS p JOIN customers AS c USING (customer_id) JOIN sites AS s ON s.site_id = p.site_id
LEFT JOIN positions AS place ON place.position_id = p.position_id
ORDER BY p.tracking_code
"""


LEADER = f"SELECT 1 WHERE {IS_LED}"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_module, "CHUNK", 200)


def rows(settings: Settings, statement: str, values: Any = None) -> list[tuple[Any, ...]]:  # noqa: ANN401
    with psycopg.connect(settings.postgres_dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


async def assert_equal_sides(settings: Settings, clock: Clock) -> None:
    differences: list[str] = []
    assert await verify(settings, report=differences.append, clock=clock) == 0, differences[:3]


async def test_two_samples_in_one_shop(settings: Settings, clock: Clock) -> None:
    """A second sample meets nothing of the first; states have their shares; both sides are equal afterwards."""
    said: list[tuple[str, int, int]] = []
    assert not await seed(settings, 2500, lambda *step: said.append(step), clock=clock)
    assert not await seed(settings, 500, clock=clock)
    await rebuild(settings, clock=clock)
    await assert_equal_sides(settings, clock)
    counts = dict(rows(settings, "SELECT status, sum(count)::int FROM package_counts GROUP BY status"))
    assert sum(counts.values()) == 3000
    assert 0.02 < counts["RECEIVED"] / 3000 < 0.08
    assert counts["DELIVERED"] / 3000 > 0.85
    assert rows(settings, "SELECT count(*) > 0 FROM package_search WHERE text LIKE '% nunez%'") == [(True,)]
    history = rows(settings, "SELECT count(*) FROM change_log WHERE type = 'PackageDelivered'")
    assert history == [(counts["DELIVERED"],)]
    assert said[0] == ("writing packages", 0, 2500)
    assert said[-1] == ("writing packages", 2500, 2500)


async def test_nothing_lies_in_the_future_nor_has_lapsed(settings: Settings, clock: Clock) -> None:
    """Every instant is past; announcements are of the last 30 days; ids sort by their announcement."""
    await seed(settings, 1000, clock=clock)
    late = "SELECT count(*) FROM change_log WHERE at > %s"
    lapsed = "SELECT count(*) FROM packages WHERE status = 'ANNOUNCED' AND announced_at < %s"
    assert rows(settings, late, (clock(),)) == [(0,)]
    assert rows(settings, lapsed, (clock() - timedelta(days=30),)) == [(0,)]
    apart = (
        "SELECT max(abs(extract(epoch FROM announced_at - uuid_extract_timestamp(package_id)))) < 0.01 FROM packages"
    )
    assert rows(settings, apart) == [(True,)]
    later = (
        "SELECT count(*) FROM customers AS c JOIN packages AS p USING (customer_id) WHERE c.created_at > p.announced_at"
    )
    assert rows(settings, later) == [(0,)]


async def test_a_sample_beside_open_doors(settings: Settings, clock: Clock) -> None:
    """What people have meanwhile is left to them: a phone, a code, a guide and a place that the sample would use."""
    taken = {"phone": phone(3), "code": tracking_code(4), "guide": "21-000-00005", "now": clock()}
    rows(settings, ANNOUNCED_BY_HAND, taken)
    await seed(settings, 600, clock=clock)
    assert rows(settings, "SELECT count(*), count(DISTINCT position_id) > 10 FROM packages") == [(601, True)]
    await rebuild(settings, clock=clock)
    await assert_equal_sides(settings, clock)


async def test_more_than_the_shelves_hold_has_been_collected(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People may take the last places while the sample is written."""
    monkeypatch.setattr(seed_module, "OCCUPIED", 1e9)
    rows(settings, "DELETE FROM positions WHERE ordinal > 4")
    await seed(settings, 1000, clock=clock)
    received = dict(rows(settings, "SELECT status, count(*) FROM packages GROUP BY status"))["RECEIVED"]
    assert received == rows(settings, "SELECT count(*) FROM positions WHERE package_id IS NOT NULL")[0][0]
    assert 0 < received < 30


async def test_the_same_number_makes_the_same_sample(settings: Settings, clock: Clock, database: str) -> None:
    """Whoever measures twice measures the same."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    rows(settings, f"CREATE DATABASE {name}_twin TEMPLATE template_paqueteria")
    twin = moved(settings, database.replace(str(name), f"{name}_twin"))
    await seed(settings, 500, clock=clock)
    await seed(twin, 500, clock=clock)
    assert rows(settings, CONTENT) == rows(twin, CONTENT)
    rows(settings, f"DROP DATABASE {name}_twin WITH (FORCE)")


async def test_a_running_projector_is_kept_up_with(settings: Settings, clock: Clock) -> None:
    """With one at work the sample shows by itself, and nothing has to be rebuilt."""
    projector = asyncio.create_task(process.run(settings, clock))
    async with asyncio.timeout(30):
        while not rows(settings, LEADER):  # noqa: ASYNC110 (a lock in the database has no event of ours)
            await asyncio.sleep(0.02)
        assert await seed(settings, 900, clock=clock)
    projector.cancel()
    await asyncio.gather(projector, return_exceptions=True)
    await assert_equal_sides(settings, clock)
    assert rows(settings, "SELECT sum(count)::int FROM package_counts") == [(900,)]


async def test_one_sample_at_a_time(settings: Settings, clock: Clock) -> None:
    """Two would give out the same numbers."""
    with psycopg.connect(settings.postgres_dsn) as conn:
        conn.execute("SELECT pg_advisory_lock(hashtextextended('paqueteria.seed', 0))")
        with pytest.raises(ConfigurationError, match="Another seed"):
            await seed(settings, 10, clock=clock)


def test_every_number_has_a_code_of_its_own() -> None:
    """A million sampled parcels would meet by chance; these codes don't."""
    codes = {tracking_code(number) for number in range(50_000)}
    assert len(codes) == 50_000
    assert all(len(code) == 8 for code in codes)


def test_every_number_has_a_phone_of_its_own_that_can_be_called() -> None:
    """The write API takes them all: they are Colombian mobiles in use."""
    lines = [phone(number) for number in range(3_000)]
    assert len(set(lines)) == 3_000
    assert all(phonenumbers.is_valid_number(phonenumbers.parse(line)) for line in lines)
