"""How many changes a second the projector takes in, when thousands wait."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from bench.measurement import Measurement, Variant, in_turn
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench
from db.page_cache import EpochKeeper
from db.pools import Connection, connect
from db.projection_health import measure
from db.redis_clients import make_redis
from infra.clock import system_clock
from infra.tasks import running
from projections.projector import LARGEST_BATCH, open_projector, project_pending
from projections.word_indexes import keep_sorted

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
        SELECT n.*, package_words(n.customer_name, n.recipient_name, n.customer_phone, n.guide_number, n.guide_key,
            n.tracking_code, n.other_codes) AS text
        FROM (
            SELECT row_number() OVER (ORDER BY md5(l.package_id::text || copy)) AS number, l
            FROM package_listing AS l CROSS JOIN generate_series(1, 10) AS copy
            WHERE l.status = 'ANNOUNCED' LIMIT {count}
        ) AS chosen CROSS JOIN jsonb_populate_record(l, jsonb_build_object('package_id', uuidv7(),
            'guide_number', {guide}, 'guide_key', code_key({guide}), 'tracking_code', {code},
            'announced_at', clock_timestamp())) AS n
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

KINDS = {"updates": UPDATE_EACH, "new parcels": ANNOUNCE_EACH, "whole lives": LIVE_EACH}


@dataclass(slots=True)
class Backlog:
    """Lets changes wait, and times who takes them in; each time gives other parcels, by its number."""

    writer: Connection
    projector: Connection
    keeper: EpochKeeper
    changes: int
    number: int = 0

    async def rate(self, kind: str, size: int, *, after_checkpoint: bool = False) -> float:
        """Give the changes a second of the projector, with batches of this size."""
        self.number += 1
        statement = KINDS[kind].format(round=self.number, count=self.changes, stages=STAGES, **self._names())
        await self.writer.execute(statement.encode())
        waiting = (await measure(self.writer, system_clock())).lag
        if after_checkpoint:
            await self.writer.execute("CHECKPOINT")
        started = time.perf_counter()
        await project_pending(self.projector, self.keeper, largest=size)
        return waiting / (time.perf_counter() - started)

    def _names(self) -> dict[str, str]:
        """Give the expressions that name a new parcel by its number."""
        return {"code": CODE.format(round=self.number), "guide": GUIDE.format(round=self.number)}

    async def bare_rate(self, kind: str) -> float:
        """Give the rows a second of one statement that writes what is known already."""
        self.number += 1
        row = await (await self.writer.execute(COLUMNS)).fetchone()
        values = {"round": self.number, "count": min(LARGEST_BATCH, self.changes), "columns": row and row[0]}
        values |= self._names()
        known, written = (statement.format(**values).encode() for statement in BARE[kind])
        await self.writer.execute(known)
        started = time.perf_counter()
        count = (await self.writer.execute(written)).rowcount
        seconds = time.perf_counter() - started
        await self.writer.execute("DROP TABLE finished")
        return count / seconds


async def changes_a_second(bench: Bench) -> Findings:
    """Let changes of one kind after the other wait, and take them all in, by each batch size in turn."""
    measured: dict[str, list[float]] = {}
    for kind in KINDS:
        async with _backlog(bench) as backlog:  # in a shop of its own, that others don't make larger meanwhile
            variants: dict[str, Variant] = {_batches(kind, size): partial(backlog.rate, kind, size) for size in SIZES}
            late = partial(backlog.rate, kind, LARGEST_BATCH, after_checkpoint=True)
            variants |= {f"{kind}, just after a checkpoint": late}
            if kind in BARE:
                variants |= {f"{kind}, one bare statement": partial(backlog.bare_rate, kind)}
            measured |= await in_turn(variants, bench.rounds, bench.report)
    largest = {kind: _batches(kind, LARGEST_BATCH) for kind in KINDS}
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


@asynccontextmanager
async def _backlog(bench: Bench) -> AsyncIterator[Backlog]:
    async with bench.open() as settings, AsyncExitStack() as stack:
        writer = await stack.enter_async_context(await connect(settings.postgres_dsn, "bench"))
        projector = await stack.enter_async_context(await open_projector(settings.postgres_dsn))
        keeper = EpochKeeper(await stack.enter_async_context(make_redis(settings)))
        await keeper.begin()
        async with running(keep_sorted(settings)):  # as beside the projector of a shop
            yield Backlog(writer, projector, keeper, min(CHANGES, bench.packages))


def _batches(kind: str, size: int) -> str:
    return f"{kind}, batches of {size:,}"


MEASUREMENTS = (
    Measurement(
        "changes",
        "Changes that the projector takes in",
        "20,000 changes wait, each in a transaction of its own: corrections of as many parcels spread over the shop,"
        " as many new parcels, and the whole lives of a third as many, announced, received and handed over; each kind"
        " in a shop of its own. The time is from reading the log to the last announcement. Just after a checkpoint"
        " PostgreSQL also logs each block whole that is touched first. Beside the first two, their rows, known"
        " beforehand, written to the same tables by one statement of PostgreSQL's.",
        changes_a_second,
    ),
)
