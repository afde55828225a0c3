"""Writes, announcements and fills in every order that a scheduler can think of: nobody sees less than was announced.

PostgreSQL and Redis are models here, of a few lines each; what decides is the product's own code: the cache's `find`
and `keep`, the keeper's announcements, what a process hears of them, its own pages, and the edge that asks them in
turn. Every call to a server is a point at which the scheduler may let somebody else go on.
"""

import contextlib
import random
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from db import announcements, breaker, page_cache
from db.announcements import Announcements, View
from db.consistency import Checkpoint
from db.page_cache import BEGIN, CLAIM, KEEP, RAISE, RELEASE, RENEW, EpochKeeper, Page, PageCache
from queries import pages
from queries.hot_pages import HotPages
from queries.pages import Edge, Query
from tests.support import Clock

SCOPES = ("status:RECEIVED", "customer:7")
SOME = (SCOPES, SCOPES[:1], SCOPES[1:])
CLOCK = Clock()
INTERLEAVINGS = 100_000
PARTS = 4
ROUNDS = 50
"""Interleavings that one world goes through, each beginning with what the one before has left."""

Choice = TypeVar("Choice")


@types.coroutine
def step() -> Generator[None, None, None]:
    """Let somebody else go on."""
    yield


class Redis:
    """The commands that the page cache gives, each of them at one point in time."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.keys: dict[str, bytes] = {}
        self.connection_pool = SimpleNamespace(connection_kwargs={"db": 0})

    async def mget(self, keys: list[str]) -> list[bytes | None]:
        await step()
        return [self.keys.get(key) for key in keys]

    async def get(self, key: str) -> bytes | None:
        await step()
        return self.keys.get(key)

    async def eval(self, script: str, count: int, *rest: Any) -> Any:  # noqa: ANN401
        await step()
        keys, given = (
            rest[:count],
            [value.decode() if isinstance(value, bytes) else str(value) for value in rest[count:]],
        )
        return SCRIPTS[script](self, keys, given)

    def begin(self, keys: tuple[str, ...], given: list[str]) -> None:
        self.keys[keys[0]] = given[0].encode()
        self.world.announced = dict(
            self.world.generations
        )  # what it covers has committed, and no page of before counts
        self.publish(given[0], self.world.announced)

    def renew(self, keys: tuple[str, ...], given: list[str]) -> int:
        if self.keys.get(keys[0]) != given[0].encode():
            return 0
        self.publish(given[0], {})
        return 1

    def raise_(self, keys: tuple[str, ...], given: list[str]) -> int:
        if self.keys.get(keys[0]) != given[0].encode():
            return 0
        for key, value in zip(keys[1:], given[1:], strict=False):
            self.raise_one(key, given[0], int(value))
        if len(given) > len(keys):
            told = {scope: int(given[1]) for scope in given[-1].split()[2:]}
            for scope, batch in told.items():
                self.world.announced[scope] = max(batch, self.world.announced[scope])
            self.publish(given[-1], told)
        return 1

    def raise_one(self, key: str, epoch: str, batch: int) -> None:
        of_epoch, _, known = self.keys.get(key, b"").decode().partition(":")
        if of_epoch != epoch or int(known) < batch:
            self.keys[key] = f"{epoch}:{batch}".encode()

    def claim(self, keys: tuple[str, ...], given: list[str]) -> tuple[int, list[bytes | None]]:
        is_taken = keys[0] not in self.keys
        if is_taken:
            self.keys[keys[0]] = given[0].encode()
        return int(is_taken), [self.keys.get(key) for key in keys[1:]]

    def keep(self, keys: tuple[str, ...], given: list[str]) -> int:
        self.release(keys, given)
        if self.keys.get(keys[1]) != given[1].encode():
            return 0
        self.keys[keys[2]] = given[2].encode()
        for key, batch in zip(keys[3:], given[4:], strict=True):
            self.raise_one(key, given[1], int(batch))
        return 1

    def release(self, keys: tuple[str, ...], given: list[str]) -> None:
        if self.keys.get(keys[0]) == given[0].encode():
            del self.keys[keys[0]]

    def publish(self, message: str, told: dict[str, int]) -> None:
        for process in self.world.processes:
            if process.is_subscribed:
                process.inbox.append((message, told))


SCRIPTS: dict[str, Callable[[Redis, tuple[str, ...], list[str]], Any]] = {
    BEGIN: Redis.begin,
    RENEW: Redis.renew,
    RAISE: Redis.raise_,
    RELEASE: Redis.release,
    CLAIM: Redis.claim,
    KEEP: Redis.keep,
}


class Process:
    """One reader's process: its subscription, its pages, and what it has been told."""

    def __init__(self, world: "World") -> None:
        redis = cast("Any", world.redis)
        self.announcements = Announcements(redis)
        self.inbox: deque[tuple[str, dict[str, int]]] = deque()
        self.is_subscribed = True
        self.heard = dict.fromkeys(SCOPES, 0)
        self.connections = cast(
            "Any",
            SimpleNamespace(
                page_cache=PageCache(redis, ttl=30),
                watcher=SimpleNamespace(current=None, is_away=False),
                tokens=SimpleNamespace(sign=lambda _: "token"),
                sessions=None,
                settings=SimpleNamespace(cache_ttl=30),
            ),
        )
        self.pages = HotPages(self.connections, self.announcements, CLOCK)
        self.flights = cast("Any", SimpleNamespace(share=lambda _, make, __: make()))
        self.subscribe(world)

    def hear(self) -> None:
        message, told = self.inbox.popleft()
        self.announcements.hear(message, 0.0)
        for scope, batch in told.items():
            self.heard[scope] = max(batch, self.heard[scope])

    def lose_subscription(self) -> None:
        self.is_subscribed = False
        self.inbox.clear()
        self.announcements.forget()

    def subscribe(self, world: "World") -> None:
        self.is_subscribed = True
        self.announcements.answered(0.0, 0.0)
        self.heard = dict(world.announced)


@dataclass
class World:
    """All of it. `generations` has committed; `announced` is what nobody may be shown less than."""

    chance: random.Random
    generations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCOPES, 1))
    announced: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCOPES, 1))
    batch: int = 1
    old: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processes: list[Process] = []
        self.redis = Redis(self)
        self.processes += [Process(self), Process(self)]
        self.keeper = EpochKeeper(cast("Any", self.redis))

    def round(self) -> None:
        """Let some of what can happen happen, interleaved."""
        running: list[Coroutine[Any, Any, None]] = [self.read(self.one_of(self.processes)) for _ in range(2)]
        running += [self.write(), self.one_of((self.write, self.beat, self.beat, self.lead))()]
        while running:
            self.disturb()
            coroutine = self.one_of(running)
            try:
                coroutine.send(None)
            except StopIteration:
                running.remove(coroutine)

    def one_of(self, several: Sequence[Choice]) -> Choice:
        return several[int(self.chance.random() * len(several))]

    def disturb(self) -> None:
        dice = self.chance.random()
        process = self.one_of(self.processes)
        if dice < 0.3 and process.inbox:
            process.hear()
        elif dice > 0.99:
            self.redis.keys.clear()
        elif dice > 0.98:
            process.lose_subscription()
        elif dice > 0.9 and not process.is_subscribed:
            process.subscribe(self)

    async def write(self) -> None:
        """Commit a batch, then announce it; a projector may die in between."""
        await step()
        scopes = self.one_of(SOME)
        self.batch += 1
        batch, keeper = self.batch, self.keeper
        self.generations |= dict.fromkeys(scopes, batch)
        await step()
        if self.chance.random() < 0.9:
            await keeper.announce(scopes, batch)
        else:
            await self.lead()

    async def beat(self) -> None:
        """Renew the lease."""
        await self.keeper.renew()

    async def lead(self) -> None:
        """Let another projector lead, which doesn't know what its predecessor has announced."""
        self.keeper = EpochKeeper(cast("Any", self.redis))
        await self.keeper.begin_anew()

    async def read(self, process: Process) -> None:
        """Ask for a page, and hold it against what was announced when the question was put."""
        scopes = self.one_of(SOME)
        announced, heard = dict(self.announced), dict(process.heard)
        process.connections.watcher.current = Checkpoint("life", max(announced.values()), "10:10:")
        edge = ModelEdge(
            cast("Any", self),
            process.connections,
            process.pages,
            process.flights,
            signing_key="",
            token=None,
            if_none_match="",
            no_store=False,
            is_gzipped=False,
        )
        page, outcome = await edge.page(Query("", {"scopes": scopes}, CLOCK(), {}, scopes))
        shown = dict(zip(scopes, map(int, page.body.split()), strict=True))
        needed = heard if outcome == "L1" else announced
        if any(shown[scope] < needed[scope] for scope in scopes):
            self.old.append(outcome)


class ModelEdge(Edge):
    """The edge, its snapshot taken from the model."""

    async def wait(self) -> None:
        """There are no tokens here."""

    async def _compute(self, query: Query) -> tuple[Page, list[int]]:
        await step()
        world = cast("World", self.request)
        shown = {scope: world.generations[scope] for scope in query.scopes}
        at = Checkpoint("life", world.batch, "10:10:")
        await step()
        return Page(b" ".join(b"%d" % batch for batch in shown.values()), '"tag"', at, None, CLOCK()), list(
            shown.values()
        )


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let coroutines run without a loop, and time stand still."""

    @contextlib.asynccontextmanager
    async def patience(_: float) -> Any:  # noqa: ANN401
        yield

    async def sleep(_: float) -> None:
        await step()

    monkeypatch.setattr(breaker, "Patience", patience)
    monkeypatch.setattr(page_cache, "Patience", patience)
    monkeypatch.setattr(pages, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(announcements, "time", SimpleNamespace(monotonic=lambda: 0.5))


def explore(interleavings: int, part: int = 0) -> None:
    for seed in range(interleavings // ROUNDS):
        world = World(random.Random(f"{part} {seed}"))  # noqa: S311 (the same ones each time)
        for _ in range(ROUNDS):
            world.round()
            assert world.old == [], "an old page was shown"


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize("part", [pytest.param(part, marks=pytest.mark.long if part else ()) for part in range(PARTS)])
def test_no_order_of_things_shows_an_old_page(part: int) -> None:
    """A page is never older than what was announced, in Redis or, for a page in memory, to this process."""
    explore(INTERLEAVINGS // PARTS, part)


def deleted_pages(patch: pytest.MonkeyPatch) -> None:
    """Keep one page for each question, and delete it upon a write."""
    patch.setattr(page_cache, "_page_key", lambda place, _generation: f"{page_cache.PREFIX}:page:{place.digest}")

    def delete(redis: Redis, keys: tuple[str, ...], given: list[str]) -> int:
        redis.keys = {key: value for key, value in redis.keys.items() if ":page:" not in key}
        return Redis.raise_(redis, keys, given)

    patch.setitem(SCRIPTS, RAISE, delete)


def deleted_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Drop the pages in memory upon an announcement, and believe those that come afterwards."""
    hear = View.hear

    def forgetting(view: View, batch: int, scopes: Sequence[str]) -> None:
        hear(view, batch, scopes)
        view._raised.clear()  # noqa: SLF001 (what is mutated)

    patch.setattr(View, "hear", forgetting)


def believed_after_a_gap(patch: pytest.MonkeyPatch) -> None:
    """Go on with what was heard before the subscription was lost."""
    patch.setattr(Announcements, "forget", lambda _: None)


def kept_under_a_later_view(patch: pytest.MonkeyPatch) -> None:
    """Believe a page under the view that stands when it has been computed."""
    keep = HotPages.keep

    def keep_now(hot: HotPages, finished: Any, scopes: Any, view: View | None) -> Any:  # noqa: ANN401
        return keep(hot, finished, scopes, view and hot.announcements.current)

    patch.setattr(HotPages, "keep", keep_now)


def no_epoch_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Go on believing when another projector leads."""
    hear = Announcements.hear

    def hear_any(heard: Announcements, text: str, now: float) -> None:
        epoch, *rest = text.split()
        hear(heard, " ".join((heard.view.epoch if heard.view else epoch, *rest)), now)

    patch.setattr(Announcements, "hear", hear_any)


def one_epoch_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Begin every epoch under the same name."""
    patch.setattr(page_cache, "secrets", SimpleNamespace(token_hex=lambda _: "ever"))


def lowering(patch: pytest.MonkeyPatch) -> None:
    """Set a copy to whatever is announced last."""
    patch.setattr(Redis, "raise_one", lambda r, key, epoch, batch: r.keys.update({key: f"{epoch}:{batch}".encode()}))


def generation_read_before(patch: pytest.MonkeyPatch) -> None:
    """Keep a page under the generation that Redis tells while it is kept."""
    keep = PageCache.keep

    async def keep_there(cache: PageCache, place: Any, page: Page, generations: Any, *rest: Any) -> bool:  # noqa: ANN401
        told = await cache._redis.mget([page_cache.generation_key(scope) for scope in place.scopes])  # noqa: SLF001
        known = [int(str(value, "ascii").partition(":")[2]) for value in told if isinstance(value, bytes)]
        return await keep(cache, place, page, [*known, *generations][: len(place.scopes)], *rest)

    patch.setattr(PageCache, "keep", keep_there)


def no_epoch_in_redis(patch: pytest.MonkeyPatch) -> None:
    """Find pages of any epoch."""
    patch.setattr(page_cache, "_page_key", lambda place, generation: f":page:{generation}:{place.digest}")
    patch.setattr(page_cache, "_batch_of", lambda value, _: int(value[value.index(b":") + 1 :]) if value else None)


MUTANTS = [
    deleted_pages,
    deleted_in_memory,
    believed_after_a_gap,
    kept_under_a_later_view,
    no_epoch_in_memory,
    one_epoch_for_ever,
    lowering,
    generation_read_before,
    no_epoch_in_redis,
]


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_broken(monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None]) -> None:
    """With the one guard broken, some order shows an old page."""
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match="an old page was shown"):
        explore(INTERLEAVINGS)


@pytest.mark.usefixtures("scheduled")
def test_the_scheduler_reaches_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages come from memory, from Redis, computed, and past both: none of them is tried by chance alone."""
    outcomes: dict[str, int] = {}
    ask = Edge.page

    async def noting(edge: Edge, query: Query) -> tuple[Page, str]:
        page, outcome = await ask(edge, query)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        return page, outcome

    monkeypatch.setattr(ModelEdge, "page", noting)
    explore(5_000)
    assert {outcome for outcome, count in outcomes.items() if count > 100} == {"L1", "L2", "MISS", "BYPASS"}
