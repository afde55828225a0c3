"""How busy the pools are: told by each process, added up over all of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from db.pools import Pool
from infra import metrics
from infra.exposition import Samples

EVERY = 0.5
"""Seconds between two times that a process tells of its pools."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """The pools of one name, in all processes of the service; counts are since it was started."""

    name: str
    min_size: int
    max_size: int
    size: int
    available: int
    waiting: int
    requests: int
    waited_seconds: float
    timeouts: int
    errors: int


FIGURES = {
    "min_size": "paqueteria_pool_min_connections",
    "max_size": "paqueteria_pool_max_connections",
    "size": "paqueteria_pool_connections",
    "available": "paqueteria_pool_available_connections",
    "waiting": "paqueteria_pool_waiting_requests",
    "requests": "paqueteria_pool_requests_total",
    "timeouts": "paqueteria_pool_timeouts_total",
    "errors": "paqueteria_pool_connection_errors_total",
}


async def report(pools: Sequence[Pool]) -> None:
    """Keep the metrics of these pools true, until cancelled."""
    while True:
        for pool in pools:
            tell(pool)
        await asyncio.sleep(EVERY)


def tell(pool: Pool) -> None:
    """Set the gauges of a pool, and add to the counters what happened since the last time."""
    stats, name = pool.pop_stats(), pool.name
    metrics.POOL_LEAST.labels(name).set(stats["pool_min"])
    metrics.POOL_MOST.labels(name).set(stats["pool_max"])
    metrics.POOL_SIZE.labels(name).set(stats["pool_size"])
    metrics.POOL_AVAILABLE.labels(name).set(stats["pool_available"])
    metrics.POOL_WAITING.labels(name).set(stats["requests_waiting"])
    metrics.POOL_REQUESTS.labels(name).inc(stats.get("requests_num", 0))
    metrics.POOL_WAIT_SECONDS.labels(name).inc(stats.get("requests_wait_ms", 0) / 1000)
    metrics.POOL_TIMEOUTS.labels(name).inc(stats.get("requests_errors", 0))
    broken = ("connections_errors", "connections_lost", "returns_bad")
    metrics.POOL_CONNECTION_ERRORS.labels(name).inc(sum(stats.get(kind, 0) for kind in broken))


def read_pools(samples: Samples) -> list[PoolState]:
    """Find the pools in what the metrics say, by name."""
    found = {dict(labels)["pool"] for name, labels in samples if name == FIGURES["max_size"]}
    return [_state(samples, pool) for pool in sorted(found)]


def _state(samples: Samples, pool: str) -> PoolState:
    labels = frozenset({("pool", pool)})
    counts = {field: int(samples.get((name, labels), 0)) for field, name in FIGURES.items()}
    return PoolState(
        name=pool, waited_seconds=samples.get(("paqueteria_pool_wait_seconds_total", labels), 0.0), **counts
    )
