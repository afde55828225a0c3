"""The frame works: measurements are found by name, and measured at the size that is asked for."""

import asyncio
import contextlib
from pathlib import Path

import psycopg
import pytest

from bench import report, run
from bench.measurement import Measurement, in_turn
from bench.registry import ALL, chosen
from bench.results import Figure, Findings
from bench.run import Sizes
from bench.shops import Bench, Shops, open_shops
from db.migrate import migrations
from infra.errors import ConfigurationError

pytestmark = pytest.mark.xdist_group("bench")


async def _count(bench: Bench) -> Findings:
    """Measure nothing but how large the shop is, on both sides."""
    async with bench.open() as settings:
        with psycopg.connect(settings.postgres_dsn) as conn:
            counts = [
                conn.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("packages", "package_listing")
            ]
    return Findings(figures=[Figure(name="rows", value=row[0] if row else 0) for row in counts])


COUNT = Measurement("count", "Counted", "Rows.", _count, packages=70, seconds=2, rounds=3)


def test_a_measurement_is_given_a_shop_of_its_size(shops: Shops) -> None:
    """At its own size, or at the one that is asked for; either way all of it is projected."""
    full = asyncio.run(run.measure(shops, COUNT, Sizes()))
    small = asyncio.run(run.measure(shops, COUNT, Sizes(packages=40, rounds=1)))
    assert [figure.value for figure in full.findings.figures] == [70, 70]
    assert [figure.value for figure in small.findings.figures] == [40, 40]
    assert (full.seconds, full.rounds, small.rounds) == (2, 3, 1)
    assert full.machine.postgresql.startswith("18")


def test_a_shop_is_seeded_once_and_each_clone_is_its_own(shops: Shops) -> None:
    """What one measurement leaves behind, the next one doesn't find."""

    async def use() -> int:
        async with Bench(shops, 40, 1, 1, lambda *_: None).open() as settings:
            with psycopg.connect(settings.postgres_dsn) as conn:
                conn.execute("INSERT INTO customers (name) VALUES ('Ana Peña')")
                row = conn.execute("SELECT count(*) FROM customers WHERE name = 'Ana Peña'").fetchone()
        return row[0] if row else 0

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 1]
    with psycopg.connect(shops.postgres.dsn("postgres")) as conn:
        names = {name for (name,) in conn.execute("SELECT datname FROM pg_database")}
    assert f"shop_40_{len(migrations())}" in names
    assert not any(name.startswith("clone") for name in names)


def test_a_folder_is_one_benchmarks_at_a_time(shops: Shops) -> None:
    """A second one on the same folder would end the servers of the first."""
    with pytest.raises(ConfigurationError, match="Another benchmark runs in"), open_shops(shops.folder):
        pass
    with psycopg.connect(shops.postgres.dsn("postgres")) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_figures_of_less_than_full_size_stay_out_of_the_documents(
    shops: Shops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing of the bars."""
    monkeypatch.setattr(run, "open_shops", lambda _: contextlib.nullcontext(shops))
    monkeypatch.setitem(ALL, "count", COUNT)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "full")
    monkeypatch.setattr(run, "TRIED", tmp_path / "tried")
    asyncio.run(run.run(["count"], Sizes(packages=40)))
    assert not (tmp_path / "full").exists()
    assert [result.packages for result in report.read(tmp_path / "tried")] == [40]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no measurement speed: there are hot-page, "):
        chosen(["notify", "speed"])
    assert [measurement.name for measurement in chosen([])] == list(ALL)


def test_variants_are_measured_in_turn() -> None:
    """A B A B: what changes on the machine meanwhile changes for both."""
    order: list[str] = []

    async def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    variants = {"A": lambda: measure("A"), "B": lambda: measure("B")}
    assert asyncio.run(in_turn(variants, 2, lambda *_: None)) == {"A": [1, 3], "B": [2, 4]}
    assert order == ["A", "B", "A", "B"]
