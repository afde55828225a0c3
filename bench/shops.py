"""Servers of the benchmark's own, and shops on them: seeded once for each size, and cloned for each measurement."""

import asyncio
import contextlib
import fcntl
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import psycopg
from psycopg import sql
from redis import Redis

from commands.seed import seed
from db.embedded import VALKEY_OPTIONS, PostgresServer, ValkeyServer, postgres_options
from db.migrate import migrate, migrations
from db.pools import connect
from db.roles import urls_of
from infra.clock import system_clock
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections.rebuild import rebuild
from projections.refresh import refresh_views

Report = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""

OPTIONS = {"track_commit_timestamp": "on"}
"""Beside those of every embedded server: at which instant each transaction committed, as the server itself knows it."""


@dataclass
class Shops:
    """Clones of seeded databases, on servers that keep what they are told as production does."""

    postgres: PostgresServer
    valkey: ValkeyServer
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def open(self, count: int, report: Report) -> AsyncIterator[Settings]:
        """Give the settings of a shop of `count` packages, all of them projected; afterwards it is gone."""
        name = f"clone_{next(self._numbers)}"
        template = await self._template(count, report)
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
        self._execute("CHECKPOINT")
        with Redis.from_url(self.valkey.url) as redis:
            redis.flushall()
        try:
            yield self.settings(name)
        finally:
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    @property
    def servers(self) -> dict[str, int]:
        """The servers' processes, by name."""
        return {server.name: server.pid for server in (self.postgres, self.valkey) if server.pid is not None}

    def settings(self, database: str) -> Settings:
        """Give the settings of a process that works on a database, as its own role; nobody is throttled."""
        settings = Settings(
            redis_url=self.valkey.url,
            secret_key="a key for measurements, and for nothing else",  # noqa: S106
            data_dir=self.folder,
            throttle_announce="",
            throttle_track="",
            throttle_sign_in="",
        )
        return settings.model_copy(update=urls_of(self.postgres.dsn(database)))

    async def _template(self, count: int, report: Report) -> str:
        """Make the shop that clones are made of, once for each schema."""
        name = f"shop_{count}_{len(migrations())}"
        draft = f"{name}_draft"
        with psycopg.connect(self.postgres.dsn("postgres")) as conn:
            if conn.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None:
                return name
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", draft)
        self._execute("CREATE DATABASE {}", draft)
        settings = self.settings(draft)
        await asyncio.to_thread(migrate, settings.postgres_dsn)
        if count:
            await seed(settings, count, report)
        await rebuild(settings, None, report)
        async with await connect(settings.postgres_dsn, "bench") as conn:
            await refresh_views(conn, system_clock())
            await conn.execute("VACUUM (ANALYZE)")
        self._execute("ALTER DATABASE {} RENAME TO {}", draft, name)
        return name

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.postgres.dsn("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextlib.contextmanager
def open_shops(kept: Path | None = None) -> Iterator[Shops]:
    """Run the servers while the block lasts, in a temporary folder, or in one that keeps its shops for another time."""
    folder = kept or Path(tempfile.mkdtemp(prefix="paqueteria-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    sockets = Settings(data_dir=folder).socket_dir
    postgres = PostgresServer(folder / "postgres", sockets, postgres_options() | OPTIONS)
    valkey = ValkeyServer(folder / "valkey", sockets, VALKEY_OPTIONS)
    try:
        with contextlib.ExitStack() as stack:
            _hold(stack.enter_context((folder / "lock").open("w")), folder)
            for server in (postgres, valkey):
                stack.callback(server.stop)
                server.start()
            yield Shops(postgres, valkey, folder)
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


def _hold(lock: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(f"Another benchmark runs in {folder}") from None


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measurement's function is given: the shops, its size, and where it tells how far it is."""

    shops: Shops
    packages: int
    seconds: float
    rounds: int
    report: Report

    def open(self, packages: int | None = None) -> contextlib.AbstractAsyncContextManager[Settings]:
        """Open a clone of a shop, of the measurement's size unless another is asked for."""
        return self.shops.open(self.packages if packages is None else packages, self.report)

    def each_round(self, what: str) -> Iterator[int]:
        """Count the rounds, and tell how far they are."""
        for done in range(self.rounds):
            self.report(what, done, self.rounds)
            yield done
        self.report(what, self.rounds, self.rounds)
