"""What the page cache is worth while people write, and what writing costs those who read past it."""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.http import PAST_CACHES, Answer
from bench.measurement import Measurement
from bench.programs import projecting, serving
from bench.reading import LISTING
from bench.results import Figure, Findings, Plot, distribution, median, percentile
from bench.shops import Bench
from bench.traffic import Sent, reading, sign_in, write
from db.pools import connect
from infra.settings import Settings
from infra.tasks import running

READS = 100.0
WRITES = 2.0
FROM_CACHE = frozenset({"L1", "L2"})

COLD_READS = 20.0
BUSY = 200.0
REST = 2.0
"""Seconds after writing has ended, or begun, that count for neither side."""

SOME_CUSTOMERS = """
SELECT customer_id::text FROM customer_listing ORDER BY md5(customer_id::text) LIMIT 8
"""

VIEWS = (
    "",
    "limit=20",
    "sort=oldest",
    "status=ANNOUNCED",
    "status=RECEIVED",
    "status=RECEIVED&sort=owed",
    "status=RECEIVED&sort=days",
    "status=DELIVERED",
    "status=DELIVERED&sort=oldest",
    "status=CANCELLED",
    "status=CANCELLED&sort=oldest",
    "q=garcia",
)


@dataclass(slots=True)
class Oracle:
    """A cache that knows everything: it discards a page only when the page's bytes have changed."""

    etags: dict[str, str] = field(default_factory=dict)
    reads: int = 0
    hits: int = 0
    ours: int = 0

    def look(self, path: str, answer: Answer) -> None:
        """Count one read: whether ours came from a cache, and whether the oracle's would have."""
        etag = answer.headers["etag"]
        self.reads += 1
        self.hits += self.etags.get(path) == etag
        self.ours += answer.headers["x-cache"] in FROM_CACHE
        self.etags[path] = etag


async def hits(bench: Bench) -> Findings:
    """Read twenty pages at a steady rate while parcels are announced, received, corrected and delivered."""
    async with bench.open() as settings:
        token = await sign_in(settings)
        pages = await _twenty(settings)
        oracle = Oracle()
        async with projecting(settings), serving(settings, "all") as api:
            turn = _shuffled(pages)
            async with reading(api, token, READS, turn, oracle.look) as read:
                written = Sent()
                for _ in bench.each_round("reads beside writes"):
                    await write(api, token, WRITES, bench.seconds, written)
    return Findings(
        figures=[
            Figure(
                name="hits over those of an oracle",
                value=oracle.ours / oracle.hits,
                unit="times",
                at_least=0.95,
                aim=0.99,
            ),
            Figure(name="reads from a cache", value=100 * oracle.ours / oracle.reads, unit="%"),
            Figure(name="reads from the oracle's", value=100 * oracle.hits / oracle.reads, unit="%"),
            Figure(name="reads", value=oracle.reads),
            Figure(name="requests that failed", value=len(read.faults) + len(written.faults), at_most=0),
        ],
        notes=[*read.faults[:3], *written.faults[:3]],
    )


async def _twenty(settings: Settings) -> list[str]:
    async with await connect(settings.postgres_dsn, "bench") as conn:
        rows = await (await conn.execute(SOME_CUSTOMERS)).fetchall()
    return [*(f"{LISTING}?{view}" for view in VIEWS), *(f"{LISTING}?customer_id={row[0]}" for row in rows)]


def _shuffled(pages: list[str]) -> Callable[[], str]:
    """Give the pages in an order without a pattern, each as often as any other."""
    rounds = (page for _ in itertools.count() for page in random.sample(pages, len(pages)))
    return lambda: next(rounds)


async def beside_writes(bench: Bench) -> Findings:
    """Read cold pages at a steady rate, while nobody writes and while many do, in turn."""
    idle: list[float] = []
    busy: list[float] = []
    ratios: list[float] = []
    rates: list[float] = []
    async with bench.open() as settings:
        token = await sign_in(settings)
        async with projecting(settings), serving(settings, "queries") as api, serving(settings, "commands") as writing:
            views = _shuffled([f"{LISTING}?{view}" for view in VIEWS])
            async with reading(api, token, COLD_READS, views, _nothing_wrong, PAST_CACHES) as read:
                await asyncio.sleep(REST)
                for _ in bench.each_round("reads, idle and beside writes"):
                    quiet = await _span(read, bench.seconds)
                    written = Sent()
                    async with running(_write_on(writing, token, written)):
                        await asyncio.sleep(REST)
                        beside = await _span(read, bench.seconds)
                    await asyncio.sleep(REST)
                    ratios.append(percentile(beside, 99) / percentile(quiet, 99))
                    rates.append(len(written.at) / (max(written.at) - min(written.at)))
                    idle += quiet
                    busy += beside
    return Findings(
        figures=[
            median("cold reads' p99 beside writes, over idle", ratios, "times", at_most=2, aim=1.3),
            Figure(name="cold reads' p99, idle", value=percentile(idle, 99), unit="ms"),
            Figure(name="cold reads' p99 beside writes", value=percentile(busy, 99), unit="ms"),
            Figure(name="commands sent", value=statistics.median(rates), unit="/s", at_least=0.98 * BUSY),
            Figure(name="requests that failed", value=len(read.faults) + len(written.faults), at_most=0),
        ],
        plots=[
            Plot(
                title="Cold reads, idle and beside 200 commands a second",
                x_label="ms",
                y_label="% of reads",
                series=[distribution("idle", idle), distribution("beside writes", busy)],
                x_scale="log",
            )
        ],
        notes=[*read.faults[:3], *written.faults[:3]],
    )


async def _span(read: Sent, seconds: float) -> list[float]:
    """Let a time go by, and give how long the reads took that were sent in it."""
    started = time.monotonic()
    await asyncio.sleep(seconds)
    return read.between(started, time.monotonic())


async def _write_on(api: Settings, token: str, written: Sent) -> None:
    await write(api, token, BUSY, None, written)


def _nothing_wrong(_path: str, _answer: Answer) -> None:
    """A page of any length will do."""


MEASUREMENTS = (
    Measurement(
        "hits",
        "Hits beside writes",
        "100 reads a second of 20 different pages, in no order, while 2 commands a second announce, receive, correct"
        " and deliver parcels. The oracle is a cache that discards a page only when its bytes change: a read is its hit"
        " when the page's ETag is that of the read before.",
        hits,
        seconds=30,
        rounds=4,
    ),
    Measurement(
        "reads-beside-writes",
        "Cold reads beside writes",
        "20 cold pages a second, of 12 different ones, while nobody writes and while 200 commands a second are"
        " written, in turn. Queries and commands are served by a process each.",
        beside_writes,
    ),
)
