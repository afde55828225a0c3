"""How long nobody projects, after the leader was killed, froze, or was cut off."""

import signal
import statistics
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from bench.lines import Line
from bench.measurement import Measurement
from bench.programs import Process, start, stop, wait_until
from bench.results import Figure, Findings, Plot, by_round
from bench.shops import Bench
from db.pools import Connection, connect
from infra.settings import Settings

# Whoever holds the lock, and whoever has come to ask for it.
LEADER = """
SELECT l.pid FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid::bigint << 32 | l.objid::bigint = hashtextextended('paqueteria.project', 0)
"""
CANDIDATES = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'paqueteria leader' AND datname = current_database()
"""

LOOK = 0.005
SHARE_OF_SLOW = 3
"""Of the slower ways to go, this fraction of the rounds."""

Strike = Callable[[Process], None]


async def leader_gone(bench: Bench) -> Findings:
    """Take the leader away, and wait until the standby leads; each round with two new processes."""
    async with bench.open() as settings, await connect(settings.postgres_dsn, "bench") as conn:
        take = partial(_take_over, settings, conn)
        slow = max(1, bench.rounds // SHARE_OF_SLOW)
        ways: dict[str, tuple[int, Callable[[], Awaitable[float]]]] = {
            "killed": (bench.rounds, partial(take, settings, _signal(signal.SIGKILL))),
            "frozen": (slow, partial(take, settings, _signal(signal.SIGSTOP))),
            "cut off": (slow, partial(_cut_off, settings, conn)),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for way, (rounds, lose) in ways.items():
            for done in range(rounds):
                bench.report(f"leaders {way}", done, rounds)
                times[way].append(await lose())
            bench.report(f"leaders {way}", rounds, rounds)
    bars = {"killed": 2, "frozen": 15, "cut off": 15}
    return Findings(
        figures=[
            *(
                Figure(
                    name=f"{way}: longest until another leads",
                    value=max(values),
                    unit="s",
                    at_most=bars[way],
                    rounds=values,
                )
                for way, values in times.items()
            ),
            Figure(name="killed: median", value=statistics.median(times["killed"]), unit="s"),
        ],
        plots=[
            Plot(
                title="Until the standby leads",
                x_label="round",
                y_label="s",
                series=[by_round(way, values) for way, values in times.items()],
                style="dots",
            )
        ],
    )


def _signal(number: signal.Signals) -> Strike:
    return lambda process: process.send_signal(number)


async def _cut_off(settings: Settings, conn: Connection) -> float:
    line = Line()
    async with line.to_postgres(settings) as over_line:
        return await _take_over(settings, conn, over_line, lambda _: line.cut())


async def _take_over(settings: Settings, conn: Connection, of_first: Settings, strike: Strike) -> float:
    """Give the seconds from the strike at the first projector until the second one leads."""
    processes: list[Process] = []
    try:
        for candidates, of_this in enumerate((of_first, settings), 1):
            processes.append(await start(of_this, "manage.py", "project"))
            await wait_until(partial(_are_candidates, conn, candidates))
            await wait_until(partial(_leads_another, conn, None))
        first = await _one(conn, LEADER)
        started = perf_counter()
        strike(processes[0])
        await wait_until(partial(_leads_another, conn, first), LOOK)
        return perf_counter() - started
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
            await stop(process)


async def _one(conn: Connection, statement: str) -> int | None:
    row = await (await conn.execute(statement.encode())).fetchone()
    return int(row[0]) if row else None


async def _are_candidates(conn: Connection, count: int) -> bool:
    return await _one(conn, CANDIDATES) == count


async def _leads_another(conn: Connection, than: int | None) -> bool:
    leader = await _one(conn, LEADER)
    return leader is not None and leader != than


MEASUREMENTS = (
    Measurement(
        "leadership",
        "From one leader to the next",
        "Of two projectors the one that leads is killed; or frozen, with its connection up; or cut off, so that its"
        " connection is dead without a word to either end. The time is taken until the database has given the lead to"
        " the other.",
        leader_gone,
        packages=10_000,
        rounds=10,
    ),
)
