"""Whether readers notice a refresh of the materialized views."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from bench.measurement import Measurement, in_turn
from bench.results import Figure, Findings, Plot, by_round, percentile
from bench.shops import Bench
from db.pools import Connection, connect
from infra.clock import BOGOTA, system_clock
from infra.settings import Settings
from infra.tasks import running
from projections.refresh import refresh_views
from queries.list_packages import PackageFilters
from queries.list_packages import fetch as fetch_packages
from queries.pages import Query
from queries.summary import fetch as fetch_summary

READERS = 2
PAUSE = 0.005
"""Seconds between two reads of one reader."""

LOCKED = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8 * 1000
FROM pg_stat_activity WHERE application_name = 'paqueteria reader' AND wait_event_type = 'Lock'
"""


async def refresh_blocks(bench: Bench) -> Findings:
    """Read what both views are for, with and without a refresh that begins anew whenever it ends."""
    times: dict[str, list[float]] = {"no refresh": [], "refreshes": []}
    refreshes: list[float] = []
    locked: list[float] = [0.0]
    async with bench.open() as settings:

        async def quiet() -> float:
            times["no refresh"] += (took := await _read(settings, bench.seconds))
            return max(took)

        async def beside() -> float:
            async with running(_refresh(settings, refreshes), _watch(settings, locked)):
                times["refreshes"] += (took := await _read(settings, bench.seconds))
            return max(took)

        longest = await in_turn({"no refresh": quiet, "refreshes": beside}, bench.rounds, bench.report)
    return Findings(
        figures=[
            Figure(
                name="what refreshes add to the longest read",
                value=max(longest["refreshes"]) - max(longest["no refresh"]),
                unit="ms",
                at_most=50,
            ),
            Figure(
                name="longest read beside refreshes",
                value=max(longest["refreshes"]),
                unit="ms",
                rounds=longest["refreshes"],
            ),
            Figure(
                name="longest read with no refresh",
                value=max(longest["no refresh"]),
                unit="ms",
                rounds=longest["no refresh"],
            ),
            Figure(name="longest wait for a lock that was seen", value=max(locked), unit="ms", at_most=50),
            Figure(name="reads' p99 beside refreshes", value=percentile(times["refreshes"], 99), unit="ms"),
            Figure(name="reads' p99 with no refresh", value=percentile(times["no refresh"], 99), unit="ms"),
            Figure(name="a refresh of both views", value=percentile(refreshes, 50), unit="s", rounds=refreshes),
        ],
        plots=[
            Plot(
                title="The longest read of a round",
                x_label="round",
                y_label="ms",
                series=[by_round(name, values) for name, values in longest.items()],
                style="dots",
            )
        ],
    )


def _queries(key: str) -> Sequence[Query]:
    """The listing by what is owed, and a day's money."""
    now = system_clock()
    day = (now - timedelta(days=2)).astimezone(BOGOTA).date()
    return fetch_packages(PackageFilters(sort="owed"), now, key), fetch_summary(day, None, now)


async def _read(settings: Settings, seconds: float) -> list[float]:
    """Give the milliseconds of each read."""
    took: list[float] = []
    until = time.monotonic() + seconds

    async def work() -> None:
        async with await connect(settings.postgres_dsn, "reader") as conn:
            while time.monotonic() < until:
                for query in _queries(settings.signing_key()):
                    took.append(await timed(conn, query))
                    await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as readers:
        for _ in range(READERS):
            readers.create_task(work())
    return took


async def timed(conn: Connection, query: Query) -> float:
    """Give the milliseconds of one query."""
    binds = {"scopes": list(query.scopes), "now": query.now, **query.binds}
    started = time.perf_counter()
    await (await conn.execute(query.statement.encode(), binds, prepare=not query.plan_by_values)).fetchall()
    return (time.perf_counter() - started) * 1000


async def _refresh(settings: Settings, took: list[float]) -> None:
    async with await connect(settings.postgres_dsn, "bench") as conn:
        while True:
            started = time.perf_counter()
            await refresh_views(conn, system_clock())
            took.append(time.perf_counter() - started)


async def _watch(settings: Settings, locked: list[float]) -> None:
    """Note how long a reader has been waiting for a lock, whenever one is."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        while True:
            row = await (await conn.execute(LOCKED)).fetchone()
            if row is not None and row[0]:
                locked.append(row[0])
            await asyncio.sleep(PAUSE)


MEASUREMENTS = (
    Measurement(
        "refresh",
        "Readers beside a refresh",
        "Two readers ask for the listing by what is owed and for a day's money, which read both materialized views, in"
        " turn with no refresh and with refreshes one after the other. 5 % of the packages are in storage.",
        refresh_blocks,
        packages=1_000_000,
    ),
)
