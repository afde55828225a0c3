"""Finished pages in Redis, each under the generation it was computed in.

A page belongs to scopes ('all', 'status:RECEIVED', 'customer:…'). A scope's generation is the batch that last changed
it, as PostgreSQL's page_generations has it; Redis holds copies that are only ever raised. A write never deletes a page:
it raises generations, after which the old page's key is asked for by nobody, not even if a slow reader fills it late.

The copies are worth nothing unless somebody keeps them: the leading projector lends the cache an *epoch* for a second
at a time. A leader that takes over, and one that finds the epoch gone (Redis was emptied), begins another, under which
no copy is known yet. With no epoch, readers pass the cache by.
"""

import json
import secrets
import time
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from redis.asyncio import Redis

from db import breaker
from db.breaker import Answer, Breaker, RedisAway
from db.consistency import Checkpoint
from db.redis_clients import REDIS_AWAY
from infra import logs, metrics
from infra.patience import Patience

log = logs.get("page_cache")

PREFIX = "paqueteria:{pages2}"
"""The number is the layout's: in a roll-out, readers that know other scopes than the projector believe no page."""

EPOCH_KEY = f"{PREFIX}:epoch"

EPOCH_LEASE = 1.0
"""Seconds of a projector's silence after which no cached page is believed."""

HEARTBEAT = 0.25
"""Seconds between two heartbeats."""

FORGOTTEN = 3600
"""Seconds after which Redis may forget what was said of a scope; no page lives that long."""

FOLLOWED = 60
"""Seconds within which a page that is filled is told of in the traces of what made it."""

MANY_CUSTOMERS = "many_customers"
"""The scope of every customer's pages: raised in place of their own by a batch that changes very many."""

DISCARDED = "discarded"
"""The message that ends every belief in pages of before; an epoch's name is of hexadecimal digits."""

# Readers with pages of their own hear what is raised at the moment at which it is: the script itself publishes it.
BEGIN = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
"""

RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
"""

RAISE_ONE = """
local function raise(key, epoch, batch)
    local known = redis.call('GET', key)
    local at = known and string.match(known, '^' .. epoch .. ':(%d+)$')
    if not at or tonumber(at) < tonumber(batch) then
        redis.call('SET', key, epoch .. ':' .. batch, 'EX', 3600)
    end
end
"""

RAISE = f"""{RAISE_ONE}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do raise(KEYS[i], ARGV[1], ARGV[i]) end
if ARGV[#KEYS + 1] then redis.call('PUBLISH', ARGV[#KEYS + 1], ARGV[#KEYS + 2]) end
return 1
"""

# Whoever had the claim before may have left the page since it was looked for: to claim is to look again.
CLAIM = """
local taken = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return {taken and 1 or 0, redis.call('MGET', unpack(KEYS, 2))}
"""

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

# Page and generations at one point in time: whoever learns the generations finds the page under them.
KEEP = f"""{RAISE_ONE}
{RELEASE}
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
for i = 4, #KEYS do raise(KEYS[i], ARGV[2], ARGV[i + 1]) end
return 1
"""

FILL_LEASE = 0.75
"""Seconds after which a page that is being computed may be computed by another process too: its reader may be dead."""


@dataclass(frozen=True, slots=True)
class Page:
    """A finished answer: its bytes, the checkpoint its own snapshot saw, and the instant at which time changes it.

    `made_at` is the instant that it was asked for.
    """

    body: bytes
    etag: str
    checkpoint: Checkpoint
    expires_at: datetime | None
    made_at: datetime

    def is_current(self, now: datetime) -> bool:
        """Tell whether time has not changed the page yet; at exactly that instant the old figure still holds."""
        return self.expires_at is None or now <= self.expires_at


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page would stand: under this epoch and these scopes' generations, as far as Redis knows them."""

    digest: str
    epoch: str
    scopes: tuple[str, ...]
    generation: int | None
    discards: str


def customer_scopes(customer_id: object) -> tuple[str, str]:
    """Name the scopes of a page that shows one customer, or what is that customer's."""
    return f"customer:{customer_id}", MANY_CUSTOMERS


def generation_key(scope: str) -> str:
    """Name the copy of a scope's generation."""
    return f"{PREFIX}:generation:{scope}"


def channel_of(redis: Redis) -> str:
    """Name the channel of announcements; channels are of all of Redis's databases, and pages of one."""
    pool = getattr(redis, "connection_pool", None)  # a cluster has many, and one database
    return f"{PREFIX}:announcements:{pool.connection_kwargs.get('db') or 0 if pool else 0}"


def discards_key(scope: str) -> str:
    """Name the count of how often somebody discarded a scope's pages by hand."""
    return f"{PREFIX}:discards:{scope}"


def requests_key(batch: int) -> str:
    """Name the list of the requests that made a batch."""
    return f"{PREFIX}:requests:{batch}"


def _page_key(place: Place, generation: int) -> str:
    return f"{PREFIX}:page:{place.epoch}:{generation}:{place.discards}:{place.digest}"


def _fill_key(place: Place) -> str:
    return f"{PREFIX}:fill:{place.epoch}:{place.generation}:{place.discards}:{place.digest}"


def _place_keys(scopes: Sequence[str]) -> list[str]:
    return [EPOCH_KEY, *map(generation_key, scopes), *map(discards_key, scopes)]


def _place_of(digest: str, scopes: Sequence[str], known: Sequence[bytes | None] | None) -> Place | None:
    """Read the place out of what stands under its `_place_keys`."""
    if not known or known[0] is None:
        return None
    epoch = known[0].decode()
    generations = [_batch_of(value, epoch) for value in known[1 : len(scopes) + 1]]
    discards = ".".join((value or b"0").decode() for value in known[len(scopes) + 1 : 2 * len(scopes) + 1])
    generation = None if None in generations else max(cast("list[int]", generations))
    return Place(digest, epoch, tuple(scopes), generation, discards)


def _batch_of(value: bytes | None, epoch: str) -> int | None:
    of_epoch, _, batch = (value or b"").decode().partition(":")
    return int(batch) if of_epoch == epoch else None


def _pack(page: Page) -> bytes:
    at = page.checkpoint
    expires_at = page.expires_at and page.expires_at.isoformat()
    head = [page.etag, at.incarnation, at.batch, at.snapshot, expires_at, page.made_at.isoformat()]
    return json.dumps(head).encode() + b"\n" + page.body


def _unpack(packed: bytes) -> Page:
    head, _, body = packed.partition(b"\n")
    etag, incarnation, batch, snapshot, expires_at, made_at = json.loads(head)
    checkpoint = Checkpoint(incarnation, batch, snapshot)
    until = datetime.fromisoformat(expires_at) if expires_at else None
    return Page(body, etag, checkpoint, until, datetime.fromisoformat(made_at))


class PageCache:
    """The readers' side. Redis away, slow or full makes it a cache that has nothing; it never raises.

    Then pages come from PostgreSQL alone, until Redis has answered in time again.
    """

    def __init__(self, redis: Redis, ttl: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._breaker = Breaker(lambda: redis.exists(EPOCH_KEY))

    async def find(self, digest: str, scopes: Sequence[str]) -> tuple[Place | None, Page | None]:
        """Look a page up; no place at all means that the cache can't be trusted now, and must not be filled."""
        known = cast("list[bytes | None] | None", await self._ask(self._redis.mget(_place_keys(scopes))))
        place = _place_of(digest, scopes, known)
        return place, await self._page_at(place)

    async def keep(self, place: Place, page: Page, generations: Sequence[int], now: datetime, claim: str = "") -> bool:
        """Store a page under the generations of its scopes that its own snapshot saw in PostgreSQL.

        With it the claim is released; False where that is still to be done.
        """
        seconds = self._ttl
        if page.expires_at is not None:
            seconds = min(seconds, (page.expires_at - now).total_seconds())
        if seconds <= 0:
            return False
        keys = [_fill_key(place), EPOCH_KEY, _page_key(place, max(generations))]
        given: list[str | bytes | int] = [claim, place.epoch, _pack(page), max(1, int(seconds * 1000))]
        if place.generation is None:
            keys += map(generation_key, place.scopes)
            given += generations
        return await self._run(KEEP, keys, *given) is not None

    async def claim(self, place: Place) -> tuple[str | None, Place | None, Page | None]:
        """Take it on to compute this page, under a name to release it by; None while another process does.

        Also looks the page up again, as `find` does.
        """
        name = secrets.token_hex(8)
        keys = [_fill_key(place), *_place_keys(place.scopes)]
        if place.generation is not None:
            keys.append(_page_key(place, place.generation))
        answer = cast(
            "tuple[int, list[bytes | None]] | None", await self._run(CLAIM, keys, name, int(FILL_LEASE * 1000))
        )
        if answer is None:
            return None, None, None
        is_taken, known = answer
        latest = _place_of(place.digest, place.scopes, known)
        if latest == place and place.generation is not None:
            page = _unpack(known[-1]) if known[-1] else None
        else:
            page = await self._page_at(latest)
        return name if is_taken else None, latest, page

    async def release(self, place: Place, name: str) -> None:
        """Let others compute the page, unless the claim has run out and is somebody else's."""
        await self._run(RELEASE, [_fill_key(place)], name)

    async def _page_at(self, place: Place | None) -> Page | None:
        if place is None or place.generation is None:
            return None
        packed = cast("bytes | None", await self._ask(self._redis.get(_page_key(place, place.generation))))
        return _unpack(packed) if packed else None

    async def _run(self, script: str, keys: Sequence[str], *given: str | bytes | int) -> object:
        return await self._ask(cast("Awaitable[object]", self._redis.eval(script, len(keys), *keys, *given)))

    async def requests_of(self, batch: int) -> list[str]:
        """Name the requests that made a batch, where the projector has said so (see `infra.tracing`)."""
        named = cast("bytes | None", await self._ask(self._redis.get(requests_key(batch))))
        return named.decode().split() if named else []

    async def _ask(self, call: Awaitable[Answer]) -> Answer | None:
        try:
            return await self._breaker.ask(call)
        except RedisAway as away:
            if away.is_news:
                metrics.CACHE_ERRORS.inc()
                log.warning("page_cache_away", error=str(away))
            return None


async def discard(redis: Redis, scopes: Iterable[str]) -> None:
    """Discard the scopes' pages, though nothing changed; one that is being filled meanwhile isn't found either."""
    for scope in scopes:
        await redis.incr(discards_key(scope))
        await redis.expire(discards_key(scope), FORGOTTEN)
    await redis.publish(channel_of(redis), DISCARDED)


async def discard_everything(redis: Redis) -> None:
    """End the epoch, and with it all belief in every page; the leading projector begins another."""
    await redis.delete(EPOCH_KEY)
    await redis.publish(channel_of(redis), DISCARDED)


async def raise_generations(redis: Redis, epoch: str, generations: Mapping[str, int], *announcement: str) -> bool:
    """Raise the copies to at least these batches; False when the epoch has passed.

    `announcement` is the channel and the message that tell readers of it, where it is for them to know.
    """
    keys = [EPOCH_KEY, *map(generation_key, generations)]
    call = redis.eval(RAISE, len(keys), *keys, epoch, *generations.values(), *announcement)
    return bool(await cast("Awaitable[int]", call))


async def announce_generations(redis: Redis, epoch: str, scopes: Collection[str], batch: int) -> bool:
    """Raise the scopes to a batch that has committed, and tell the readers; False when the epoch has passed."""
    message = " ".join((epoch, str(batch), *scopes))
    return await raise_generations(redis, epoch, dict.fromkeys(scopes, batch), channel_of(redis), message)


class EpochKeeper:
    """The leading projector's side: announces batches to the cache, and lends it the epoch that makes it believed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._epoch: str | None = None
        self._closed_until = 0.0

    async def begin(self) -> None:
        """Begin another epoch: no page and no copy of a generation from before is believed."""
        self._epoch = secrets.token_hex(8)
        await self._tell(BEGIN, self._epoch)

    async def renew(self) -> None:
        """Say that the projector lives; an epoch that is gone begins anew. With Redis away the lease runs out."""
        try:
            async with Patience(breaker.PATIENCE):
                if self._epoch is None or not await self._tell(RENEW, self._epoch):
                    await self.begin()
        except REDIS_AWAY as error:
            log.warning("page_cache_away", during="heartbeat", error=type(error).__name__)

    async def _tell(self, script: str, epoch: str) -> int | None:
        lease = int(EPOCH_LEASE * 1000)
        call = self._redis.eval(script, 1, EPOCH_KEY, epoch, lease, channel_of(self._redis))
        return await cast("Awaitable[int | None]", call)

    async def begin_anew(self) -> None:
        """Let no page from before be believed: somebody else has changed what they show."""
        self._epoch = None
        await self.renew()

    async def name_requests(self, batch: int, request_ids: Sequence[str]) -> None:
        """Say whose changes a batch holds, for as long as a page of it may be filled."""
        try:
            async with Patience(breaker.PATIENCE):
                await self._redis.set(requests_key(batch), " ".join(request_ids), ex=FOLLOWED)
        except REDIS_AWAY as error:
            log.warning("page_cache_away", during="name_requests", error=type(error).__name__)

    async def announce(self, scopes: Collection[str], batch: int) -> None:
        """Raise the scopes' generations, after the batch has committed.

        A Redis that doesn't answer keeps the projector waiting once in BREAK at most: until the heartbeat has begun
        the next epoch there is nothing to raise, for under that one no copy is known.
        """
        if self._epoch is None and time.monotonic() < self._closed_until:
            return
        try:
            async with Patience(breaker.PATIENCE):
                if self._epoch is None or not await announce_generations(self._redis, self._epoch, scopes, batch):
                    await self.begin()
        except REDIS_AWAY as error:
            log.warning("page_cache_away", during="announce", error=type(error).__name__)
            self._epoch = None  # copies in a Redis that comes back have missed this batch, so the next epoch is another
            self._closed_until = time.monotonic() + breaker.BREAK
