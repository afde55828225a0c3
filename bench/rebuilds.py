"""The rebuild under the readers' eyes, and the proof that both sides are equal."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass

from psycopg import sql

from bench.http import PAST_CACHES, Answer
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

READS = 20.0
WRITES = 10.0
"""Each second: many times what a shop of a million parcels a year has, whose pages mostly come from a cache."""
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
            reading(api, token, READS, _some_page, _check_page, PAST_CACHES) as read,
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
UPDATE {table} SET {column} = {changed}
WHERE ctid = (SELECT ctid FROM {table} WHERE {key} <> ALL(%(taken)s::text[]) ORDER BY random() LIMIT 1)
RETURNING {key}, ctid::text, OLD.{column}
"""

TRIALS_AT_ONCE = 10
"""Fields changed before each verification: of rows of their own, since rows are compared each by itself."""

RESTORE = "UPDATE {table} SET {column} = %(value)s WHERE ctid = %(ctid)s::tid"


@dataclass(frozen=True, slots=True)
class Trial:
    """One field that was changed by hand, how `verify` names its row, and the statement that puts it back."""

    model: Model
    column: str
    key: str
    ctid: str
    value: object

    def is_in(self, line: str) -> bool:
        """Tell whether the line names this row, and this field where a row has several."""
        names_field = self.model.name == "package_counts" or f": {self.column} is " in line
        return line.startswith(f"{self.model.name} {self.key}: ") and names_field


async def verify_finds(bench: Bench) -> Findings:
    """Change random fields by hand, a few rows at a time, look for each, and put them back, again and again."""
    chance = random.Random(1)  # noqa: S311 (the same trials each time)
    took: list[float] = []
    missed: list[str] = []
    surplus = 0
    async with bench.open() as settings, await connect(settings.postgres_dsn, "bench") as conn:
        untouched = await verify(settings)
        for first in range(0, bench.rounds, TRIALS_AT_ONCE):
            bench.report("fields changed by hand", first, bench.rounds)
            trials = await _tamper(conn, chance, min(TRIALS_AT_ONCE, bench.rounds - first))
            lines: list[str] = []
            started = time.perf_counter()
            found = await verify(settings, report=lines.append)
            took.append(time.perf_counter() - started)
            surplus += found - len(trials)
            missed += [
                f"{trial.model.name}.{trial.column} of {trial.key}"
                for trial in trials
                if not any(trial.is_in(line) for line in lines)
            ]
            for trial in trials:
                await _restore(conn, trial)
        bench.report("fields changed by hand", bench.rounds, bench.rounds)
    return Findings(
        figures=[
            Figure(name="changed fields that were not found and named", value=len(missed), at_most=0),
            Figure(name="differences found besides", value=surplus, at_most=0),
            Figure(name="trials", value=bench.rounds),
            Figure(name="differences before any was changed", value=untouched, at_most=0),
            Figure(name="a verification", value=statistics.median(took), unit="s", rounds=took, at_most=20),
            Figure(name="the longest verification", value=max(took), unit="s"),
        ],
        plots=[
            Plot(
                title="Verifications",
                x_label="verification",
                y_label="s",
                series=[by_round(f"{TRIALS_AT_ONCE} fields changed", took)],
                style="dots",
            )
        ],
        notes=missed[:5],
    )


async def _tamper(conn: Connection, chance: random.Random, count: int) -> list[Trial]:
    """Change a field of each of so many rows, no row twice, so that each is a trial of its own."""
    trials: dict[tuple[str, str], Trial] = {}
    while len(trials) < count:
        model = chance.choice(MODELS)
        column, type_ = chance.choice(await columns_of(conn, model))
        names = {"table": sql.Identifier(model.name), "column": sql.Identifier(column)}
        changed = sql.SQL(CHANGED[type_]).format(**names)
        key = sql.SQL(" || ' ' || ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in model.keys)
        taken = [row for name, row in trials if name == model.name]
        statement = sql.SQL(CHANGE).format(changed=changed, key=key, **names)
        row = await (await conn.execute(statement, {"taken": taken})).fetchone()
        if row is not None:
            trial = Trial(model, column, *row)
            trials[model.name, trial.key] = trial
    return list(trials.values())


async def _restore(conn: Connection, trial: Trial) -> None:
    names = {"table": sql.Identifier(trial.model.name), "column": sql.Identifier(trial.column)}
    await conn.execute(sql.SQL(RESTORE).format(**names), {"value": trial.value, "ctid": trial.ctid})


async def columns_of(conn: Connection, model: Model) -> list[tuple[str, str]]:
    """Give the columns that a trial may change, each with its type."""
    rows = await conn.execute(COLUMNS, {"table": model.name, "keys": list(model.keys)})
    return [(name, type_) for name, type_ in await rows.fetchall()]


MEASUREMENTS = (
    Measurement(
        "rebuild",
        "A rebuild while everything goes on",
        "`manage.py rebuild` of all read models, while readers ask for 20 pages a second past every cache, and clerks"
        " send 10 commands a second. Every page asked for has more rows than fit on it.",
        rebuild_while_serving,
        packages=1_000_000,
        seconds=15,
        rounds=3,
    ),
    Measurement(
        "verify",
        "One changed field among a million rows",
        "Each trial changes one random field of one random row of a random read model by hand, by as little as can be,"
        " and `verify` must name that row and that field. Ten trials, of ten rows, are looked for at a time, and"
        " nothing else may be found with them.",
        verify_finds,
        packages=1_000_000,
        rounds=100,
    ),
)
