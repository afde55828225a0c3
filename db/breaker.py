"""Redis, asked with little patience: once it has not answered in time nobody waits for it, until it has again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from db.redis_clients import REDIS_AWAY
from infra.patience import Patience

PATIENCE = 0.25
"""Seconds that anybody waits for Redis."""

INSISTENCE = 1.0
"""Seconds that somebody waits who can't do without Redis."""

BREAK = 1.0
"""Seconds between two looks at a Redis that didn't answer."""

AT_ONCE = 32
"""How many a user asks of Redis at once; the rest wait for their turn, which is no silence of Redis'."""

Answer = TypeVar("Answer")


class RedisAway(Exception):
    """Redis doesn't answer in time; `is_news` where it did until now."""

    def __init__(self, error: Exception | None = None, *, is_news: bool = False) -> None:
        super().__init__(type(error).__name__)
        self.is_news = is_news


class RedisBusy(RedisAway):
    """Too many are ahead of us: Redis may be well, but won't have answered them in time."""


class Breaker:
    """One user's view of Redis; `look` asks it for something small."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self.is_away = False
        self._ask_for_little = look
        self._next_look = 0.0
        self._look: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, call: Awaitable[Answer]) -> Answer:
        """Give what Redis answers; raises RedisAway, and at once while it is away."""
        try:
            self._pass_by_if_away()
            await self._wait_for_turn()
            try:
                self._pass_by_if_away()
                return await self._answer(call)
            finally:
                self._turns.release()
        finally:
            _give_up(call)

    async def insist(self, call: Awaitable[Answer]) -> Answer:
        """Give what Redis answers, asked whether it is away or not; raises one of REDIS_AWAY."""
        try:
            async with Patience(INSISTENCE), self._turns:
                return await call
        finally:
            _give_up(call)

    async def _wait_for_turn(self) -> None:
        """Do so for no longer than for an answer: a queue that doesn't move is as good as no Redis."""
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with Patience(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            self._pass_by_if_away()
            raise RedisBusy from None

    def _pass_by_if_away(self) -> None:
        if self.is_away:
            self._begin_look()
            raise RedisAway

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            async with Patience(PATIENCE):
                return await call
        except REDIS_AWAY as error:
            is_news, self.is_away = not self.is_away, True
            self._next_look = time.monotonic() + BREAK
            raise RedisAway(error, is_news=is_news) from error

    def _begin_look(self) -> None:
        """See once in a while whether Redis is back, beside those who ask: none of them waits for it again."""
        if time.monotonic() >= self._next_look and (self._look is None or self._look.done()):
            self._look = asyncio.create_task(self._see_whether_it_is_back())

    async def _see_whether_it_is_back(self) -> None:
        try:
            async with Patience(PATIENCE):
                await self._ask_for_little()
            self.is_away = False
        except REDIS_AWAY:
            self._next_look = time.monotonic() + BREAK


def _give_up(call: Awaitable[object]) -> None:
    """Let go of a call that may never have begun; for one that has ended this is nothing."""
    if asyncio.iscoroutine(call):
        call.close()
