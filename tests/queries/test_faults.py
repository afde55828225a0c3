"""Servers that are away, slow or full: a reader gets the page, the last one marked as such, or a 503."""

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from db import breaker, consistency, page_cache, redis_clients
from db.breaker import PATIENCE
from db.embedded import ValkeyServer
from db.page_cache import EPOCH_KEY, Page, PageCache, Place
from db.roles import urls_of
from infra.auth import Role
from infra.settings import Settings
from queries.api import create_app
from queries.flights import Flights
from queries.pages import Edge
from tests.chaos.proxy import Proxy
from tests.queries.support import Shop
from tests.support import Clock, wait_until

AT_ONCE = 500

Claimed = tuple[str | None, Place | None, Page | None]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of PostgreSQL; nothing is answered before everybody has come."""
    asked: list[str] = []
    arrived: list[str] = []
    complete = asyncio.Event()
    run, share = Edge._run, Flights.share  # noqa: SLF001 (the one place that asks)

    async def counting(edge: Edge, query: Any) -> Any:  # noqa: ANN401
        asked.append(query.statement)
        await complete.wait()
        return await run(edge, query)

    async def arriving(flights: Flights[Any], name: str, *how: Any) -> Any:  # noqa: ANN401
        arrived.append(name)
        if len(arrived) == AT_ONCE:
            complete.set()
        return await share(flights, name, *how)

    monkeypatch.setattr(Edge, "_run", counting)
    monkeypatch.setattr(Flights, "share", arriving)
    # What 500 requests at once take of a busy processor is nobody's silence.
    monkeypatch.setattr(redis_clients, "ANSWERED_WITHIN", 60)
    monkeypatch.setattr(page_cache, "FILL_LEASE", 60)
    monkeypatch.setattr(consistency, "SILENCE", 60)
    return asked


async def ask_at_once(shop: Shop, *apps: FastAPI) -> set[bytes]:
    """Ask all of the processes for one page, many times at once, and give the different answers."""
    headers = shop.sign_in()
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx2.ASGITransport(app)
            clients.append(httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=60))
            await anext(app.state.connections.watcher.batches())
        requests = (clients[n % len(clients)].get("/api/v1/packages", headers=headers) for n in range(AT_ONCE))
        answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {200}
    return {answer.content for answer in answers}


@pytest.mark.anyio
async def test_many_cold_requests_make_one_query_in_the_cluster(
    shop: Shop, settings: Settings, clock: Clock, computed: list[str]
) -> None:
    """500 at once, on two processes: one of them computes the page, and the others wait for it."""
    shop.publish(shop.stored())
    assert len(await ask_at_once(shop, create_app(settings, clock), create_app(settings, clock))) == 1
    assert len(computed) == 1


@pytest.mark.anyio
async def test_without_redis_they_make_one_query_in_a_process(
    shop: Shop, settings: Settings, clock: Clock, computed: list[str]
) -> None:
    """Nobody can tell the other processes, but within each the one computation is shared."""
    shop.publish(shop.stored())
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    assert len(await ask_at_once(shop, create_app(away, clock))) == 1
    assert len(computed) == 1


def test_whoever_dies_while_computing_holds_nobody_up_for_long(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that nobody releases runs out, within a second, and the next process computes the page."""
    assert page_cache.FILL_LEASE < 1
    shop.publish(shop.stored())
    claimed: list[str | None] = []
    claim = PageCache.claim

    async def after_another(cache: PageCache, place: Place) -> Claimed:
        if not claimed:
            claimed.append((await claim(cache, place))[0])
        answer = await claim(cache, place)
        claimed.append(answer[0])
        return answer

    monkeypatch.setattr(PageCache, "claim", after_another)
    answer = shop.get("/packages")
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, "MISS")
    first, *vain, last = claimed
    assert (first is not None, set(vain), last is not None) == (True, {None}, True)


def test_a_page_left_just_before_the_claim_is_not_computed_again(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has finished it between our look and our claim, which is then free again."""
    shop.publish(shop.stored())
    claim = PageCache.claim
    with through(settings, clock) as other:
        asked: list[httpx2.Response] = []

        async def after_another(cache: PageCache, place: Place) -> Claimed:
            if cache is not other.app.state.connections.page_cache and not asked:  # type: ignore[attr-defined]
                ask = functools.partial(other.get, "/api/v1/packages", headers=shop.sign_in())
                asked.append(await asyncio.to_thread(ask))
            return await claim(cache, place)

        monkeypatch.setattr(PageCache, "claim", after_another)
        answers = [shop.get("/packages"), *asked]
    assert [(answer.status_code, answer.headers["X-Cache"]) for answer in answers] == [(200, "L2"), (200, "MISS")]


@pytest.mark.anyio
async def test_what_began_earlier_is_shared_only_if_it_is_good_enough() -> None:
    """A caller who must see more than a flight under way shows waits for the next, which is shared by all such."""
    flights: Flights[int] = Flights()
    begun = asyncio.Event()
    made: list[int] = []

    async def make() -> int:
        number = len(made)
        made.append(number)
        await begun.wait()
        return number

    first = asyncio.create_task(flights.share("page", make, lambda _: True))
    await asyncio.sleep(0)
    later = [asyncio.create_task(flights.share("page", make, lambda number: number > 0)) for _ in range(5)]
    content = asyncio.create_task(flights.share("page", make, lambda _: True))
    await asyncio.sleep(0)
    begun.set()
    assert [await first, await content, *[await one for one in later]] == [0, 0, *[1] * 5]
    assert made == [0, 1]


@pytest.mark.anyio
async def test_a_flights_failure_is_not_that_of_later_callers() -> None:
    """Nor is the cancellation of whoever began it."""
    flights: Flights[int] = Flights()
    outcomes: list[Exception | None] = [ValueError("it failed"), None]

    async def make() -> int:
        outcome = outcomes.pop(0)
        await asyncio.sleep(0.01)
        if outcome is not None:
            raise outcome
        return 1

    first = asyncio.create_task(flights.share("page", make, lambda _: True))
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.share("page", make, lambda _: True))
    third = asyncio.create_task(flights.share("page", make, lambda _: True))
    with pytest.raises(ValueError, match="it failed"):
        await first
    await asyncio.sleep(0)
    second.cancel()
    assert await third == 1


def through(settings: Settings, clock: Clock, **urls: str) -> TestClient:
    """Serve the same shop by an application that reaches a server another way."""
    return TestClient(create_app(settings.model_copy(update=urls), clock), raise_server_exceptions=False)


def test_a_full_redis_keeps_nothing_and_harms_nobody(
    shop: Shop, settings: Settings, clock: Clock, server_folder: Path
) -> None:
    """What can't be stored is computed again, in the process's memory or from PostgreSQL."""
    row = shop.stored()
    shop.publish(row)
    server = ValkeyServer(
        server_folder / "full", server_folder / "full-run", {"maxmemory": "1", "maxmemory-policy": "noeviction"}
    )
    server.start()
    try:
        with through(settings, clock, redis_url=server.url) as client:
            for version in (2, 3):
                shop.publish({**row, "version": version})
                answer = client.get("/api/v1/packages", headers=shop.sign_in())
                assert (answer.status_code, answer.json()["items"][0]["version"]) == (200, version)
    finally:
        server.stop()


@pytest.fixture
def database_away(settings: Settings, clock: Clock) -> Iterator[tuple[TestClient, Proxy]]:
    """The same shop through a line to PostgreSQL that can be cut."""
    with Proxy.before(settings.postgres_dsn) as (proxy, dsn), through(settings, clock, **urls_of(dsn)) as client:
        watcher = client.app.state.connections.watcher  # type: ignore[attr-defined]
        wait_until(lambda: watcher.is_hearing)  # whoever was known before it began to hear has to be looked up again
        yield client, proxy


def test_with_the_database_away_the_last_page_is_shown_as_stale(
    shop: Shop, database_away: tuple[TestClient, Proxy]
) -> None:
    """With its age, five minutes at most; never once time has changed it, nor short of what a token says."""
    client, proxy = database_away
    row = shop.stored(hours=24 - 4 / 60)
    batch = shop.publish(row)
    headers = shop.sign_in()

    def ask(path: str, **more: str) -> Any:  # noqa: ANN401
        sent = headers | {name.replace("_", "-"): value for name, value in more.items()}
        return client.get(f"/api/v1{path}", headers=sent)

    paths = ("/packages", "/packages?status=DELIVERED")
    fresh = {path: ask(path) for path in paths}
    proxy.refuse()
    shop.redis.delete(EPOCH_KEY)  # nobody projects without a database
    watcher = client.app.state.connections.watcher  # type: ignore[attr-defined]
    wait_until(lambda: watcher.is_away)
    shop.clock.advance(minutes=4)
    for path in paths:
        answer = ask(path)
        assert (answer.status_code, answer.headers["X-Cache"], answer.headers["Age"]) == (200, "STALE", "240"), path
        assert answer.content == fresh[path].content
        assert ask(path, If_None_Match=answer.headers["ETag"]).status_code == 304
        assert ask(path, **shop.token(batch=batch)).status_code == 200
        assert ask(path, **shop.token(batch=batch + 1)).status_code == 503
        assert ask(path, Cache_Control="no-store").status_code == 503
    assert ask("/packages?limit=7").status_code == 503
    assert ask("/packages", Authorization="Bearer x").status_code == 401
    assert ask("/packages", **shop.sign_in(Role.ADMIN)).status_code == 503  # nobody knows any more who that is
    shop.clock.advance(microseconds=1)
    assert [ask(path).status_code for path in paths] == [503, 200]
    shop.clock.advance(minutes=1)
    assert ask(paths[1]).status_code == 503

    proxy.accept_again()
    shop.redis.set(EPOCH_KEY, "the next")
    wait_until(lambda: not watcher.is_away)
    shop.publish({**row, "version": 9})
    wait_until(lambda: ask("/packages").status_code == 200)
    answer = ask("/packages")
    assert (answer.headers["X-Cache"] != "STALE", answer.json()["items"][0]["version"]) == (True, 9)


def test_a_redis_that_answers_late_is_done_without(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once in a while; in between, and while it is waited for, pages come from PostgreSQL alone."""
    assert PATIENCE <= 0.25
    monkeypatch.setattr(breaker, "PATIENCE", PATIENCE)
    row = shop.stored()
    shop.publish(row)
    socket = settings.redis_dsn.removeprefix("unix://").partition("?")[0]
    with Proxy(Path(socket)).open() as proxy:
        database = settings.redis_dsn.rpartition("=")[2]
        with through(settings, clock, redis_url=f"redis://127.0.0.1:{proxy.port}/{database}") as client:
            assert client.get("/api/v1/packages", headers=shop.sign_in()).status_code == 200
            proxy.hush()
            for version in (3, 4):
                shop.publish({**row, "version": version})
                answer = client.get("/api/v1/packages", headers=shop.sign_in())
                assert (answer.status_code, answer.headers["X-Cache"]) == (200, "BYPASS")
                assert answer.json()["items"][0]["version"] == version
            proxy.speak()


def test_a_redis_slow_by_half_a_second_slows_one_read(
    shop: Shop, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that meets it waits for a moment; the others get their page from PostgreSQL, and wait for nothing."""
    monkeypatch.setattr(breaker, "PATIENCE", PATIENCE)
    monkeypatch.setattr(breaker, "BREAK", 0.0)
    row = shop.stored()
    shop.publish(row)
    socket = settings.redis_dsn.removeprefix("unix://").partition("?")[0]
    with Proxy(Path(socket)).open() as proxy:
        database = settings.redis_dsn.rpartition("=")[2]
        with through(settings, clock, redis_url=f"redis://127.0.0.1:{proxy.port}/{database}") as client:
            assert client.get("/api/v1/packages", headers=shop.sign_in()).status_code == 200
            proxy.slow_down(0.5)
            waited = REGISTRY.get_sample_value("paqueteria_page_cache_errors_total") or 0.0
            for version in range(3, 8):
                shop.publish({**row, "version": version})
                answer = client.get("/api/v1/packages", headers=shop.sign_in())
                assert (answer.status_code, answer.headers["X-Cache"]) == (200, "BYPASS")
                assert answer.json()["items"][0]["version"] == version
            assert REGISTRY.get_sample_value("paqueteria_page_cache_errors_total") == waited + 1
