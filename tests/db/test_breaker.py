"""Many who ask Redis at once wait for their turn; silence keeps nobody waiting but those who find it out."""

import asyncio
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from db import breaker
from db.breaker import AT_ONCE, Breaker, RedisAway, RedisBusy
from db.redis_clients import MOST_CONNECTIONS, make_redis
from infra.settings import Settings

MANY = 500

pytestmark = pytest.mark.anyio


async def answered() -> None:
    """Be a Redis that is well."""


async def test_many_at_once_wait_for_their_turn() -> None:
    """However many there are, so many are under way, and each is answered."""
    under_way: set[int] = set()
    most = 0

    async def answer(number: int) -> int:
        nonlocal most
        under_way.add(number)
        most = max(most, len(under_way))
        await asyncio.sleep(0)
        under_way.remove(number)
        return number

    asked = Breaker(answered)
    assert await asyncio.gather(*(asked.ask(answer(number)) for number in range(MANY))) == [*range(MANY)]
    assert most == AT_ONCE


async def test_there_are_connections_for_all_who_have_a_turn(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has too few refuses the rest, which would be taken for a Redis that is away."""
    assert AT_ONCE < MOST_CONNECTIONS < MANY
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)
    async with make_redis(settings.model_copy(update={"redis_url": redis_url})) as redis:
        asked = Breaker(redis.ping)
        assert all(await asyncio.gather(*(asked.ask(redis.ping()) for _ in range(MANY))))
        without_turns = await asyncio.gather(*(redis.ping() for _ in range(MANY)), return_exceptions=True)
        assert any("Too many" in str(result) for result in without_turns)


async def test_a_busy_process_does_not_take_redis_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it answers meanwhile counts."""
    monkeypatch.setattr(breaker, "PATIENCE", 0.5)

    async def answer_one_who_is_busy() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.6)
        for _ in range(10):
            await asyncio.sleep(0)

    asked = Breaker(answered)
    await asked.ask(answer_one_who_is_busy())
    assert not asked.is_away


async def test_silence_is_found_out_once() -> None:
    """By those who have a turn then; the rest go without at once, and one of all brings the news."""
    begun = 0

    async def be_silent() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    asked = Breaker(answered)
    results = await asyncio.gather(*(asked.ask(be_silent()) for _ in range(MANY)), return_exceptions=True)
    assert begun == AT_ONCE
    passed_by = [result for result in results if isinstance(result, RedisAway)]
    assert (len(passed_by), sum(result.is_news for result in passed_by)) == (MANY, 1)


async def test_nobody_waits_for_a_turn_longer_than_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those ahead are slow, and none too slow: whoever has waited so long goes without, which is no news of Redis."""
    monkeypatch.setattr(breaker, "PATIENCE", 0.05)
    go_on = asyncio.Event()
    asked = Breaker(answered)
    ahead = [asyncio.create_task(asked.insist(go_on.wait())) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(RedisBusy) as passed_by:
        await asked.ask(answered())
    assert (passed_by.value.is_news, asked.is_away) == (False, False)
    go_on.set()
    await asyncio.gather(*ahead)
    await asked.ask(answered())


async def test_whoever_insists_asks_a_redis_that_is_away() -> None:
    """And learns what is wrong with it."""

    async def refuse() -> None:
        raise RedisConnectionError

    asked = Breaker(refuse)
    with pytest.raises(RedisAway):
        await asked.ask(refuse())
    assert asked.is_away
    with pytest.raises(RedisConnectionError):
        await asked.insist(refuse())


async def test_whoever_goes_while_waiting_for_a_turn_leaves_nothing_behind() -> None:
    """Their question has not been put, and never will be: the others are answered as if it had not been there."""
    go_on = asyncio.Event()
    begun: list[str] = []

    async def answer(name: str) -> None:
        begun.append(name)
        await go_on.wait()

    asked = Breaker(answered)
    others = [asyncio.create_task(asked.insist(answer("another"))) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    gone = [asyncio.create_task(ask(answer("gone"))) for ask in (asked.ask, asked.insist)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    go_on.set()
    await asyncio.gather(*others)
    assert (begun, [task.cancelled() for task in gone]) == (["another"] * AT_ONCE, [True, True])
