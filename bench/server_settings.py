"""What each of PostgreSQL's settings that claims speed is worth, on the work that it is claimed for."""

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import psycopg

from bench.measurement import Measurement, in_turn
from bench.refreshes import timed
from bench.results import Figure, Findings, median, ratio
from bench.shops import Bench
from db.embedded import PostgresServer, postgres_options
from db.pools import Connection
from infra.clock import system_clock
from infra.settings import Settings
from projections.rebuild import rebuild
from queries.list_packages import PackageFilters, fetch

Work = Callable[[Settings, float], Awaitable[float]]

PAGES = (
    PackageFilters(),
    PackageFilters(sort="owed"),
    PackageFilters(sort="oldest", status=["DELIVERED"]),
    PackageFilters(q="garcia"),
    PackageFilters(q="maria garcia"),
)


async def read_pages(settings: Settings, seconds: float) -> float:
    """Give the milliseconds of reading each of the pages once, by a session that sets nothing for itself."""
    took: list[float] = []
    async with await Connection.connect(settings.postgres_dsn, autocommit=True) as conn:
        await _read_each(conn, settings)
        until = time.monotonic() + seconds
        while not took or time.monotonic() < until:
            took.append(await _read_each(conn, settings))
    return statistics.median(took)


async def _read_each(conn: Connection, settings: Settings) -> float:
    return sum([await timed(conn, fetch(page, system_clock(), settings.signing_key())) for page in PAGES])


async def rebuild_all(settings: Settings, _seconds: float) -> float:
    """Give the milliseconds of making every read model anew."""
    started = time.perf_counter()
    await rebuild(settings)
    return (time.perf_counter() - started) * 1000


async def rebuild_indexes(settings: Settings, _seconds: float) -> float:
    """Give the milliseconds of making the listing's indexes anew, by a session that sets nothing for itself."""
    async with await Connection.connect(settings.postgres_dsn, autocommit=True) as conn:
        started = time.perf_counter()
        await conn.execute("REINDEX TABLE package_listing")
    return (time.perf_counter() - started) * 1000


OURS = postgres_options() | {"wal_compression": "on"}
"""What the embedded server uses, and, tried beside it, what cost more than it brought."""

CLAIMED: dict[str, Work] = {
    "shared_buffers": read_pages,
    "effective_cache_size": read_pages,
    "work_mem": read_pages,
    "random_page_cost": read_pages,
    "jit": read_pages,
    "maintenance_work_mem": rebuild_indexes,
    "max_wal_size": rebuild_all,
    "wal_compression": rebuild_all,
}

DEFAULT = "SELECT boot_val, coalesce(' of ' || unit, '') FROM pg_settings WHERE name = %s"


async def settings_that_claim_speed(bench: Bench) -> Findings:
    """Do each setting's work by PostgreSQL's default and by ours in turn, everything else as it is shipped."""
    figures: list[Figure] = []
    server = bench.shops.postgres
    kept = dict(server.options)
    async with bench.open() as settings:
        try:
            for name, work in CLAIMED.items():
                figures += await _before_and_after(bench, settings, name, work)
        finally:
            _restart(server, kept)
    return Findings(figures=figures)


async def _before_and_after(bench: Bench, settings: Settings, name: str, work: Work) -> list[Figure]:
    server = bench.shops.postgres
    kept = dict(server.options)
    with psycopg.connect(server.dsn()) as conn:
        default, unit = conn.execute(DEFAULT, [name]).fetchone() or ("", "")

    async def measure(value: str) -> float:
        _restart(server, kept | {name: value})
        return await work(settings, bench.seconds)

    by = {value: partial(measure, value) for value in (default, OURS[name])}
    before, after = (await in_turn(by, bench.rounds, bench.report)).values()
    return [
        ratio(f"{name}: the default's time over ours", before, after),
        median(f"{name} = {default}{unit}", before, "ms"),
        median(f"{name} = {OURS[name]}", after, "ms"),
    ]


def _restart(server: PostgresServer, options: dict[str, str]) -> None:
    """Start it again by this thread: a server ends with the thread that has started it."""
    server.stop()
    server.options = options
    server.start()


MEASUREMENTS = (
    Measurement(
        "settings",
        "PostgreSQL's settings",
        "Each setting that claims speed, by PostgreSQL's default and by ours in turn, after a restart and with"
        " everything else as it is shipped: of those for reading, five pages of the listing; of"
        " maintenance_work_mem, the listing's indexes; of those for writing, a rebuild of every read model."
        " wal_compression was tried, and isn't used.",
        settings_that_claim_speed,
        seconds=3,
    ),
)
