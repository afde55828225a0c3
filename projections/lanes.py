"""Long work on all packages, cut into steps that a few connections do side by side, in one snapshot where need be."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from psycopg import sql

from db.pools import Connection
from projections.projector import open_snapshots

Report = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""

Step = Callable[[Connection], Coroutine[None, None, object]]
"""A piece of work for one lane."""

LANES = 2
"""Connections that fill and index side by side."""

# The sources group before they join, and of a group's number the planner has no idea: for a part, looking up is wrong.
# Nor does it know what a page out of order costs: in the order of an index it would walk a whole table for each part.
LANE = """
SELECT set_config('work_mem', '128MB', false), set_config('maintenance_work_mem', '256MB', false),
       set_config('enable_nestloop', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       set_config('max_parallel_maintenance_workers', '0', false)
"""


class Lanes:
    """Connections that work side by side; whoever asks first is served first."""

    def __init__(self, report: Report) -> None:
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        self._report = report

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, name: str, report: Report = lambda *_: None) -> AsyncIterator["Lanes"]:
        """Open the connections."""
        lanes = cls(report)
        async with AsyncExitStack() as stack:
            for _ in range(LANES):
                conn = await stack.enter_async_context(await open_snapshots(dsn, name, LANE))
                lanes._free.put_nowait(conn)
            yield lanes

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """Wait for a lane, and have it to oneself."""
        conn = await self._free.get()
        try:
            yield conn
        finally:
            self._free.put_nowait(conn)

    async def run(self, what: str, work: Sequence[Step]) -> None:
        """Do all of it, on whichever lane is free."""
        done = 0
        self._report(what, done, len(work))

        async def step(task: Step) -> None:
            nonlocal done
            async with self.one() as conn:
                await task(conn)
            done += 1
            self._report(what, done, len(work))

        async with asyncio.TaskGroup() as group:
            for task in work:
                group.create_task(step(task))


def within(exported: str, step: Step) -> Step:
    """Do the step in a transaction that sees what an exported snapshot shows."""

    async def run(conn: Connection) -> None:
        async with conn.transaction():
            await conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(exported)))
            await step(conn)

    return run


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give what failed first, of lanes that end with each other."""
    failure = failures.exceptions[0]
    return first_of(failure) if isinstance(failure, BaseExceptionGroup) else failure
