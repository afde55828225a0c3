"""How often somebody may ask: counted in Redis, for all processes together."""

import math
import time

from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

from infra import logs
from infra.errors import TooManyRequests, Unavailable
from infra.settings import Settings

log = logs.get("throttle")


class Throttle:
    """Counts by rule and by who asks; a rule that is empty is off."""

    def __init__(self, settings: Settings) -> None:
        storage = RedisStorage(
            f"async+{settings.redis_dsn}", implementation="redispy", key_prefix="paqueteria:throttle"
        )
        self._limiter = MovingWindowRateLimiter(storage)

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
