"""What a page costs that no cache has, while Redis is well, away, slow or full."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping

from redis.asyncio import Redis

from bench.http import PAST_CACHES
from bench.lines import Line
from bench.load import Load
from bench.measurement import Measurement
from bench.programs import projecting, serving
from bench.reading import LISTING, Readers
from bench.results import Figure, Findings, median, ratio
from bench.shops import Bench
from bench.traffic import sign_in
from db.pools import connect
from infra.errors import ConfigurationError
from infra.settings import Settings

LATE = 0.5
"""Seconds by which a slow Redis answers late."""

IN_A_PART = 16_000
"""Different pages that a part may ask for, more than it can: none is asked for twice in it."""

LIMITS = range(20, 101)

CUSTOMERS = "SELECT customer_id::text FROM customer_listing ORDER BY md5(customer_id::text) LIMIT 5000"

SHARES = ("p50", "p95")

FULL = {"maxmemory": "1", "maxmemory-policy": "noeviction"}


async def beside_faults(bench: Bench) -> Findings:
    """Ask for pages that nobody has asked for, past the caches and in each state of Redis, in turn."""
    async with bench.open() as settings, _reading(settings) as (well, away, slow):
        pages = await _pages(settings)
        loads: dict[str, list[Load]] = {name: [] for name in ("past the caches", "well", "away", "slow", "full")}

        async def read(name: str, readers: Readers, headers: Mapping[str, str] | None = None) -> None:
            paths = list(itertools.islice(pages, IN_A_PART))
            load = await readers.drive(paths, bench.seconds, headers)
            if load.answers > IN_A_PART:
                raise ConfigurationError(
                    f"{IN_A_PART:,} pages are too few for {bench.seconds} s: some were asked for twice"
                )
            loads[name].append(load)

        for _ in bench.each_round("reads while Redis is well, away, slow and full"):
            await read("past the caches", well, PAST_CACHES)
            await read("well", well)
            await read("away", away)
            await read("slow", slow)
            async with _full(settings):
                await read("full", well)
    uncached = loads.pop("past the caches")
    return Findings(figures=list(_figures(loads, uncached)))


def _figures(loads: Mapping[str, list[Load]], uncached: list[Load]) -> Iterator[Figure]:
    for state, each in loads.items():
        bar = None if state == "well" else 2.0
        for share in SHARES:
            yield ratio(f"{state}: {share} over uncached", _of(each, share), _of(uncached, share), at_most=bar)
    for state, each in {"uncached": uncached, **loads}.items():
        for share in (*SHARES, "p99"):
            yield median(f"{state}: {share}", _of(each, share), "ms")


def _of(loads: list[Load], share: str) -> list[float]:
    return [getattr(load, share) for load in loads]


@contextlib.asynccontextmanager
async def _reading(settings: Settings) -> AsyncIterator[tuple[Readers, Readers, Readers]]:
    """Serve a shop by three read APIs: for one Redis is well, for one it is away, and for one it is slow."""
    token = await sign_in(settings)
    nowhere = settings.model_copy(update={"redis_url": f"unix://{settings.data_dir / 'nobody.sock'}"})
    async with (
        projecting(settings),
        Line(LATE).to_redis(settings) as over_line,
        serving(settings, "queries") as well,
        serving(nowhere, "queries") as away,
        serving(over_line, "queries") as slow,
    ):
        yield Readers(well, token), Readers(away, token), Readers(slow, token)


async def _pages(settings: Settings) -> Iterator[str]:
    """Give one page after the other, each another one for as long as there are any."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        rows = await (await conn.execute(CUSTOMERS)).fetchall()
    return itertools.cycle(f"{LISTING}?customer_id={row[0]}&limit={limit}" for limit in LIMITS for row in rows)


@contextlib.asynccontextmanager
async def _full(settings: Settings) -> AsyncIterator[None]:
    """Let Redis have no room for anything while the block lasts."""
    async with Redis.from_url(settings.redis_dsn, decode_responses=True) as redis:
        before = {name: (await redis.config_get(name))[name] or "" for name in FULL}
        await _configure(redis, FULL)
        try:
            yield
        finally:
            await _configure(redis, before)


async def _configure(redis: Redis, options: Mapping[str, str]) -> None:
    for name, value in options.items():
        await redis.config_set(name, value)


MEASUREMENTS = (
    Measurement(
        "redis-faults",
        "Pages while Redis is away, slow or full",
        "Customers' pages, none asked for twice, by 16 connections: computed past the caches (`no-store`), and then"
        " with a Redis that is well, one that isn't there, one that answers 500 ms late, and one that has no room."
        " Each read misses both caches, so that what it takes beyond an uncached one is what Redis costs it.",
        beside_faults,
        seconds=5,
    ),
)
