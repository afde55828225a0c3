"""How often somebody may ask: counted in Redis, for all processes together."""

import math
import time

from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from infra import logs
from infra.errors import TooManyRequests, Unavailable
from infra.settings import Settings

log = logs.get("throttle")


class Throttle:
    """Counts by rule and by who asks; a rule that is empty is off."""

    def __init__(self, settings: Settings) -> None:
        # A pool of our own, since the library neither fails fast nor lets go of the one that it makes.
        self._pool = ConnectionPool.from_url(settings.redis_dsn, socket_timeout=1, socket_connect_timeout=1)
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="paqueteria:throttle",
            connection_pool=self._pool,  # type: ignore[arg-type] # documented, and missing in the annotation
        )
        self._limiter = MovingWindowRateLimiter(storage)

    async def aclose(self) -> None:
        """Let go of Redis."""
        await self._pool.aclose()

    async def hit(self, rule: str, *who: str, closed_without_redis: bool = False) -> None:
        """Count one request of `who` under `rule` (`30/minute`); one too many raises TooManyRequests.

        Redis away lets the request through, or, where guessing is what the rule prevents, refuses it as Unavailable.
        """
        if not rule:
            return
        limit = parse(rule)
        try:
            if await self._limiter.hit(limit, *who):
                return
            reset_at, _ = await self._limiter.get_window_stats(limit, *who)
        except (RedisError, OSError) as error:
            log.warning("throttle_away", error=type(error).__name__)
            if closed_without_redis:
                raise Unavailable("Sign-in is closed for a moment: its throttle can't be reached") from None
            return
        raise TooManyRequests(max(1, math.ceil(reset_at - time.time())))
