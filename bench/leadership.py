"""How long nobody projects, after the leader was killed and after it froze."""

import signal
import statistics
import time
from collections.abc import Sequence
from functools import partial

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


async def leader_gone(bench: Bench) -> Findings:
    """Take the leader away, and wait until the standby leads; each round with a new standby."""
    killed: list[float] = []
    frozen: list[float] = []
    async with bench.open() as settings, await connect(settings.postgres_dsn, "bench") as conn:
        for times, number, rounds in (
            (killed, signal.SIGKILL, bench.rounds),
            (frozen, signal.SIGSTOP, bench.rounds // 3),
        ):
            what = f"leaders that got {number.name}"
            for done in range(rounds):
                bench.report(what, done, rounds)
                times.append(await _take_over(settings, conn, number))
            bench.report(what, rounds, rounds)
    return Findings(
        figures=[
            Figure(
                name="killed: until the standby leads, longest", value=max(killed), unit="s", at_most=2, rounds=killed
            ),
            Figure(name="killed: median", value=statistics.median(killed), unit="s"),
            *_of_frozen(frozen),
        ],
        plots=[
            Plot(
                title="Until the standby leads",
                x_label="round",
                y_label="s",
                series=[by_round("killed", killed), by_round("frozen", frozen)],
                style="dots",
            )
        ],
    )


def _of_frozen(times: Sequence[float]) -> list[Figure]:
    if not times:
        return []
    name = "frozen, its connection up: until the standby leads, longest"
    return [Figure(name=name, value=max(times), unit="s", at_most=15, rounds=list(times))]


async def _take_over(settings: Settings, conn: Connection, number: signal.Signals) -> float:
    processes: list[Process] = []
    try:
        for candidates in (1, 2):
            processes.append(await start(settings, "manage.py", "project"))
            await wait_until(partial(_has, conn, CANDIDATES, candidates))
            await wait_until(lambda: _leads_another(conn, None))
        first = await _one(conn, LEADER)
        started = time.perf_counter()
        processes[0].send_signal(number)
        await wait_until(lambda: _leads_another(conn, first), LOOK)
        return time.perf_counter() - started
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
            await stop(process)


async def _one(conn: Connection, statement: str) -> int | None:
    row = await (await conn.execute(statement.encode())).fetchone()
    return int(row[0]) if row else None


async def _has(conn: Connection, statement: str, value: int) -> bool:
    return await _one(conn, statement) == value


async def _leads_another(conn: Connection, than: int | None) -> bool:
    leader = await _one(conn, LEADER)
    return leader is not None and leader != than


MEASUREMENTS = (
    Measurement(
        "leadership",
        "From one leader to the next",
        "Of two projectors the one that leads is killed, or frozen with its connection up, and the time is taken until"
        " the database has given the lead to the other.",
        leader_gone,
        packages=10_000,
        rounds=10,
    ),
)
