"""The rebuild under the readers' eyes, and the proof that both sides are equal."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass

from psycopg import sql

from bench.http import Answer
from bench.measurement import Measurement
from bench.programs import projecting, serving, start
from bench.results import Figure, Findings, Plot, by_round, distribution, percentile
from bench.shops import Bench
from bench.traffic import Sent, reading, sign_in, write
from db.pools import Connection, connect
from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.tasks import running
from projections.verify import verify

READS = 40.0
WRITES = 20.0
LIMIT = 50
PAUSE = 2.0
"""Seconds after a rebuild in which the machine comes to rest."""

VIEWS = (
    "/packages?status=DELIVERED",
    "/packages?status=DELIVERED&sort=oldest",
    "/packages?sort=newest",
    "/packages?status=RECEIVED&sort=owed",
    "/packages?q=garcia",
)
"""Each has far more than a page."""


async def rebuild_while_serving(bench: Bench) -> Findings:
    """Read and write all the time; compare the reads of quiet spans with those beside `manage.py rebuild`."""
    took: list[float] = []
    ratios: list[float] = []
    quiet: list[float] = []
    beside: list[float] = []
    async with bench.open() as settings:
        token = await sign_in(settings)
        written = Sent()
        async with (
            projecting(settings),
            serving(settings, "all") as api,
            reading(api, token, READS, _some_page, _check_page) as read,
            running(_write(api, token, written)),
        ):
            await asyncio.sleep(PAUSE)
            for number in range(bench.rounds):
                bench.report("rebuilds beside reads and writes", number, bench.rounds)
                begun = time.monotonic()
                await asyncio.sleep(bench.seconds)
                started = time.monotonic()
                await _run(settings, "rebuild")
                ended = time.monotonic()
                took.append(ended - started)
                quiet += read.between(begun, started)
                beside += read.between(started, ended)
                ratios.append(
                    percentile(read.between(started, ended), 99) / percentile(read.between(begun, started), 99)
                )
                await asyncio.sleep(PAUSE)
            bench.report("rebuilds beside reads and writes", bench.rounds, bench.rounds)
        differences = await verify(settings)
    short = [fault for fault in read.faults if fault.startswith(SHORT)]
    failed = [fault for fault in (*read.faults, *written.faults) if fault not in short]
    return Findings(
        figures=[
            Figure(name="a rebuild", value=statistics.median(took), unit="s", rounds=took, at_most=30),
            Figure(
                name="reads' p99, beside over before",
                value=statistics.median(ratios),
                rounds=ratios,
                unit="times",
                at_most=3,
            ),
            Figure(name="reads' p99 before", value=percentile(quiet, 99), unit="ms"),
            Figure(name="reads' p99 beside a rebuild", value=percentile(beside, 99), unit="ms"),
            Figure(name="the longest read beside a rebuild", value=max(beside), unit="ms"),
            Figure(name="short pages", value=len(short), at_most=0),
            Figure(name="requests that failed", value=len(failed), at_most=0),
            Figure(name="differences that verify finds afterwards", value=differences, at_most=0),
        ],
        plots=[
            Plot(
                title="Reads, before and beside a rebuild",
                x_label="ms",
                y_label="% of reads",
                series=[distribution("before", quiet), distribution("beside a rebuild", beside)],
                x_scale="log",
            )
        ],
        notes=[*failed[:3], *short[:3]],
    )


SHORT = "a short page: "


def _some_page() -> str:
    return f"{random.choice(VIEWS)}&limit={LIMIT}"  # noqa: S311 (a sample, not a secret)


def _check_page(path: str, answer: Answer) -> str | None:
    found = len(answer.json()["items"])
    return None if found == LIMIT else f"{SHORT}{found} of {LIMIT} at {path}"


async def _write(api: Settings, token: str, written: Sent) -> None:
    await write(api, token, WRITES, None, written)


async def _run(settings: Settings, command: str) -> None:
    process = await start(settings, "manage.py", command)
    if await process.wait():
        raise ConfigurationError(f"manage.py {command} failed: see its log in {settings.data_dir}")


@dataclass(frozen=True, slots=True)
class Model:
    """A read model, and the columns by which its rows are found."""

    name: str
    keys: tuple[str, ...]


MODELS = (
    Model("package_listing", ("package_id",)),
    Model("package_search", ("package_id",)),
    Model("customer_listing", ("customer_id",)),
    Model("payment_listing", ("payment_id",)),
    Model("package_counts", ("site", "status")),
)

COLUMNS = """
SELECT column_name, udt_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %(table)s AND column_name <> ALL(%(keys)s)
"""

CHANGED = {
    "text": "coalesce({column}, '') || 'x'",
    "int4": "coalesce({column}, 0) + 1",
    "int8": "coalesce({column}, 0) + 1",
    "uuid": "gen_random_uuid()",
    "timestamptz": "coalesce({column}, now()) + interval '1 microsecond'",
    "_text": "coalesce({column}, '{{}}') || 'X'::text",
    "bool": "NOT {column}",
}
"""The smallest change of a value of each type."""

CHANGE = """
UPDATE {table} SET {column} = {changed} WHERE ctid = (SELECT ctid FROM {table} ORDER BY random() LIMIT 1)
RETURNING ctid::text, OLD.{column}
"""

RESTORE = "UPDATE {table} SET {column} = %(value)s WHERE ctid = %(ctid)s::tid"


async def verify_finds(bench: Bench) -> Findings:
    """Change one random field by hand, look for it, and put it back, again and again."""
    chance = random.Random(1)  # noqa: S311 (the same trials each time)
    took: list[float] = []
    missed: list[str] = []
    async with bench.open() as settings, await connect(settings.postgres_dsn, "bench") as conn:
        untouched = await verify(settings)
        for number in range(bench.rounds):
            bench.report("fields changed by hand", number, bench.rounds)
            model = chance.choice(MODELS)
            column, type_ = chance.choice(await columns_of(conn, model))
            names = {"table": sql.Identifier(model.name), "column": sql.Identifier(column)}
            changed = sql.SQL(CHANGED[type_]).format(**names)
            row = await (await conn.execute(sql.SQL(CHANGE).format(changed=changed, **names))).fetchone()
            ctid, value = row or ("", None)
            lines: list[str] = []
            started = time.perf_counter()
            found = await verify(settings, report=lines.append)
            took.append(time.perf_counter() - started)
            if found != 1 or not lines or not lines[0].startswith(model.name):
                missed.append(f"{model.name}.{column}: {found} differences, {lines[:2]}")
            await conn.execute(sql.SQL(RESTORE).format(**names), {"value": value, "ctid": ctid})
        bench.report("fields changed by hand", bench.rounds, bench.rounds)
    return Findings(
        figures=[
            Figure(name="changed fields that were not found", value=len(missed), at_most=0),
            Figure(name="trials", value=bench.rounds),
            Figure(name="differences before any was changed", value=untouched, at_most=0),
            Figure(name="a verification", value=statistics.median(took), unit="s"),
            Figure(name="the longest verification", value=max(took), unit="s"),
        ],
        plots=[
            Plot(
                title="Verifications",
                x_label="trial",
                y_label="s",
                series=[by_round("one field changed", took)],
                style="dots",
            )
        ],
        notes=missed[:5],
    )


async def columns_of(conn: Connection, model: Model) -> list[tuple[str, str]]:
    """Give the columns that a trial may change, each with its type."""
    rows = await conn.execute(COLUMNS, {"table": model.name, "keys": list(model.keys)})
    return [(name, type_) for name, type_ in await rows.fetchall()]


MEASUREMENTS = (
    Measurement(
        "rebuild",
        "A rebuild while everything goes on",
        "`manage.py rebuild` of all read models, while readers ask for 40 pages a second that no cache has, and clerks"
        " send 20 commands a second. Every page asked for has more rows than fit on it.",
        rebuild_while_serving,
        packages=1_000_000,
        seconds=20,
    ),
    Measurement(
        "verify",
        "One changed field among a million rows",
        "Each trial changes one random field of one random row of a random read model by hand, by as little as can be,"
        " and `verify` must find that one difference.",
        verify_finds,
        packages=1_000_000,
        rounds=100,
    ),
)
