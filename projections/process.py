"""The process that projects: of several, one leads, which alone projects, vouches for the cache, runs the schedule."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from db import change_log, projection_health, scheduled_runs
from db.leadership import LEAD
from db.page_cache import HEARTBEAT, EpochKeeper
from db.pools import Connection, connect, cut_off
from db.redis_clients import make_redis
from infra import logs, metrics, process_figures, tracing
from infra.clock import Clock, system_clock
from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.tasks import heed_cancellation, running
from projections.batch_changes import forget_batch_changes
from projections.incarnation import needs_rebuild, renew_if_restored
from projections.projector import Fenced, open_projector, project_pending
from projections.rebuild import rebuild
from projections.refresh import refresh_views
from projections.verify import scheduled_verify
from projections.word_indexes import keep_sorted

log = logs.get("projections")

POLL = 0.05
"""Seconds between looks at the log when nobody signals: a lost signal costs this much."""

STAND_BY = 0.25
"""Seconds between a standby's tries to take the lead, and before a leader that failed tries again."""


LEAD_LEASE = "SET idle_session_timeout = '5s'"
"""The server itself takes the lead from a process that is frozen: its connection stays up, but says nothing."""

LEASE_PATIENCE = 4.0
"""Seconds without an answer on the lock's connection after which a leader takes the lead for lost."""

LOOK_WHETHER_DUE = 60.0
"""Seconds between looks whether a proof is due: a new leader doesn't make one that was made a moment ago."""

REBUILD_EVERY = 2.0
"""Seconds between tries of a rebuild that a restore asks for; somebody else's may be running."""


OUTCOMES = {EVENT_JOB_ERROR: "failed", EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "overlapping"}
"""What keeps a run from being done, by the scheduler's word for it."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is due every so many seconds, on a connection of its own, given the time.

    What it gives, a number or something of JSON, is noted. One that `rests` isn't run again for so many seconds, also
    when another leads.
    """

    name: str
    seconds: float
    run: Callable[[Connection, datetime], Awaitable[object]]
    rests: float = 0.0


async def run(settings: Settings, clock: Clock = system_clock, jobs: Sequence[Job] = ()) -> None:
    """Stand by, lead, and stand by again after a failure, until cancelled."""
    settings = settings.for_projector()
    jobs = _schedule(settings, jobs)
    tracing.configure()
    metrics.PROJECTION_LEADER.set(0)
    _count_from_zero(jobs)
    watches = (projection_health.watch(settings.postgres_dsn, clock), process_figures.report("projector"))
    async with make_redis(settings) as redis, running(*watches):
        while True:
            try:
                await _lead(settings, clock, EpochKeeper(redis), jobs)
            except* (psycopg.Error, OSError) as failures:
                log.warning("lead_lost", errors=[logs.reason(error) for error in failures.exceptions])
            heed_cancellation()  # a group whose child fails at that moment tells of the failure alone
            metrics.PROJECTION_LEADER.set(0)
            await asyncio.sleep(STAND_BY)


async def _lead(settings: Settings, clock: Clock, keeper: EpochKeeper, jobs: Sequence[Job]) -> None:
    """Take the lead once it is free, and keep it until something fails."""
    async with (
        await connect(settings.postgres_dsn, "leader") as lock,
        await open_projector(settings.postgres_dsn) as conn,
        await connect(settings.postgres_dsn, "projector wake-up") as wake_up,
    ):
        await lock.execute(LEAD_LEASE)
        await _take_lead(lock)
        log.info("leading")
        metrics.PROJECTION_LEADER.set(1)
        await renew_if_restored(lock, clock())
        await keeper.begin_anew()
        async with running(
            _keep_lease(lock, keeper),
            _keep_schedule(settings, clock, jobs),
            _rebuild_if_restored(settings, clock),
            keep_sorted(settings),
        ):
            await wake_up.execute(f"LISTEN {change_log.CHANNEL}".encode())
            known: int | None = None
            while True:
                try:
                    known = await project_pending(conn, keeper, clock, known=known)
                except Fenced:  # a rebuild or a repair moved the checkpoint, and the lead is still ours
                    log.info("fenced")
                async for _ in wake_up.notifies(timeout=POLL, stop_after=1):
                    pass
                heed_cancellation()


async def _take_lead(lock: Connection) -> None:
    while True:
        row = await (await lock.execute(LEAD)).fetchone()
        if row is not None and row[0]:
            return
        heed_cancellation()
        await asyncio.sleep(STAND_BY)


async def _keep_lease(lock: Connection, keeper: EpochKeeper) -> None:
    """Vouch for the cache while the lead is really ours: the connection that holds its lock answers."""
    while True:
        asked = asyncio.create_task(lock.execute("SELECT 1"))
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # known, also when the lead ends
        if not (await asyncio.wait({asked}, timeout=LEASE_PATIENCE))[0]:
            log.warning("silence", seconds=LEASE_PATIENCE)
            cut_off()  # nothing that waits, on this connection or another, would be told otherwise
        await asked
        await keeper.renew()
        await asyncio.sleep(HEARTBEAT)


async def _rebuild_if_restored(settings: Settings, clock: Clock) -> None:
    """Rebuild what is of an earlier life; meanwhile this life's changes are projected into it."""
    async with await connect(settings.postgres_dsn, "restored") as conn:
        while await needs_rebuild(conn):
            try:
                await rebuild(settings, clock=clock)
            except ConfigurationError as error:
                log.warning("rebuild_waits", reason=str(error))
                await asyncio.sleep(REBUILD_EVERY)


def _schedule(settings: Settings, jobs: Sequence[Job]) -> Sequence[Job]:
    refresh = Job("refresh_views", settings.fees_refresh_seconds, refresh_views)
    forget = Job("forget_batch_changes", 60, forget_batch_changes)
    prove = Job("verify", min(settings.verify_seconds, LOOK_WHETHER_DUE), scheduled_verify(settings))
    months = Job("add_months", 86400, change_log.add_months)
    return (refresh, forget, prove, months, *jobs)


async def _keep_schedule(settings: Settings, clock: Clock, jobs: Sequence[Job]) -> None:
    scheduler = AsyncIOScheduler(
        timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 30}
    )
    scheduler.add_listener(_report, sum(OUTCOMES))
    at_work: set[asyncio.Task[object] | None] = set()
    for job in jobs:  # at once: a new leader doesn't wait a whole interval
        arguments = (settings, clock, job, at_work)
        scheduler.add_job(
            _run_job, "interval", arguments, seconds=job.seconds, id=job.name, next_run_time=system_clock()
        )
    scheduler.start()
    try:
        await asyncio.Event().wait()
    finally:
        scheduler.shutdown(wait=False)
        await asyncio.gather(*filter(None, at_work), return_exceptions=True)


def _count_from_zero(jobs: Sequence[Job]) -> None:
    """Let each job's failures be told before there are any: of a series that begins at one nothing has increased."""
    for job in jobs:
        for outcome in OUTCOMES.values():
            metrics.JOBS.labels(job.name, outcome)


async def _run_job(settings: Settings, clock: Clock, job: Job, at_work: set[asyncio.Task[object] | None]) -> None:
    task = asyncio.current_task()
    at_work.add(task)
    try:
        async with await connect(settings.postgres_dsn, f"job {job.name}") as conn:
            if not job.rests or not await scheduled_runs.rests(conn, job.name, job.rests, clock()):
                await _run_and_note(conn, job, clock())
    except asyncio.CancelledError:
        log.info("job_interrupted", job=job.name)  # the lead has ended, and its schedule with it: no fault of a job
    finally:
        at_work.discard(task)


async def _run_and_note(conn: Connection, job: Job, now: datetime) -> None:
    started = time.perf_counter()
    try:
        found = await job.run(conn, now)
    except psycopg.Error as error:
        if not conn.closed:
            reason = type(error).__name__
            await scheduled_runs.note(conn, job.name, now, time.perf_counter() - started, "failed", reason)
        raise
    await scheduled_runs.note(conn, job.name, now, time.perf_counter() - started, "done", found)


def _report(event: JobExecutionEvent) -> None:
    """A run that failed or didn't happen is seen: in the log, and in the metric by job and outcome."""
    outcome = OUTCOMES[event.code]
    metrics.JOBS.labels(event.job_id, outcome).inc()
    log.error(
        "job_not_done",
        job=event.job_id,
        outcome=outcome,
        error=logs.told(event.exception) if getattr(event, "exception", None) else None,
    )
