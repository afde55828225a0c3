"""The sample is believable: every rule holds for it, and the read side made from it is exact."""

import psycopg
import pytest

from commands.seed import seed, tracking_code
from infra.settings import Settings
from projections.rebuild import rebuild
from projections.verify import verify
from tests.support import Clock

pytestmark = pytest.mark.anyio


async def test_two_samples_in_one_shop(settings: Settings, clock: Clock) -> None:
    """A second sample meets nothing of the first; states have their shares; both sides are equal afterwards."""
    said: list[tuple[str, int, int]] = []
    await seed(settings, 2500, lambda *step: said.append(step), clock=clock)
    await seed(settings, 500, clock=clock)
    await rebuild(settings, clock=clock)
    differences: list[str] = []
    assert await verify(settings, report=differences.append, clock=clock) == 0, differences[:3]
    with psycopg.connect(settings.postgres_dsn) as conn:
        counts: dict[str, int] = dict(
            conn.execute("SELECT status, sum(count)::int FROM package_counts GROUP BY status").fetchall()
        )
        late = conn.execute("SELECT count(*) FROM packages WHERE announced_at > %s", (clock(),)).fetchone()
        accents = conn.execute("SELECT count(*) FROM package_search WHERE text LIKE '%% nunez%%'").fetchone()
        history = conn.execute("SELECT count(*) FROM change_log WHERE type = 'PackageDelivered'").fetchone()
    assert sum(counts.values()) == 3000
    assert 0.02 < counts["RECEIVED"] / 3000 < 0.08
    assert counts["DELIVERED"] / 3000 > 0.85
    assert late == (0,)
    assert accents is not None
    assert accents[0] > 0
    assert history == (counts["DELIVERED"],)
    assert said[0] == ("writing packages", 0, 2500)
    assert said[-1] == ("writing packages", 2500, 2500)


def test_every_number_has_a_code_of_its_own() -> None:
    """A million sampled parcels would meet by chance; these codes don't."""
    codes = {tracking_code(number) for number in range(50_000)}
    assert len(codes) == 50_000
    assert all(len(code) == 8 for code in codes)
