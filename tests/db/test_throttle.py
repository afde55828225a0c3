"""How often somebody may ask, and what becomes of it without Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from db import breaker
from db.throttle import Throttle
from infra.errors import TooManyRequests, Unavailable
from infra.settings import Settings

pytestmark = pytest.mark.anyio

RULE = "2/minute"


@pytest.fixture
async def throttle(settings: Settings, anyio_backend: str) -> AsyncIterator[Throttle]:  # noqa: ARG001
    throttle = Throttle(settings)
    yield throttle
    await throttle.aclose()


async def test_each_has_a_limit_of_their_own(throttle: Throttle) -> None:
    """One too many is refused, and told for how long."""
    for _ in range(2):
        await throttle.hit(RULE, "track", "one")
    with pytest.raises(TooManyRequests) as refused:
        await throttle.hit(RULE, "track", "one")
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 61
    await throttle.hit(RULE, "track", "another")


@pytest.mark.parametrize("is_guess", [False, True], ids=["let through", "refused"])
async def test_many_at_once_are_counted_too(
    throttle: Throttle, monkeypatch: pytest.MonkeyPatch, *, is_guess: bool
) -> None:
    """More than Redis has connections for: they wait, and no more of them get through than one after the other."""
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)
    monkeypatch.setattr(breaker, "INSISTENCE", 10.0)
    hits = (throttle.hit(RULE, "track", "many", closed_without_redis=is_guess) for _ in range(300))
    outcomes = await asyncio.gather(*hits, return_exceptions=True)
    assert outcomes.count(None) == 2
    assert sum(isinstance(outcome, TooManyRequests) for outcome in outcomes) == 298


async def test_a_rush_too_great_to_be_counted_is_refused(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends more than can be looked at mustn't get through for that."""
    monkeypatch.setattr(breaker, "PATIENCE", 0.05)
    go_on = asyncio.Event()
    ahead = [asyncio.create_task(throttle._breaker.insist(go_on.wait())) for _ in range(breaker.AT_ONCE)]  # noqa: SLF001
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await throttle.hit(RULE, "track", "one")
    go_on.set()
    await asyncio.gather(*ahead)


async def test_a_silent_redis_keeps_one_waiting(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next ones are let through at once, until it answers again; and then everybody is counted."""
    count, look = throttle._count, throttle._look  # noqa: SLF001
    is_back = asyncio.Event()

    async def counted_late(*what: object) -> float | None:
        await is_back.wait()
        return await count(*what)  # type: ignore[arg-type]

    async def looked_late() -> None:
        await is_back.wait()
        await look()

    monkeypatch.setattr(throttle, "_count", counted_late)
    monkeypatch.setattr(throttle._breaker, "_ask_for_little", looked_late)  # noqa: SLF001
    monkeypatch.setattr(breaker, "PATIENCE", 0.05)
    monkeypatch.setattr(breaker, "BREAK", 0.0)
    await throttle.hit(RULE, "track", "one")
    for _ in range(5):
        asking = asyncio.create_task(throttle.hit(RULE, "track", "one"))
        await asyncio.sleep(0)
        assert asking.done()
        await asking
    is_back.set()

    async def ask_on() -> None:
        for _ in range(1000):
            await throttle.hit(RULE, "track", "one")
            await asyncio.sleep(0.01)

    with pytest.raises(TooManyRequests):
        await ask_on()


async def test_guesses_are_refused_without_redis(settings: Settings) -> None:
    """Where guessing is what the rule prevents nobody is let through; everybody else is."""
    throttle = Throttle(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    await throttle.hit(RULE, "track", "one")
    with pytest.raises(Unavailable):
        await throttle.hit(RULE, "sign-in", "one", closed_without_redis=True)
    await throttle.aclose()
