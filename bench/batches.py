"""What a projector's batch costs: one change on a short and on a long log, and thousands at a time."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from bench.measurement import Measurement, Variant, in_turn
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench, Report
from db.page_cache import EpochKeeper
from db.pools import Connection, connect
from db.projection_health import measure
from db.redis_clients import make_redis
from infra.clock import system_clock
from infra.settings import Settings
from infra.tasks import running
from projections.projector import LARGEST_BATCH, open_projector, project_batch, project_pending
from projections.word_indexes import keep_sorted

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

SIZES = (1000, LARGEST_BATCH)
"""Log rows that a batch may have."""

CHANGES = 20_000
"""Changes that wait each time, each of them in a transaction of its own."""

UPDATE_EACH = """
DO $$
DECLARE id uuid;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', false);
    FOR id IN SELECT package_id FROM packages ORDER BY md5(package_id::text || {round}) LIMIT {count} LOOP
        UPDATE packages SET observations = 'visto ' || {round}, version = version + 1 WHERE package_id = id;
        INSERT INTO change_log (package_id, type, at) VALUES (id, 'PackageCorrected', clock_timestamp());
        COMMIT;
    END LOOP;
END $$
"""

# A code that a seeded parcel has by chance is passed over: one new parcel fewer.
ANNOUNCE_EACH = """
DO $$
DECLARE customer record; number bigint := 0;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', false);
    FOR customer IN
        SELECT customer_id, name FROM customers, generate_series(1, 10) ORDER BY md5(customer_id::text || {round})
        LIMIT {count}
    LOOP
        number := number + 1;
        WITH added AS (
            INSERT INTO packages (guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id,
                announced_at)
            SELECT {guide}, {code}, customer.customer_id, customer.name,
                (SELECT site_id FROM sites ORDER BY code LIMIT 1), 'ANNOUNCED',
                (SELECT tariff_id FROM tariffs ORDER BY valid_from DESC LIMIT 1), clock_timestamp()
            ON CONFLICT (tracking_code) DO NOTHING
            RETURNING package_id, customer_id)
        INSERT INTO change_log (package_id, customer_id, type, at)
        SELECT package_id, customer_id, 'PackageAnnounced', clock_timestamp() FROM added;
        COMMIT;
    END LOOP;
END $$
"""

STAGES = 3
"""Changes of a parcel's life."""

# Announced, received and handed over, as at a counter while the projector is away: a parcel is derived once for all.
LIVE_EACH = """
DO $$
DECLARE customer record; place record; id uuid; number bigint := 0;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', false);
    SELECT position_id, site_id INTO place FROM positions WHERE package_id IS NULL ORDER BY ordinal LIMIT 1;
    FOR customer IN
        SELECT customer_id, name FROM customers ORDER BY md5(customer_id::text || {round})
        LIMIT {count} / {stages}
    LOOP
        number := number + 1;
        INSERT INTO packages (guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id,
            announced_at)
        SELECT {guide}, {code}, customer.customer_id, customer.name, place.site_id,
            'ANNOUNCED', (SELECT tariff_id FROM tariffs ORDER BY valid_from DESC LIMIT 1), clock_timestamp()
        ON CONFLICT (tracking_code) DO NOTHING
        RETURNING package_id INTO id;
        CONTINUE WHEN id IS NULL;
        INSERT INTO change_log (package_id, customer_id, type, at)
        VALUES (id, customer.customer_id, 'PackageAnnounced', clock_timestamp());
        COMMIT;
        UPDATE positions SET package_id = id WHERE position_id = place.position_id;
        UPDATE packages SET status = 'RECEIVED', package_type = 'NORMAL', condition = 'GOOD', version = 2,
            position_id = place.position_id, received_at = clock_timestamp() WHERE package_id = id;
        INSERT INTO change_log (package_id, type, at) VALUES (id, 'PackageReceived', clock_timestamp());
        COMMIT;
        UPDATE positions SET package_id = NULL WHERE position_id = place.position_id;
        UPDATE packages SET status = 'DELIVERED', version = 3, position_id = NULL, delivered_at = clock_timestamp()
        WHERE package_id = id;
        INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, at)
        VALUES (id, 1500, 0, 0, 1500, 1500, clock_timestamp());
        INSERT INTO payments (package_id, site_id, method, amount, due, staff_id, at)
        SELECT id, place.site_id, 'CASH', 1500, 1500, staff_id, clock_timestamp() FROM staff LIMIT 1;
        INSERT INTO change_log (package_id, type, at) VALUES (id, 'PackageDelivered', clock_timestamp());
        COMMIT;
    END LOOP;
END $$
"""

# The floor: what PostgreSQL alone takes to write as many rows to the same tables, known beforehand, nothing derived.
BARE = {
    "updates": (
        """
        CREATE TEMPORARY TABLE finished AS
        SELECT package_id, version + 1 AS version, 'visto ' || {round} AS observations
        FROM package_listing ORDER BY md5(package_id::text || {round}) LIMIT {count}
        """,
        """
        UPDATE package_listing AS l SET version = f.version, observations = f.observations
        FROM finished AS f WHERE f.package_id = l.package_id
        """,
    ),
    "new parcels": (
        """
        CREATE TEMPORARY TABLE finished AS
        SELECT (jsonb_populate_record(l, jsonb_build_object(
            'package_id', uuidv7(), 'status', 'ANNOUNCED', 'tracking_code', md5(tracking_code || {round})))).*,
            ' ' || md5(tracking_code || {round}) || s.text AS text
        FROM package_listing AS l JOIN package_search AS s USING (package_id)
        ORDER BY md5(package_id::text || {round}) LIMIT {count}
        """,
        """
        WITH searched AS (INSERT INTO package_search SELECT package_id, announced_at, text FROM finished)
        INSERT INTO package_listing SELECT {columns} FROM finished
        """,
    ),
}

COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = 'package_listing'::regclass AND attnum > 0 AND NOT attisdropped
"""

GUIDE = "'BENCH-' || lpad('{round}', 4, '0') || '-' || lpad(number::text, 6, '0')"
CODE = "translate(lpad(to_hex(x'80000000'::bigint + {round} * 65536 + number), 8, '2'), '01abcdef', 'GHABCDEF')"


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


async def changes_a_second(bench: Bench) -> Findings:
    """Let changes of one kind wait, and take them all in, by each batch size in turn."""
    async with bench.open() as settings, AsyncExitStack() as stack:
        writer = await stack.enter_async_context(await connect(settings.postgres_dsn, "bench"))
        projector = await stack.enter_async_context(await open_projector(settings.postgres_dsn))
        keeper = EpochKeeper(await stack.enter_async_context(make_redis(settings)))
        await keeper.begin()
        statements = {"updates": UPDATE_EACH, "new parcels": ANNOUNCE_EACH, "whole lives": LIVE_EACH}
        changes = min(CHANGES, bench.packages)
        done = 0

        async def rate(statement: str, size: int) -> float:
            nonlocal done
            done += 1
            names = {"code": CODE.format(round=done), "guide": GUIDE.format(round=done)}
            values = {"round": done, "count": changes, "stages": STAGES, **names}
            await writer.execute(statement.format(**values).encode())
            waiting = (await measure(writer, system_clock())).lag
            await writer.execute("CHECKPOINT")
            started = time.perf_counter()
            await project_pending(projector, keeper, largest=size)
            return waiting / (time.perf_counter() - started)

        async def bare_rate(kind: str) -> float:
            nonlocal done
            done += 1
            row = await (await writer.execute(COLUMNS)).fetchone()
            values = {"round": done, "count": min(LARGEST_BATCH, changes), "columns": row and row[0]}
            known, written = (statement.format(**values).encode() for statement in BARE[kind])
            await writer.execute(known)
            await writer.execute("CHECKPOINT")
            started = time.perf_counter()
            count = (await writer.execute(written)).rowcount
            seconds = time.perf_counter() - started
            await writer.execute("DROP TABLE finished")
            return count / seconds

        variants: dict[str, Variant] = {}
        for kind, statement in statements.items():
            variants |= {_batches(kind, size): partial(rate, statement, size) for size in SIZES}
        variants |= {f"{kind}, one bare statement": partial(bare_rate, kind) for kind in BARE}
        async with running(keep_sorted(settings)):  # as beside the projector of a shop
            measured = await in_turn(variants, bench.rounds, bench.report)
    largest = {kind: _batches(kind, LARGEST_BATCH) for kind in statements}
    over = [
        ratio(f"{kind} over one bare statement", measured[largest[kind]], measured[f"{kind}, one bare statement"])
        for kind in BARE
    ]
    return Findings(
        figures=[
            *over,
            *(
                median(name, rates, "/s", at_least=20_000 if name in largest.values() else None)
                for name, rates in measured.items()
            ),
        ],
        plots=[rounds_plot("Changes taken in", "changes a second", measured)],
    )


def _batches(kind: str, size: int) -> str:
    return f"{kind}, batches of {size:,}"


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
    Measurement(
        "changes",
        "Changes that the projector takes in",
        "20,000 changes wait, each in a transaction of its own: corrections of as many parcels spread over the shop,"
        " as many new parcels, and the whole lives of a third as many, announced, received and handed over. The time"
        " is from reading the log to the last announcement; beside it, the rows of the first two, known beforehand,"
        " written to the same tables by one statement of PostgreSQL's.",
        changes_a_second,
    ),
)
