"""Clients of Redis, be it one server or a cluster: nothing that Redis does is worth a long wait.

In a cluster all keys of pages share a hash tag, and so does the channel of their announcements. So one node, with its
replica, has all of them, scripts see their keys, and whoever listens does so where the scripts speak. A node that is
promoted may have missed the last raise of a generation. It has the epoch's lease from before, too, which has run out by
then: `cluster-node-timeout` must be longer than EPOCH_LEASE.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode as SyncClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from infra.settings import Settings

CLUSTER = "redis+cluster"

MOST_CONNECTIONS = 64
"""More than anybody needs: a call that finds none left fails, so whoever may make many at once waits for a turn."""

ANSWERED_WITHIN = 5.0
"""Seconds after which a silent connection is given up; by the clock alone, though we may have been busy ourselves.

Whoever can do without Redis waits for less, and leaves that time out: see `db.breaker`.
"""

REDIS_AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)
"""What is raised while Redis can't be reached, or is without a node.

RuntimeError is uvloop's, where a client writes to a connection that its server has closed a moment before.
"""


def is_cluster(dsn: str) -> bool:
    """Tell whether the address is a cluster's."""
    return urlsplit(dsn).scheme == CLUSTER


def make_redis(settings: Settings) -> Redis:
    """Make a client; of a cluster one that answers the same calls, which is what this service asks of it."""
    if is_cluster(settings.redis_dsn):
        nodes = [ClusterNode(host, port) for host, port in places(settings.redis_dsn)]
        cluster = RedisCluster(
            startup_nodes=nodes,
            socket_timeout=ANSWERED_WITHIN,
            socket_connect_timeout=0.1,  # a node that is gone mustn't keep anybody from finding the others
            max_connections=MOST_CONNECTIONS,
            **credentials(settings.redis_dsn),
        )
        return cast("Redis", cluster)
    return Redis.from_url(
        settings.redis_dsn,
        socket_timeout=ANSWERED_WITHIN,
        socket_connect_timeout=ANSWERED_WITHIN,
        retry=Retry(NoBackoff(), 0),
        max_connections=MOST_CONNECTIONS,
    )


def make_blocking(settings: Settings) -> "redis.Redis":
    """Make a client for the command line."""
    if is_cluster(settings.redis_dsn):
        nodes = [SyncClusterNode(host, port) for host, port in places(settings.redis_dsn)]  # type: ignore[no-untyped-call]
        cluster = redis.RedisCluster(startup_nodes=nodes, **credentials(settings.redis_dsn))
        return cast("redis.Redis", cluster)
    return redis.Redis.from_url(settings.redis_dsn)


def places(dsn: str) -> list[tuple[str, int]]:
    """Read the nodes of `redis+cluster://[user:password@]host:port[,host:port…][?ssl=true]`."""
    hosts = urlsplit(dsn).netloc.rpartition("@")[2]
    return [(host, int(port or 6379)) for host, _, port in (part.strip().rpartition(":") for part in hosts.split(","))]


def credentials(dsn: str) -> dict[str, Any]:
    """Read who signs in there, and whether by TLS."""
    parts = urlsplit(dsn)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    is_encrypted = parse_qs(parts.query).get("ssl") == ["true"]
    return {name: value for name, value in given.items() if value} | ({"ssl": True} if is_encrypted else {})


@contextlib.asynccontextmanager
async def subscribed(client: Redis, channel: str) -> AsyncIterator[PubSub]:
    """Listen to a channel, in a cluster on the node where its scripts speak; raises one of REDIS_AWAY."""
    if not hasattr(client, "connection_pool"):
        await client.initialize()  # whoever only listens has not asked yet which node that is
    async with client.pubsub() as subscription:
        try:
            await subscription.subscribe(channel)
        except KeyError:  # a cluster's client while it looks for its nodes anew
            raise RedisConnectionError("No node is known that has the channel") from None
        yield subscription


async def information(client: Redis) -> dict[str, Any]:
    """Ask a server about itself; of a cluster, give the sums of its nodes."""
    told: dict[str, Any] = await client.info()
    if "used_memory" in told:
        return told
    counted = ("used_memory", "maxmemory", "keyspace_hits", "keyspace_misses", "evicted_keys")
    return {name: sum(node.get(name, 0) for node in told.values()) for name in counted}
