"""How often somebody may ask: counted in Redis, for all processes together."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import RedisClusterStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from db.breaker import Breaker, RedisAway, RedisBusy
from db.redis_clients import ANSWERED_WITHIN, REDIS_AWAY, credentials, is_cluster, places
from infra import logs
from infra.errors import TooManyRequests, Unavailable
from infra.settings import Settings

log = logs.get("throttle")


PREFIX = "paqueteria:throttle"

Closing = Callable[[], Awaitable[None]]


def _of_server(dsn: str) -> tuple[RedisStorage, Closing]:
    # A pool of our own, since the library neither limits its waiting nor lets go of the one that it makes.
    pool = ConnectionPool.from_url(dsn, socket_timeout=ANSWERED_WITHIN, socket_connect_timeout=ANSWERED_WITHIN)
    storage = RedisStorage(
        "async+redis://",
        implementation="redispy",
        key_prefix=PREFIX,
        connection_pool=pool,  # type: ignore[arg-type] # documented, and missing in the annotation
    )
    return storage, pool.aclose


def _of_cluster(dsn: str) -> tuple[RedisStorage, Closing]:
    nodes = ",".join(f"{host}:{port}" for host, port in places(dsn))
    timeouts = {"socket_timeout": ANSWERED_WITHIN, "socket_connect_timeout": 0.1}
    options: dict[str, Any] = credentials(dsn) | timeouts
    address = f"async+redis+cluster://{nodes}"
    storage = RedisClusterStorage(address, implementation="redispy", key_prefix=PREFIX, **options)
    return storage, storage.bridge.storage.aclose  # type: ignore[attr-defined] # the redis-py client that it makes


class Throttle:
    """Counts by rule and by who asks; a rule that is empty is off."""

    def __init__(self, settings: Settings) -> None:
        dsn = settings.redis_dsn
        storage, self._let_go = _of_cluster(dsn) if is_cluster(dsn) else _of_server(dsn)
        self._limiter = MovingWindowRateLimiter(storage)
        self._storage = storage
        self._breaker = Breaker(self._look)

    async def aclose(self) -> None:
        """Let go of Redis."""
        await self._let_go()

    async def hit(self, rule: str, *who: str, closed_without_redis: bool = False) -> None:
        """Count one request of `who` under `rule` (`30/minute`); one too many raises TooManyRequests.

        Redis away lets the request through, without a wait but for those who find it so; or, where guessing is what
        the rule prevents, refuses it as Unavailable. A rush that is too great to be counted is refused as well.
        """
        if not rule:
            return
        limit = parse(rule)
        if closed_without_redis:
            try:
                reset_at = await self._breaker.insist(self._count(limit, *who))
            except REDIS_AWAY as error:
                log.warning("throttle_away", error=type(error).__name__)
                raise Unavailable("Sign-in is closed for a moment: its throttle can't be reached") from None
        else:
            try:
                reset_at = await self._breaker.ask(self._count(limit, *who))
            except RedisBusy:  # so many at once that they can't be counted
                raise TooManyRequests(1) from None
            except RedisAway as away:
                if away.is_news:
                    log.warning("throttle_away", error=str(away))
                return
        if reset_at is not None:
            raise TooManyRequests(max(1, math.ceil(reset_at - time.time())))

    async def _look(self) -> None:
        if not await self._storage.check():
            raise RedisConnectionError("Redis doesn't answer")

    async def _count(self, limit: RateLimitItem, *who: str) -> float | None:
        """Count one more; gives until when, by the machine's clock, there is one too many."""
        if await self._limiter.hit(limit, *who):
            return None
        reset_at, _ = await self._limiter.get_window_stats(limit, *who)
        return reset_at
