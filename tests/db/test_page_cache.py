"""A page is believed while its scopes' generations stand, and while somebody vouches for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from db import breaker, page_cache
from db.consistency import Checkpoint
from db.page_cache import EPOCH_KEY, EpochKeeper, Page, PageCache, Place, discard, generation_key
from tests.support import Clock

SCOPES = ("status:RECEIVED", "customer:7")
MADE_AT = Clock()()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy processor is no silent Redis, nor a keeper that has died."""
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)
    monkeypatch.setattr(page_cache, "EPOCH_LEASE", 60.0)


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    assert anyio_backend == "asyncio"
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client


@pytest.fixture
def cache(redis: Redis) -> PageCache:
    return PageCache(redis, ttl=30)


@pytest.fixture
async def keeper(redis: Redis) -> EpochKeeper:
    keeper = EpochKeeper(redis)
    await keeper.begin()
    return keeper


def page(batch: int = 5, expires_at: datetime | None = None) -> Page:
    return Page(b'{"items": []}', '"tag"', Checkpoint("life", batch, "10:12:11"), expires_at, MADE_AT)


async def place_of(cache: PageCache) -> Place:
    place, _ = await cache.find("digest", SCOPES)
    assert place is not None
    return place


pytestmark = pytest.mark.anyio


async def test_without_an_epoch_nothing_is_believed(cache: PageCache, redis: Redis, clock: Clock) -> None:
    """No projector has vouched for the cache: it is passed by, and not filled."""
    assert await cache.find("digest", SCOPES) == (None, None)
    keeper = EpochKeeper(redis)
    await keeper.begin()
    await cache.keep(await place_of(cache), page(), [5, 3], clock())
    await redis.delete(EPOCH_KEY)
    assert await cache.find("digest", SCOPES) == (None, None)


@pytest.mark.usefixtures("keeper")
async def test_a_kept_page_is_found_again(cache: PageCache, clock: Clock) -> None:
    """The first reader stores the page under the generations its snapshot saw; the next one has it."""
    await cache.keep(await place_of(cache), page(), [5, 3], clock())
    place, found = await cache.find("digest", SCOPES)
    assert found == page()
    assert place is not None
    assert place.generation == 5


@pytest.mark.usefixtures("keeper")
async def test_a_claim_is_for_one_reader(cache: PageCache, clock: Clock) -> None:
    """Whoever claims a page meanwhile goes without; once it is kept the claim is free, and finds it."""
    place = await place_of(cache)
    name, there, found = await cache.claim(place)
    assert (name is None, there, found) == (False, place, None)
    assert await cache.claim(place) == (None, place, None)
    assert await cache.keep(place, page(), [5, 3], clock(), name or "")
    known = await place_of(cache)
    for where in (place, known):
        another, there, found = await cache.claim(where)
        assert (another is None, there, found) == (False, known, page())


@pytest.mark.usefixtures("keeper")
async def test_a_claim_is_released_by_its_name_alone(cache: PageCache) -> None:
    """One that has run out may be somebody else's by then."""
    place = await place_of(cache)
    name, _, _ = await cache.claim(place)
    await cache.release(place, "another")
    assert (await cache.claim(place))[0] is None
    await cache.release(place, name or "")
    assert (await cache.claim(place))[0] is not None


async def test_a_claim_learns_what_was_raised_meanwhile(cache: PageCache, keeper: EpochKeeper, clock: Clock) -> None:
    """Its place is of another generation then, and it finds what stands there."""
    await keeper.announce(SCOPES, 5)
    before = await place_of(cache)
    await keeper.announce(SCOPES, 6)
    await cache.keep(await place_of(cache), page(6), [6, 6], clock())
    assert await cache.claim(before) == (ANY, await place_of(cache), page(6))


async def test_a_raised_generation_discards_the_page(cache: PageCache, keeper: EpochKeeper, clock: Clock) -> None:
    """A write discards the pages it can show on, and no others."""
    await cache.keep(await place_of(cache), page(), [5, 3], clock())
    await keeper.announce(["status:DELIVERED"], 6)
    assert (await cache.find("digest", SCOPES))[1] == page()
    await keeper.announce(["customer:7"], 7)
    assert (await cache.find("digest", SCOPES))[1] is None


async def test_a_slow_reader_fills_in_vain(cache: PageCache, keeper: EpochKeeper, clock: Clock) -> None:
    """A page from before the write, stored after it, stands under a generation that nobody asks for."""
    slow = await place_of(cache)
    await keeper.announce(SCOPES, 8)
    await cache.keep(slow, page(batch=5), [5, 3], clock())
    place, found = await cache.find("digest", SCOPES)
    assert found is None
    assert place is not None
    assert place.generation == 8


async def test_pages_are_discarded_by_hand(cache: PageCache, keeper: EpochKeeper, redis: Redis, clock: Clock) -> None:
    """What somebody discards is not found again, not even when a reader of before fills it in."""
    await keeper.announce(SCOPES, 5)
    slow = await place_of(cache)
    await cache.keep(slow, page(), [5, 3], clock())
    await discard(redis, ["status:DELIVERED"])
    assert (await cache.find("digest", SCOPES))[1] == page()
    await discard(redis, ["customer:7"])
    await cache.keep(slow, page(), [5, 3], clock())
    assert (await cache.find("digest", SCOPES))[1] is None


async def test_a_generation_is_never_lowered(keeper: EpochKeeper, redis: Redis) -> None:
    """An announcement that comes late, from a slow process, changes nothing."""
    await keeper.announce(["all"], 9)
    await keeper.announce(["all"], 4)
    assert (await redis.get(generation_key("all")) or b"")[-2:] == b":9"


async def test_an_emptied_redis_forgets_safely(
    cache: PageCache, keeper: EpochKeeper, redis: Redis, clock: Clock
) -> None:
    """After a flush the keeper begins another epoch, and a fill begun in the old one isn't believed in it."""
    slow = await place_of(cache)
    await keeper.announce(SCOPES, 8)
    await redis.flushdb()
    await keeper.renew()
    await cache.keep(slow, page(batch=5), [5, 3], clock())
    place, found = await cache.find("digest", SCOPES)
    assert found is None
    assert place is not None
    assert place.generation is None


async def test_an_announcement_that_failed_ends_the_epoch(cache: PageCache, redis: Redis, clock: Clock) -> None:
    """Copies that missed a batch are never believed again, though Redis comes back with all of them."""
    away = Redis.from_url("redis://127.0.0.1:1/0")
    keeper = EpochKeeper(redis)
    await keeper.begin()
    await cache.keep(await place_of(cache), page(), [5, 3], clock())
    keeper._redis = away  # noqa: SLF001 (the same keeper, its Redis gone)
    await keeper.announce(SCOPES, 6)
    keeper._redis = redis  # noqa: SLF001
    await keeper.renew()
    assert (await cache.find("digest", SCOPES))[1] is None
    await away.aclose()


async def test_a_silent_redis_keeps_the_projector_waiting_once(
    cache: PageCache, redis: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen, it takes connections and never answers: one batch is delayed, the next ones aren't, and none is lost."""
    monkeypatch.setattr(breaker, "BREAK", 3600.0)
    monkeypatch.setattr(breaker, "PATIENCE", 0.25)
    asked: list[object] = []
    closed = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        await closed.wait()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        silent = Redis.from_url(f"redis://127.0.0.1:{port}/0")
        keeper = EpochKeeper(redis)
        await keeper.begin()
        await cache.keep(await place_of(cache), page(), [5, 3], clock())
        keeper._redis = silent  # noqa: SLF001 (the same keeper, its Redis frozen)
        for batch in range(6, 9):
            await keeper.announce(SCOPES, batch)
        assert len(asked) == 1
        await silent.aclose()
        closed.set()
    keeper._redis = redis  # noqa: SLF001
    await keeper.renew()
    assert (await cache.find("digest", SCOPES))[1] is None
    await keeper.announce(SCOPES, 9)
    assert (await redis.get(generation_key(SCOPES[0])) or b"")[-2:] == b":9"


async def test_a_keeper_that_lost_the_lead_renews_nothing(redis: Redis) -> None:
    """The old leader's heartbeat doesn't lengthen the new leader's epoch under its own name."""
    old, new = EpochKeeper(redis), EpochKeeper(redis)
    await old.begin()
    await new.begin()
    epoch = await redis.get(EPOCH_KEY)
    await new.renew()
    assert await redis.get(EPOCH_KEY) == epoch


@pytest.mark.usefixtures("keeper")
async def test_a_page_lives_no_longer_than_it_is_true(cache: PageCache, redis: Redis, clock: Clock) -> None:
    """Its life in Redis ends when time changes it, in milliseconds; a page already past that isn't kept."""
    place = await place_of(cache)
    await cache.keep(place, page(expires_at=clock() + timedelta(seconds=20)), [5, 3], clock())
    keys = [key async for key in redis.scan_iter("*:page:*")]
    assert 0 < await redis.pttl(keys[0]) <= 20_000
    await redis.delete(*keys)
    await cache.keep(place, page(expires_at=clock()), [5, 3], clock())
    assert [key async for key in redis.scan_iter("*:page:*")] == []


async def test_redis_away_is_a_cache_with_nothing_in_it(clock: Clock) -> None:
    """No error reaches a reader, whatever Redis does."""
    async with Redis.from_url("redis://127.0.0.1:1/0") as away:
        cache = PageCache(away, ttl=30)
        assert await cache.find("digest", SCOPES) == (None, None)
        await cache.keep(Place("digest", "epoch", SCOPES, 5, "0.0"), page(), [5, 3], clock())


@pytest.mark.usefixtures("keeper")
async def test_one_reader_waits_for_a_redis_that_is_late_and_no_other(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it answers in time again is found out beside the readers; then it is believed as before."""
    execute: Callable[..., Awaitable[Any]] = redis.execute_command
    is_back, asked = asyncio.Event(), list[str]()

    async def answer_late(command: str, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        asked.append(command)
        await is_back.wait()
        return await execute(command, *rest, **options)

    monkeypatch.setattr(redis, "execute_command", answer_late)
    monkeypatch.setattr(breaker, "PATIENCE", 0.05)
    monkeypatch.setattr(breaker, "BREAK", 0.0)
    cache = PageCache(redis, ttl=30)
    assert await cache.find("digest", SCOPES) == (None, None)
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)
    for _ in range(3):
        reader = asyncio.create_task(cache.find("digest", SCOPES))
        await asyncio.sleep(0)
        assert reader.done()
    await asyncio.sleep(0)
    assert asked == ["MGET", "EXISTS"]
    is_back.set()
    for _ in range(1000):
        place, _ = await cache.find("digest", SCOPES)
        if place is not None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("Redis is back, and nobody believes it")


def test_a_connection_closed_under_a_command_is_redis_away(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its server dies at that moment: uvloop says so by an error of its own kind, which no reader may get."""
    send = AbstractConnection._send_packed_command  # noqa: SLF001 (no public place is so late)

    async def close_and_send(connection: AbstractConnection, command: Iterable[bytes]) -> None:
        assert connection._writer is not None  # noqa: SLF001
        connection._writer.transport.abort()  # noqa: SLF001
        await asyncio.sleep(0)
        await send(connection, command)

    async def found() -> object:
        async with Redis.from_url(redis_url) as redis:
            await redis.ping()
            monkeypatch.setattr(AbstractConnection, "_send_packed_command", close_and_send)
            with pytest.raises(RuntimeError, match="closed"):
                await redis.ping()
            return await PageCache(redis, ttl=30).find("digest", SCOPES)

    assert uvloop.run(found()) == (None, None)


def test_at_exactly_its_instant_a_page_still_holds(clock: Clock) -> None:
    """At next_fee_at the old fee holds, and a microsecond later it doesn't."""
    shown = page(expires_at=clock())
    assert shown.is_current(clock())
    assert not shown.is_current(clock.advance(microseconds=1))
