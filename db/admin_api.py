"""What an ADMIN sees of a running process: its page cache, its pools, and how far the projections are."""

import asyncio
import uuid
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Query
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from db import cache_health, scheduled_runs
from db.cache_health import RedisState
from db.connections import TheConnections
from db.package_document import Status
from db.page_cache import discard, discard_everything
from db.pool_figures import PoolState, read_pools
from db.projection_health import MOST_COUNTED, measure, old_transactions
from db.redis_clients import REDIS_AWAY
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.errors import Unavailable
from infra.exposition import Samples, samples
from infra.fields import Instant
from infra.http import problems
from infra.routing import router

admin = router("admin")


class Level(BaseModel):
    """How often pages were looked for in one level of the cache, and what came of it."""

    hits: int
    misses: int
    stale: int
    bypassed: int = Field(description="Not asked: the request said `no-store`.")
    untrusted: int = Field(description="Not asked: no projector vouched for it, or Redis was away.")


class MemoryState(BaseModel):
    """The level in the processes' own memory."""

    pages: int
    bytes: int
    evicted: int


class CacheState(BaseModel):
    """The page cache of the whole service, both levels; counts are since it was started."""

    hit_rate: float | None = Field(description="Of the looks of either level; null before the first.", examples=[0.97])
    levels: dict[str, Level] = Field(description="`L1` in the process, `L2` in Redis.")
    memory: MemoryState
    redis: RedisState | None = Field(description="Null while Redis can't be reached.")


class Discarded(BaseModel):
    """Whose pages were discarded; `everything` stands for all of them."""

    scopes: list[str] = Field(examples=[["status:RECEIVED"]])


class Pools(BaseModel):
    """The connection pools of the service, by name: those of all its workers."""

    items: list[PoolState]


class Refresh(BaseModel):
    """When a materialized view was last refreshed, and how long that took; null if it never was."""

    refreshed_at: Instant | None
    took_seconds: float | None


class Verification(BaseModel):
    """What the last proof that the read side equals the write side found."""

    verified_at: Instant
    age_seconds: float
    differences: int


class OldTransaction(BaseModel):
    """A session whose open transaction holds back where batches begin to read."""

    pid: int
    application_name: str
    seconds: float
    state: str | None = Field(examples=["idle in transaction"])


class JobRun(BaseModel):
    """A scheduled job's last run, whoever led then: `found` is what it told, or why it failed."""

    job: str = Field(examples=["analyze"])
    ran_at: Instant
    took_seconds: float
    outcome: Literal["done", "failed"]
    found: Any


class Projections(BaseModel):
    """How far the read models are: so many committed changes aren't in them yet, the oldest one since then."""

    incarnation: str
    batch: int
    projected_at: Instant
    lag_changes: int = Field(description=f"Log rows, by the log's true end; no more than {MOST_COUNTED} are counted.")
    lag_since: Instant | None
    lag_seconds: float = Field(description="How long the oldest of them has been waiting.")
    unfinished: int = Field(description="How many of them are of changes that are in only in part.")
    parked: int = Field(description="Packages and customers whose rows can't be derived.")
    led: bool = Field(description="Whether any process projects at the moment.")
    needs_rebuild: bool
    views: dict[str, Refresh]
    verification: Verification | None
    old_transactions: list[OldTransaction]
    jobs: list[JobRun]


@admin.get("/admin/cache", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_cache(connections: TheConnections) -> CacheState:
    """Tell how the page cache is, and what it has done."""
    try:
        redis = await cache_health.measure(connections.redis)
    except REDIS_AWAY:
        redis = None
    read = await asyncio.to_thread(samples)
    levels = {level: _level(read, level) for level in ("L1", "L2")}
    return CacheState(
        hit_rate=cache_health.hit_rate(read),
        levels=levels,
        memory=MemoryState(
            pages=_count(read, "paqueteria_page_cache_l1_pages"),
            bytes=_count(read, "paqueteria_page_cache_l1_bytes"),
            evicted=_count(read, "paqueteria_page_cache_l1_evictions_total"),
        ),
        redis=redis,
    )


def _level(read: Samples, level: str) -> Level:
    return Level(
        hits=cache_health.looks(read, level, "hit"),
        misses=cache_health.looks(read, level, "miss"),
        stale=cache_health.looks(read, level, "stale"),
        bypassed=cache_health.looks(read, level, "bypass"),
        untrusted=cache_health.looks(read, level, "untrusted"),
    )


def _count(read: Samples, name: str) -> int:
    return int(read.get((name, frozenset()), 0))


@admin.delete("/admin/cache", responses=problems(401, 403))
@allow(Role.ADMIN)
async def discard_pages(
    connections: TheConnections,
    customer_id: Annotated[uuid.UUID | None, Query()] = None,
    status: Annotated[Status | None, Query()] = None,
) -> Discarded:
    """Discard the pages that a customer or a status stands on, or every page."""
    scopes = [f"customer:{customer_id}"] if customer_id else []
    scopes += [f"status:{status}"] if status else []
    try:
        if scopes:
            # A listing of every status, or of what a lookup finds, shows them too.
            await discard(connections.redis, [*scopes, "all"])
        else:
            await discard_everything(connections.redis)
    except REDIS_AWAY:
        raise Unavailable("Redis can't be reached, so no page of it is shown either") from None
    return Discarded(scopes=scopes or ["everything"])


@admin.get("/admin/pools", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_pools() -> Pools:
    """Tell how busy the service's connection pools are."""
    return Pools(items=read_pools(await asyncio.to_thread(samples)))


@admin.get("/admin/projections", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_projections(connections: TheConnections, clock: TheClock) -> Projections:
    """Tell how far the projections are behind the log's true end, and what stands in their way."""
    async with connections.write_pool.connection() as conn:
        health = await measure(conn, clock())
        old = await old_transactions(conn)
        jobs = await (await conn.cursor(row_factory=dict_row).execute(scheduled_runs.FIND)).fetchall()
    return Projections.model_validate(
        asdict(health)
        | {
            "lag_changes": health.lag,
            "lag_since": health.since,
            "old_transactions": [asdict(one) for one in old],
            "jobs": jobs,
        }
    )
