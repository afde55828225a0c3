"""Real servers for every test: one PostgreSQL and one Valkey a run, one database a test, cloned from a template."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.embedded import PostgresServer, ValkeyServer
from db.migrate import migrate
from infra.settings import Settings
from tests import promtool
from tests.browser import IS_LEFT_OUT
from tests.support import Clock, moved

TEMPLATE = "template_paqueteria"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="paqueteria-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[PostgresServer]:
    options = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",  # a clone of the template takes 0.04 s, a tenth of what it takes with more
        "max_wal_senders": "0",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "jit": "off",
    }
    server = PostgresServer(server_folder / "postgres", server_folder / "run", options)
    server.start()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(server.dsn(TEMPLATE))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(server_folder / "valkey", server_folder / "run", {"databases": "1000"})
    server.start()
    yield server
    server.stop()


_numbers = itertools.count()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The dsn of a fresh, migrated database, dropped afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        yield postgres.dsn(name)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """A Redis database of the test's own."""
    return valkey.url.replace("db=0", f"db={next(_numbers) % 1000}")


@pytest.fixture
def settings(database: str, redis_url: str, tmp_path: Path) -> Settings:
    return moved(
        Settings(
            database_url=database,
            redis_url=redis_url,
            secret_key="a key for tests, and for nothing else",
            data_dir=tmp_path,
            throttle_announce="",
            throttle_track="",
            throttle_sign_in="",
            pool_min=1,
        ),
        database,
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if IS_LEFT_OUT:
        terminalreporter.write_line(
            "NO BROWSER: the pages were not tried. Install Chromium (apt-get install chromium).", red=True
        )
    if promtool.IS_LEFT_OUT:
        terminalreporter.write_line(
            "NO PROMETHEUS: alerts and dashboards were not tried. Install it (apt-get install prometheus).", red=True
        )
