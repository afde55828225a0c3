"""How Redis is, for whoever asks and for the metrics."""

import asyncio
from dataclasses import dataclass

from redis.asyncio import Redis

from db.page_cache import EPOCH_KEY
from db.redis_clients import REDIS_AWAY, information
from infra import metrics
from infra.exposition import Samples

EVERY = 2.0
"""Seconds between two looks of a process."""

FIGURES = (metrics.REDIS_BYTES, metrics.REDIS_MOST_BYTES, metrics.REDIS_KEYS, metrics.REDIS_EVICTIONS)


@dataclass(frozen=True, slots=True)
class RedisState:
    """What Redis says of itself; `believed` while a projector vouches for the pages in it."""

    believed: bool
    used_memory_bytes: int
    max_memory_bytes: int
    keys: int
    evicted: int


async def measure(redis: Redis) -> RedisState:
    """Ask Redis, of a cluster all of it; raises one of REDIS_AWAY where it can't be reached."""
    info = await information(redis)
    return RedisState(
        believed=bool(await redis.exists(EPOCH_KEY)),
        used_memory_bytes=info["used_memory"],
        max_memory_bytes=info["maxmemory"],
        keys=await redis.dbsize(),
        evicted=info["evicted_keys"],
    )


async def watch(redis: Redis) -> None:
    """Keep this process's gauges of Redis true, until cancelled."""
    while True:
        try:
            _show(await measure(redis))
        except REDIS_AWAY:
            metrics.REDIS_UP.set(0)
            for figure in FIGURES:
                figure.clear()
        await asyncio.sleep(EVERY)


def _show(state: RedisState) -> None:
    metrics.REDIS_UP.set(1)
    metrics.REDIS_BYTES.set(state.used_memory_bytes)
    metrics.REDIS_MOST_BYTES.set(state.max_memory_bytes)
    metrics.REDIS_KEYS.set(state.keys)
    metrics.REDIS_EVICTIONS.set(state.evicted)


def looks(samples: Samples, level: str, outcome: str) -> int:
    """Tell how often a level was looked at with this outcome."""
    labels = frozenset({("level", level), ("outcome", outcome)})
    return int(samples.get(("paqueteria_page_cache_reads_total", labels), 0))


def counted(samples: Samples) -> int:
    """Tell for how many pages a cache was to be asked: whoever wants none of it isn't counted."""
    return sum(looks(samples, "L1", outcome) for outcome in ("hit", "miss", "stale", "untrusted"))


def hit_rate(samples: Samples) -> float | None:
    """Tell which share of the pages that might have come from either level did; None before the first."""
    asked = counted(samples)
    return (looks(samples, "L1", "hit") + looks(samples, "L2", "hit")) / asked if asked else None
