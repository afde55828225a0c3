"""What an application holds open while it runs, and how a route gets at it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import psycopg
from fastapi import Depends, FastAPI, Request
from redis.asyncio import Redis

from db import cache_health, pool_figures, replica_health
from db.change_log import ChangeSignal
from db.consistency import CheckpointWatcher, TokenSigner
from db.migrate import migrations
from db.page_cache import PageCache
from db.pools import PLANNED_ONCE, Pool, make_pool
from db.projection_health import measure, warnings, watch
from db.redis_clients import make_redis
from db.replicas import Readers, Replica
from db.staff_sessions import StaffSessions
from db.throttle import Throttle
from infra import process_figures
from infra.clock import Clock
from infra.errors import Unavailable
from infra.http import Findings, Lifespan
from infra.settings import Settings
from infra.tasks import running


@dataclass(frozen=True, slots=True)
class Connections:
    """Open for as long as the application; pools are of this process alone."""

    settings: Settings
    write_pool: Pool
    read_pool: Pool
    readers: Readers
    redis: Redis
    signal: ChangeSignal
    watcher: CheckpointWatcher
    tokens: TokenSigner
    page_cache: PageCache
    throttle: Throttle
    sessions: StaffSessions


@contextlib.asynccontextmanager
async def open_connections(settings: Settings, clock: Clock, *, is_read: bool = True) -> AsyncIterator[Connections]:
    """Open everything; a server that is away now may come later.

    `is_read` tells whether the application answers from the read models.
    """
    write_pool = make_pool(settings.postgres_dsn, settings, "commands", PLANNED_ONCE)
    read_pool = make_pool(settings.queries_dsn, settings, "queries")
    redis = make_redis(settings)
    signal = ChangeSignal(settings.postgres_dsn)
    watcher = CheckpointWatcher(settings.postgres_dsn, hears_batches=is_read)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        throttle = Throttle(settings)
        stack.push_async_callback(throttle.aclose)
        replicas = [Replica(dsn, settings, number) for number, dsn in enumerate(settings.replica_urls, 1)]
        for pool in (write_pool, read_pool, *(replica.pool for replica in replicas)):
            await pool.open(wait=False)
            stack.push_async_callback(pool.close)
        reports = (
            pool_figures.report((write_pool, read_pool, *(replica.pool for replica in replicas))),
            process_figures.report("api"),
            cache_health.watch(redis),
        )
        lag = replica_health.watch(settings.postgres_dsn, settings.replica_urls)
        watches = (signal.run(), watcher.run(), watch(settings.postgres_dsn, clock), lag)
        follows = (replica.follow() for replica in replicas)
        await stack.enter_async_context(running(*watches, *reports, *follows))
        yield Connections(
            settings,
            write_pool,
            read_pool,
            Readers(read_pool, replicas, watcher),
            redis,
            signal,
            watcher,
            TokenSigner(settings.signing_key()),
            PageCache(redis, settings.cache_ttl),
            throttle,
            StaffSessions(write_pool, watcher, clock),
        )


def lifespan(settings: Settings, *, is_read: bool = True) -> Lifespan:
    """Give FastAPI's lifespan that opens the connections and hangs them on `app.state`."""

    @contextlib.asynccontextmanager
    async def with_connections(app: FastAPI) -> AsyncIterator[None]:
        async with open_connections(settings, app.state.clock, is_read=is_read) as connections:
            app.state.connections = connections
            app.state.signing_key = settings.signing_key()
            app.state.recognise = connections.sessions.recognise
            app.state.readiness = _readiness(connections)
            app.state.warnings = _warnings(connections, app.state.clock)
            yield

    return with_connections


def _readiness(connections: Connections) -> Findings:
    async def missing() -> dict[str, str]:
        try:
            async with connections.read_pool.connection(timeout=2) as conn:
                names = {
                    name for (name,) in await (await conn.execute("SELECT name FROM schema_migrations")).fetchall()
                }
        except psycopg.errors.UndefinedTable:
            return {"migrations": "the database is empty: run manage.py migrate"}
        except psycopg.Error as error:
            return {"database": type(error).__name__}
        lacking = migrations().keys() - names
        return {"migrations": f"not applied yet: {', '.join(sorted(lacking))}"} if lacking else {}

    return missing


def _warnings(connections: Connections, clock: Clock) -> Findings:
    """Measured for each who asks, on the primary: neither a gauge nor a replica can be older than the answer."""

    async def found() -> dict[str, str]:
        try:
            async with connections.write_pool.connection(timeout=2) as conn:
                health = await measure(conn, clock())
        except (psycopg.Error, Unavailable) as error:
            return {"projection": f"how far it is can't be measured: {type(error).__name__}"}
        return warnings(health, connections.settings.fees_refresh_seconds)

    return found


def current_connections(request: Request) -> Connections:
    """Give the application's connections to a route."""
    connections: Connections = request.app.state.connections
    return connections


TheConnections = Annotated[Connections, Depends(current_connections)]
