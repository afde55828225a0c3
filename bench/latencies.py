"""How long one cold page takes in a large shop: in every order, by every filter, and by words."""

import statistics
import time
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote

from bench.http import PAST_CACHES
from bench.load import Load
from bench.measurement import Measurement
from bench.reading import LISTING, Readers, reading_peer, reading_shop
from bench.results import Figure, Findings, median, percentile, ratio
from bench.shops import Bench
from db.pools import Connection, connect
from infra.clock import system_clock
from infra.settings import Settings

ONE = """
SELECT customer_id::text, "position" FROM package_listing WHERE status = 'RECEIVED' AND customer_phone IS NOT NULL
ORDER BY md5(package_id::text) LIMIT 1
"""

SEARCHES = {
    "a rare word": "xiques",
    "a common word": "garcia",
    "a common word with its accent": "garcía",
    "two common words": "maria garcia",
    "part of a phone": "3001",
    "two letters": "ga",
    "one letter": "m",
    "two letters and a word": "lo garcia",
    "nothing at all": "zzzyx",
}

NARROWED = {
    "a common word, announced in ten days": "q=garcia&announced_from={since}&announced_to={until}",
    "a common word, received in ten days": "q=garcia&received_from={since}&received_to={until}",
    "a common word, since then": "q=garcia&received_from={since}",
    "a rare word, before then": "q=xiques&announced_to={until}",
    "two letters, before then, oldest": "q=ga&received_to={until}&sort=oldest",
    "a common word, handed over": "q=garcia&status=DELIVERED",
    "a common word, in storage, owed": "q=garcia&sort=owed",
}


FLOORS = {
    "the floor, 10,001 parcels with a common word, by their texts alone": """
        SELECT count(*) FROM (SELECT FROM package_search WHERE text LIKE '%garcia%' LIMIT 10001) AS counted""",
    "the floor, all parcels with a common word, by their texts alone": """
        SELECT count(*) FROM package_search WHERE text LIKE '%garcia%'""",
}
FLOOR_TIMES = 40


def ten_days() -> tuple[str, str]:
    """Give two dates of half a year ago."""
    since, until = (f"{system_clock() - timedelta(days=days):%Y-%m-%d}" for days in (200, 190))
    return since, until


async def filters(settings: Settings) -> dict[str, str]:
    """Name listings by every order and filter, and a few by several."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        row = await (await conn.execute(ONE)).fetchone()
    customer_id, position = row or ("", "")
    since, until = ten_days()
    return {
        "newest": "",
        "oldest": "sort=oldest",
        "owed": "sort=owed",
        "days": "sort=days",
        **{f"status {status}": f"status={status}" for status in ("ANNOUNCED", "RECEIVED", "DELIVERED", "CANCELLED")},
        "two statuses, oldest": "status=ANNOUNCED&status=RECEIVED&sort=oldest",
        "site": "site=PRINCIPAL",
        "site and status, owed": "site=PRINCIPAL&status=RECEIVED&sort=owed",
        "customer": f"customer_id={customer_id}",
        "position": f"position={quote(position)}",
        "announced in ten days": f"announced_from={since}&announced_to={until}",
        "received in ten days": f"received_from={since}&received_to={until}",
        "received in ten days, oldest": f"received_from={since}&received_to={until}&sort=oldest",
        "received before, cancelled": f"received_to={until}&status=CANCELLED",
        "received since then, cancelled, oldest": f"received_from={since}&status=CANCELLED&sort=oldest",
        "received since then at a site, oldest": f"received_from={since}&site=PRINCIPAL&sort=oldest",
        "30 days in storage": "min_days=30",
        "7 days in storage, owed": "min_days=7&sort=owed",
        "a hundred rows": "limit=100",
    }


async def _measured(bench: Bench, named: Mapping[str, str], readers: Readers, at_most: float, aim: float) -> Findings:
    """Ask for each listing by one connection, of the service and of the bare statement in turn."""
    paths = {name: f"{LISTING}?{query}" for name, query in named.items()}
    service: dict[str, list[Load]] = {name: [] for name in paths}
    statement: dict[str, list[Load]] = {name: [] for name in paths}
    addresses = list(paths.values())
    async with reading_peer(readers.settings, "one_statement", addresses=addresses) as peer:
        for _ in bench.each_round(f"rounds of {len(paths)} listings"):
            for name, path in paths.items():
                service[name].append(await readers.drive([path], bench.seconds, PAST_CACHES, connections=1))
                statement[name].append(await peer.drive([path], bench.seconds, connections=1))
    p95 = {name: [load.p95 for load in loads] for name, loads in service.items()}
    slowest = max(p95, key=lambda name: statistics.median(p95[name]))
    each = (
        figure
        for name in paths
        for figure in (
            median(f"{name}: p95", p95[name], "ms", at_most=at_most, aim=aim),
            ratio(
                f"{name}: rate over one bare statement",
                [load.rate for load in service[name]],
                [load.rate for load in statement[name]],
            ),
        )
    )
    worst = median(f"the slowest, p95 ({slowest})", p95[slowest], "ms", at_most=at_most, aim=aim)
    return Findings(figures=[worst, *each])


async def sorts_and_filters(bench: Bench) -> Findings:
    """Measure every order and filter."""
    async with reading_shop(bench) as readers:
        return await _measured(bench, await filters(readers.settings), readers, 20, 5)


async def text_search(bench: Bench) -> Findings:
    """Measure what people type."""
    async with reading_shop(bench) as readers:
        since, until = ten_days()
        searches = {name: f"q={quote(words)}" for name, words in SEARCHES.items()}
        searches |= {name: query.format(since=since, until=until) for name, query in NARROWED.items()}
        found = await _measured(bench, searches, readers, 50, 20)
        return found.model_copy(update={"figures": [*found.figures, *await _floors(bench, readers.settings)]})


async def _floors(bench: Bench, settings: Settings) -> list[Figure]:
    """Find a common word's parcels by its index and their texts, and do nothing with them: no search can do less."""
    took: dict[str, list[float]] = {name: [] for name in FLOORS}
    async with await connect(settings.postgres_dsn, "bench") as conn:
        for _ in bench.each_round("rounds of bare searches"):
            for name, statement in FLOORS.items():
                times = [await _timed(conn, statement) for _ in range(FLOOR_TIMES)]
                took[name].append(percentile(times, 95))
    return [median(f"{name}: p95", times, "ms") for name, times in took.items()]


async def _timed(conn: Connection, statement: str) -> float:
    started = time.perf_counter()
    await (await conn.execute(statement.encode(), prepare=True)).fetchall()
    return (time.perf_counter() - started) * 1000


MEASUREMENTS = (
    Measurement(
        "sorts-and-filters",
        "Every order and filter",
        "One cold page after the other by one connection, in a shop of 1,000,000 packages; beside each, the same"
        " prepared statement by a bare ASGI application.",
        sorts_and_filters,
        packages=1_000_000,
        seconds=1,
    ),
    Measurement(
        "text-search",
        "Text search",
        "What people type (`q`), alone and with filters: one cold page after the other by one connection, in a shop of"
        " 1,000,000 packages; beside each, the same statement by a bare ASGI application. A count is exact up to"
        " 10,000: with another filter every parcel that has the word may have to be looked at, without one 10,001 of"
        " them. What that takes alone, by one bare statement, are the floors.",
        text_search,
        packages=1_000_000,
        seconds=1,
    ),
)
