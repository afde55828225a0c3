"""What an ADMIN sees of a running process: its page cache, its pools, and how far the projections are."""

import uuid
from dataclasses import asdict
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from db.connections import Connections, TheConnections
from db.package_document import Status
from db.page_cache import EPOCH_KEY, discard, discard_everything
from db.pools import Pool
from db.projection_health import MOST_COUNTED, measure, old_transactions
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.errors import Unavailable
from infra.fields import Instant
from infra.http import problems
from infra.routing import router

admin = router("admin")


class CacheState(BaseModel):
    """The page cache as Redis has it; `believed` while a projector vouches for its pages."""

    available: bool
    believed: bool
    used_memory_bytes: int = Field(examples=[1048576])
    keys: int
    hits: int
    misses: int
    evicted: int


class Discarded(BaseModel):
    """Whose pages were discarded; `everything` stands for all of them."""

    scopes: list[str] = Field(examples=[["status:RECEIVED"]])


class PoolState(BaseModel):
    """A connection pool of the process that answers."""

    name: str
    min_size: int
    max_size: int
    size: int
    available: int
    waiting: int
    requests: int
    errors: int


class Pools(BaseModel):
    """The pools of the process that answers; others have their own."""

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


@admin.get("/admin/cache", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_cache(connections: TheConnections) -> CacheState:
    """Tell how the page cache is."""
    try:
        info = await connections.redis.info()
        keys = await connections.redis.dbsize()
        believed = bool(await connections.redis.exists(EPOCH_KEY))
    except (RedisError, OSError):
        return CacheState(available=False, believed=False, used_memory_bytes=0, keys=0, hits=0, misses=0, evicted=0)
    return CacheState(
        available=True,
        believed=believed,
        used_memory_bytes=info.get("used_memory", 0),
        keys=keys,
        hits=info.get("keyspace_hits", 0),
        misses=info.get("keyspace_misses", 0),
        evicted=info.get("evicted_keys", 0),
    )


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
    except (RedisError, OSError):
        raise Unavailable("Redis can't be reached, so no page of it is shown either") from None
    return Discarded(scopes=scopes or ["everything"])


@admin.get("/admin/pools", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_pools(connections: TheConnections) -> Pools:
    """Tell how busy the connection pools of this process are."""
    return Pools(items=[_state(pool) for pool in _distinct_pools(connections)])


def _distinct_pools(connections: Connections) -> list[Pool]:
    return list(dict.fromkeys([connections.write_pool, connections.read_pool]))


def _state(pool: Pool) -> PoolState:
    stats = pool.get_stats()
    return PoolState(
        name=pool.name,
        min_size=pool.min_size,
        max_size=pool.max_size,
        size=stats.get("pool_size", 0),
        available=stats.get("pool_available", 0),
        waiting=stats.get("requests_waiting", 0),
        requests=stats.get("requests_num", 0),
        errors=stats.get("requests_errors", 0) + stats.get("connections_errors", 0),
    )


@admin.get("/admin/projections", responses=problems(401, 403))
@allow(Role.ADMIN)
async def show_projections(connections: TheConnections, clock: TheClock) -> Projections:
    """Tell how far the projections are behind the log's true end, and what stands in their way."""
    async with connections.write_pool.connection() as conn:
        health = await measure(conn, clock())
        old = await old_transactions(conn)
    return Projections.model_validate(
        asdict(health)
        | {"lag_changes": health.lag, "lag_since": health.since, "old_transactions": [asdict(one) for one in old]}
    )
