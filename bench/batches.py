"""What a projector's batch of one change costs, on a short and on a long log."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from bench.measurement import Measurement, in_turn
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench, Report
from db.pools import Connection, connect
from infra.clock import system_clock
from infra.settings import Settings
from projections.projector import open_projector, project_batch

SMALL_SHOP = 4000
"""Packages whose seeded lives are about 10,000 rows of the log."""

LONG = 10_000_000
YEAR, DECADE = 12, 120
"""Months over which a log is spread."""

WRITERS = 2

ADD_MONTH = "SELECT add_change_log_month(%(month)s)"

# Rows as commands write them, of transactions that had all ended before the checkpoint.
FILL = """
INSERT INTO change_log (package_id, type, version, data, at, logged_at, xid)
SELECT package_ids[1 + n %% cardinality(package_ids)], 'PackageCorrected', 2 + n %% 4,
       '{"after": {"observations": "visto"}}', spread.at, spread.at,
       (3 + (%(before)s::bigint * n / %(count)s))::text::xid8
FROM generate_series(0, %(count)s::bigint - 1) AS n,
     (SELECT array_agg(package_id) AS package_ids FROM packages) AS known,
     LATERAL (SELECT %(first)s + (%(next)s - %(first)s) * ((n + 0.5) / %(count)s::float8) AS at) AS spread
"""

CHANGE_ONE = """
WITH changed AS (
    UPDATE packages SET observations = 'visto', version = version + 1
    WHERE package_id = (SELECT package_id FROM packages OFFSET %(offset)s LIMIT 1)
    RETURNING package_id, version)
INSERT INTO change_log (package_id, type, version, at)
SELECT package_id, 'PackageCorrected', version, clock_timestamp() FROM changed
"""


async def batch_by_log(bench: Bench) -> Findings:
    """Take in one change at a time, on each log in turn."""
    logs = {
        "10,000 rows in a year": (0, YEAR),
        "10,000,000 rows in a year": (LONG, YEAR),
        "10,000,000 rows in ten years": (LONG, DECADE),
    }
    async with AsyncExitStack() as stack:
        variants = {}
        for name, (rows, months) in logs.items():
            settings = await stack.enter_async_context(bench.open())
            await _lengthen(settings, rows * bench.packages // SMALL_SHOP, months, bench.report, name)
            writer = await stack.enter_async_context(await connect(settings.postgres_dsn, "bench"))
            projector = await stack.enter_async_context(await open_projector(settings.postgres_dsn))
            variants[name] = partial(_one_at_a_time, writer, projector, bench.seconds, bench.packages)
            await variants[name]()
        measured = await in_turn(variants, bench.rounds, bench.report)
    short, long, split = measured.values()
    return Findings(
        figures=[
            ratio("10,000,000 rows over 10,000", long, short, at_most=1.25),
            ratio("120 months over 12, at 10,000,000 rows", split, long),
            *(median(f"a batch at {name}", values, "ms") for name, values in measured.items()),
        ],
        plots=[rounds_plot("A batch of one change", "ms", measured)],
    )


async def _lengthen(settings: Settings, rows: int, months: int, report: Report, name: str) -> None:
    """Give the log its months, and rows spread over them."""
    this = datetime.now(UTC)
    spans = [(month_before(this, ago), month_before(this, ago - 1)) for ago in range(months, 0, -1)]
    filled = 0

    async def fill(conn: Connection, lane: int) -> None:
        nonlocal filled
        row = await (await conn.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 4")).fetchone()
        for first, last in spans[lane::WRITERS]:
            values: dict[str, Any] = {"first": first, "next": last, "count": rows // months, "before": row and row[0]}
            await conn.execute(FILL, values)
            filled += rows // months
            report(f"a log of {name}", filled, rows)

    async with AsyncExitStack() as stack:
        dsn = settings.postgres_dsn
        writers = [await stack.enter_async_context(await connect(dsn, "bench")) for _ in range(WRITERS)]
        for first, _ in spans:
            await writers[0].execute(ADD_MONTH, {"month": date(first.year, first.month, 1)})
        if rows:
            async with asyncio.TaskGroup() as group:
                for lane, writer in enumerate(writers):
                    group.create_task(fill(writer, lane))
        await writers[0].execute("VACUUM (ANALYZE) change_log")
        await writers[0].execute("CHECKPOINT")


def month_before(now: datetime, months: int) -> datetime:
    """Give the first instant of the month that was so many months ago (UTC)."""
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


async def _one_at_a_time(writer: Connection, projector: Connection, seconds: float, packages: int) -> float:
    """Give the median milliseconds of a batch of one change."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await writer.execute(CHANGE_ONE, {"offset": 7919 * len(took) % packages})
        started = time.perf_counter()
        await project_batch(projector, system_clock)
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


MEASUREMENTS = (
    Measurement(
        "batch-by-log",
        "A batch on a long log",
        "The projector takes in one change at a time, with a log of about 10,000 rows in 12 monthly partitions, of"
        " 10,000,000 rows in as many, and of 10,000,000 rows in 120.",
        batch_by_log,
        packages=SMALL_SHOP,
        seconds=3,
    ),
)
