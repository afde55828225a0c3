"""Reads go to a real standby, and nobody notices when it lags, dies, or has to cancel them."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg.conninfo import make_conninfo

from db import replica_health, replicas
from db.connections import Connections
from db.embedded import PostgresServer
from db.migrate import migrate
from db.replicas import Replica
from infra.settings import READ_ROLE, Settings
from infra.tasks import running
from queries.api import create_app
from tests.deploy.test_monitoring import ALERTS, NAME
from tests.queries.support import Shop
from tests.standbys import copied, pair, wait_for_replay
from tests.support import gauge, moved, until, wait_until

pytestmark = pytest.mark.xdist_group("replicas")

TEMPLATE = "template_shop"
NO_STORE = {"Cache-Control": "no-store"}
"""Past the caches: each such read is one of PostgreSQL's."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with pair(tmp_path_factory.mktemp("pair")) as (primary, standby):
        with psycopg.connect(primary.dsn("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(primary.dsn(TEMPLATE))
        yield primary, standby


@pytest.fixture
def database(servers: tuple[PostgresServer, PostgresServer]) -> str:
    """A database on both, known to the standby."""
    name = f"shop_{next(_numbers)}"
    primary, standby = servers
    with psycopg.connect(primary.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    wait_for_replay(primary.dsn("postgres"), standby.dsn("postgres"))
    return primary.dsn(name)


@pytest.fixture
def on_standby(servers: tuple[PostgresServer, PostgresServer], database: str) -> str:
    """The same database, as the standby has it."""
    return make_conninfo(database, host=str(servers[1].socket_dir))


@pytest.fixture
def settings(settings: Settings, database: str, on_standby: str) -> Settings:
    return moved(settings, database).model_copy(update={"replica_urls": (make_conninfo(on_standby, user=READ_ROLE),)})


def replica_of(shop: Shop) -> Replica:
    connections: Connections = shop.client.app.state.connections  # type: ignore[attr-defined]
    (replica,) = connections.readers.replicas
    wait_until(lambda: replica.checkpoint is not None)
    return replica


def asked(replica: Replica) -> int:
    """How often somebody was lent a connection to it."""
    return replica.pool.get_stats().get("requests_num", 0)


def count(shop: Shop, **headers: str) -> int:
    answer = shop.get("/packages", NO_STORE | headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["count"])


def test_reads_go_to_the_standby(shop: Shop, database: str, on_standby: str) -> None:
    """All of them, while it keeps up; and it shows what the primary does."""
    shop.publish(shop.stored())
    wait_for_replay(database, on_standby)
    replica = replica_of(shop)
    before = asked(replica)
    assert [count(shop) for _ in range(5)] == [1] * 5
    assert asked(replica) - before == 5


@contextlib.contextmanager
def lagging(standby: str) -> Iterator[None]:
    """A standby that receives and doesn't replay."""
    with psycopg.connect(standby, autocommit=True) as conn:
        conn.execute("SELECT pg_wal_replay_pause()")
        wait_until(lambda: conn.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        yield
        conn.execute("SELECT pg_wal_replay_resume()")


@pytest.mark.anyio
async def test_lag_grows_while_a_standby_does_not_replay(
    database: str, on_standby: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the figures that the alert asks for; one that stands still is up all the same, and then catches up."""
    (expression,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "ReplicaLag")
    lag, up = (name.removeprefix("paqueteria_") for name in NAME.findall(expression))
    monkeypatch.setattr(replica_health, "EVERY", 0.01)

    def behind() -> float:
        return gauge(lag, replica="replica 1") or 0.0

    async with running(replica_health.watch(database, (make_conninfo(on_standby, user=READ_ROLE),))):
        await until(lambda: gauge(up, replica="replica 1") == 1 and gauge(lag, replica="replica 1") == 0)
        with lagging(on_standby), psycopg.connect(database, autocommit=True) as conn:
            conn.execute("CREATE TABLE written ()")
            await until(lambda: behind() > 0.1)
            await until(lambda: behind() > 0.3)
            assert gauge(up, replica="replica 1") == 1
        await until(lambda: behind() == 0)


def test_a_lagging_standby_is_passed_over_for_a_token(shop: Shop, on_standby: str) -> None:
    """Whoever names a change gets it at once, from the primary, and never an older page."""
    replica = replica_of(shop)
    with lagging(on_standby):
        batch = shop.publish(shop.stored())
        assert count(shop, **shop.token(batch=batch)) == 1
        xid = shop.conn.execute(
            "SELECT pg_snapshot_xmax(snapshot)::text::bigint - 1 FROM projection_checkpoint"
        ).fetchone()
        assert xid is not None
        assert count(shop, **shop.token(xid=xid[0])) == 1
        assert replica.checkpoint is not None
        assert replica.checkpoint.batch < batch


def test_a_standby_that_stays_behind_is_passed_over_for_all(
    shop: Shop, on_standby: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names nothing may see a page that is a second old, and no older one."""
    monkeypatch.setattr(replicas, "LATE", 0.2)
    replica_of(shop)
    with lagging(on_standby):
        shop.publish(shop.stored())
        wait_until(lambda: count(shop) == 1)


def test_a_page_of_a_lagging_standby_is_not_kept(shop: Shop, on_standby: str) -> None:
    """It would be shown to others as if it were the newest."""
    replica_of(shop)
    shop.get("/packages")
    with lagging(on_standby):
        shop.publish(shop.stored())
        shop.get("/packages")
    wait_until(lambda: shop.get("/packages").json()["count"] == 1)


@pytest.fixture
def mortal(tmp_path: Path, servers: tuple[PostgresServer, PostgresServer]) -> Iterator[PostgresServer]:
    """Another standby, which a test may kill, and which cancels its readers for whatever it has to replay."""
    tmp_path.chmod(0o755)
    careless = {"hot_standby_feedback": "off", "max_standby_streaming_delay": "0"}
    standby = copied(servers[0], tmp_path / "mortal", careless)
    standby.start()
    yield standby
    standby.stop()


@pytest.fixture
def readers(shop: Shop, mortal: PostgresServer) -> Iterator[Callable[[], list[int]]]:
    """Reads without a pause, by a process whose standby is mortal; gives the answers' statuses."""
    name = shop.conn.info.dbname
    settings = shop.settings.model_copy(update={"replica_urls": (make_conninfo(mortal.dsn(name), user=READ_ROLE),)})
    statuses: list[int] = []
    ended = threading.Event()
    headers = shop.sign_in() | NO_STORE
    with TestClient(create_app(settings, shop.clock), raise_server_exceptions=False) as client:

        def read() -> None:
            while not ended.is_set():
                statuses.append(client.get("/api/v1/packages?limit=100", headers=headers).status_code)

        replica_of(replace(shop, client=client))
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        yield lambda: statuses
        ended.set()
        for thread in threads:
            thread.join()


def more(readers: Callable[[], list[int]], reads: int = 30) -> None:
    """Return once so many more reads have been answered."""
    before = len(readers())
    wait_until(lambda: len(readers()) >= before + reads)


@pytest.mark.long
def test_a_standby_that_dies_costs_no_read(readers: Callable[[], list[int]], mortal: PostgresServer) -> None:
    """Those that were under way are asked of the primary, and so are all after them; a new one is used again."""
    more(readers)
    assert mortal.pid is not None
    os.kill(mortal.pid, signal.SIGKILL)
    more(readers)
    mortal.revive()
    more(readers)
    assert set(readers()) == {200}


@pytest.mark.long
def test_a_cancelled_read_is_made_again(
    readers: Callable[[], list[int]], shop: Shop, mortal: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What the standby must replay goes before who reads there: a rebuild's swap, rows that vacuum takes away."""
    caplog.set_level("INFO")
    shop.publish(*(shop.stored() for _ in range(200)))
    deadline = time.monotonic() + 20
    while "replica_passed_over" not in caplog.text:
        assert time.monotonic() < deadline
        shop.conn.execute("UPDATE package_listing SET paid = paid")
        shop.conn.execute("VACUUM package_listing")
        with shop.conn.transaction():
            shop.conn.execute("LOCK TABLE package_listing")
    more(readers, 5)
    assert set(readers()) == {200}
    assert mortal.pid is not None


@pytest.mark.long
def test_a_promoted_standby_has_every_acknowledged_change(tmp_path: Path) -> None:
    """Commits wait for the synchronous standby: whatever was acknowledged outlives the primary's sudden death."""
    with pair(tmp_path, synchronous_commit="on") as (primary, standby):
        migrate(primary.dsn())
        with psycopg.connect(primary.dsn("postgres"), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            conn.execute("SELECT pg_reload_conf()")
            names = "SELECT sync_state FROM pg_stat_replication"
            wait_until(lambda: conn.execute(names).fetchall() == [("sync",)])
        acknowledged: list[int] = []

        def write() -> None:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(primary.dsn(), autocommit=True) as conn:
                for number in itertools.count():
                    conn.execute("INSERT INTO change_log (type, at, version) VALUES ('Written', now(), %s)", [number])
                    acknowledged.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: len(acknowledged) > 200)
        assert primary.pid is not None
        os.kill(primary.pid, signal.SIGKILL)
        writer.join()
        with psycopg.connect(standby.dsn(), autocommit=True) as conn:
            conn.execute("SELECT pg_promote()")
            kept = {number for (number,) in conn.execute("SELECT version FROM change_log WHERE type = 'Written'")}
            conn.execute("INSERT INTO change_log (type, at) VALUES ('Written after', now())")
        assert kept >= set(acknowledged)
