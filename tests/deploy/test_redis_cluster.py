"""Pages in a real Redis Cluster: what a single server promises holds there too, and while a master is killed."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx2
import psycopg
import pytest

import queries.api
from db.consistency import Token, TokenSigner
from db.page_cache import EPOCH_KEY, PREFIX, channel_of
from db.redis_clients import make_redis, places
from db.throttle import Throttle
from infra.auth import Session, encode_session
from infra.clock import system_clock
from infra.errors import TooManyRequests
from infra.settings import Settings
from tests.deploy import cluster
from tests.deploy.cluster import Cluster
from tests.projections.conftest import Shop
from tests.service import projecting, serving
from tests.support import wait_until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("redis_cluster")]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster.running(tmp_path) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, nodes: Cluster) -> Settings:
    return settings.model_copy(update={"redis_url": nodes.url})


@pytest.fixture
def shop(database: str) -> Iterator[Shop]:
    shop = Shop(database, system_clock)  # type: ignore[arg-type] # real time, since the fault takes some
    yield shop
    shop.close()


def test_the_address_names_nodes_and_who_signs_in() -> None:
    """As many nodes as there are; whichever answers tells of the others."""
    assert places("redis+cluster://u:p@a:1,b:2/?ssl=true") == [("a", 1), ("b", 2)]


@pytest.mark.anyio
async def test_the_throttle_counts_in_a_cluster(settings: Settings) -> None:
    """Its keys are spread over the nodes, and each is counted."""
    throttle = Throttle(settings)
    for who in ("one", "other"):
        await throttle.hit("1/minute", who)
        with pytest.raises(TooManyRequests):
            await throttle.hit("1/minute", who)
    await throttle.aclose()


SHOWN = """
SELECT incarnation, batch, (SELECT coalesce(sum(count), 0)::int FROM package_counts) FROM projection_checkpoint
"""


class Load:
    """Writes without a pause, and reads by a token of what has just been projected."""

    def __init__(self, settings: Settings, shop: Shop) -> None:
        self._settings = settings
        self._shop = shop
        self._ended = threading.Event()
        self._signer = TokenSigner(settings.signing_key())
        self.wrong: list[str] = []
        self.outcomes: list[str] = []

    @contextlib.contextmanager
    def on(self, *urls: str) -> Iterator[None]:
        """Go on while the block lasts, reading from each process."""
        threads = [threading.Thread(target=self._read, args=[url]) for url in urls]
        threads.append(threading.Thread(target=self._write))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def wait_for(self, *outcomes: str) -> None:
        """Return once pages have come from all of these places, from now on."""
        self.outcomes.clear()
        wait_until(lambda: set(outcomes) <= set(self.outcomes))

    def _write(self) -> None:
        for number in itertools.count():
            if self._ended.wait(0.02):
                return
            self._shop.announce(phone=f"+57300{number:07}")

    def _read(self, url: str) -> None:
        session = encode_session(Session(self._shop.staff_id, 1), self._settings.signing_key(), system_clock())
        headers = {"Authorization": f"Bearer {session}"}
        with (
            psycopg.connect(self._settings.postgres_dsn, autocommit=True) as conn,
            httpx2.Client(base_url=url, headers=headers) as client,
        ):
            while not self._ended.is_set():
                incarnation, batch, least = conn.execute(SHOWN).fetchone() or ("", 0, 0)
                token = self._signer.sign(Token(incarnation, batch=batch))
                answer = client.get("/api/v1/packages", headers={"Consistency-Token": token})
                if answer.status_code != HTTPStatus.OK or answer.json()["count"] < least:
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}, at least {least}")
                self.outcomes.append(answer.headers.get("X-Cache", "none"))


def test_no_page_is_wrong_while_a_master_is_killed(settings: Settings, shop: Shop, nodes: Cluster) -> None:
    """Every answer shows what its token names, whichever node has gone; and pages are cached again afterwards."""
    load = Load(settings, shop)
    with (
        projecting(settings, system_clock),
        serving(queries.api.create_app(settings)) as one,
        serving(queries.api.create_app(settings)) as other,
        load.on(one, other),
    ):
        load.wait_for("L1", "MISS")
        for _ in range(2):
            master = nodes.master_of(EPOCH_KEY)
            master.kill()
            load.wait_for("BYPASS")
            load.wait_for("L1", "MISS")
            assert nodes.master_of(EPOCH_KEY) is not master
            master.start()
            wait_until(nodes.is_whole)
    assert load.wrong == []


@pytest.mark.anyio
async def test_all_that_is_of_pages_is_in_one_place(settings: Settings) -> None:
    """One hash tag, so that scripts see their keys, and whoever listens does so where they speak."""
    async with make_redis(settings) as client:
        slots = {client.keyslot(key) for key in (EPOCH_KEY, f"{PREFIX}:page:1", channel_of(client))}  # type: ignore[attr-defined]
        await client.set(EPOCH_KEY, "here")
        async with client.pubsub() as subscription:
            await subscription.subscribe(channel_of(client))
            await asyncio.sleep(0)
            script = "redis.call('PUBLISH', ARGV[1], 'said') return redis.call('GET', KEYS[1])"
            assert await client.eval(script, 1, EPOCH_KEY, channel_of(client)) == b"here"
            heard = [await subscription.get_message(timeout=5) for _ in range(2)]
    assert len(slots) == 1
    assert [message and message["type"] for message in heard] == ["subscribe", "message"]
