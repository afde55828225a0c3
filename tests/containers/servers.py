"""The servers' own images, in containers, for the tests that otherwise run on embedded ones."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo
from testcontainers.core.container import DockerContainer

from db.roles import ROLES, make_roles, set_passwords
from tests.support import wait_until

POSTGRES = "docker.io/library/postgres:18"
REDIS = "docker.io/library/redis:8"
PASSWORD = "for tests"


@dataclass(frozen=True)
class PostgresContainer:
    """PostgreSQL as its image has it, reached by TCP and by passwords."""

    host: str
    port: int

    def dsn(self, database: str) -> str:
        """Tell the address of one of its databases."""
        return make_conninfo(host=self.host, port=self.port, user="paqueteria", password=PASSWORD, dbname=database)


@dataclass(frozen=True)
class RedisContainer:
    """Redis as its image has it."""

    url: str


@contextlib.contextmanager
def postgres() -> Iterator[PostgresContainer]:
    """Run PostgreSQL while the block lasts; the processes' roles have the same password as the owner."""
    container = DockerContainer(POSTGRES).with_exposed_ports(5432)
    container = container.with_env("POSTGRES_USER", "paqueteria").with_env("POSTGRES_PASSWORD", PASSWORD)
    with container as running:
        server = PostgresContainer(running.get_container_host_ip(), int(running.get_exposed_port(5432)))
        wait_until(lambda: _answers(server))
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
            make_roles(conn)
        set_passwords(server.dsn("postgres"), [make_conninfo(server.dsn("postgres"), user=role) for role in ROLES])
        yield server


@contextlib.contextmanager
def redis() -> Iterator[RedisContainer]:
    """Run Redis while the block lasts."""
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--databases", "1000"]  # noqa: S104
    with DockerContainer(REDIS).with_exposed_ports(6379).with_command(command) as running:
        yield RedisContainer(f"redis://{running.get_container_host_ip()}:{running.get_exposed_port(6379)}?db=0")


def _answers(server: PostgresContainer) -> bool:
    try:
        psycopg.connect(server.dsn("postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
