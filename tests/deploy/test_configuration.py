"""The configuration files are what the servers understand, and each line says why it is there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from db.embedded import PostgresServer, valkey_program
from infra.children import bound_to_parent
from tests.support import wait_until

FOLDER = Path("infra/deploy").resolve()


def settings_of(name: str) -> list[tuple[str, str]]:
    """Give the lines that set something, each with the one before it."""
    lines = (FOLDER / name).read_text().splitlines()
    pairs = zip(["", *lines], lines, strict=False)
    return [(before, line) for before, line in pairs if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["postgresql.conf", "redis.conf", "redis-cluster.conf"])
def test_every_line_has_a_reason(name: str) -> None:
    """A setting that nobody can explain is one that nobody dares to change."""
    assert [line for before, line in settings_of(name) if "# " not in line and not before.startswith("# ")] == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    tmp_path.chmod(0o755)
    configuration = tmp_path / "postgresql.conf"  # readable to the user that the server runs as
    configuration.write_text((FOLDER / "postgresql.conf").read_text())
    options = {"config_file": str(configuration), "shared_buffers": "64MB", "fsync": "off"}
    server = PostgresServer(tmp_path / "postgres", tmp_path / "run", options)
    server.start()
    yield server
    server.stop()


def test_postgresql_understands_its_file(server: PostgresServer) -> None:
    """No line has an error, and what is set there is in force but for what the test sets itself."""
    with psycopg.connect(server.dsn()) as conn:
        rows = conn.execute("SELECT name, applied FROM pg_file_settings").fetchall()
    assert {name for name, applied in rows if not applied} == {"shared_buffers", "listen_addresses"}
    assert len(rows) == len(settings_of("postgresql.conf"))


def test_redis_understands_its_file(tmp_path: Path) -> None:
    """It starts by it, keeps nothing on disk, and evicts what wasn't asked for longest."""
    path = tmp_path / "redis.sock"
    flags = ["--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path)]
    process = subprocess.Popen(bound_to_parent([valkey_program(), FOLDER / "redis.conf", *flags], "KILL"))
    try:
        wait_until(path.exists)
        with redis.Redis(unix_socket_path=str(path), decode_responses=True) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert client.config_get("save") == {"save": ""}
    finally:
        process.kill()
        process.wait()
