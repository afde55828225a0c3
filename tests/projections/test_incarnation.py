"""A restored database begins another life: old tokens are refused, the read models rebuilt, and nothing is excused."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from db.consistency import CheckpointWatcher, Token
from db.embedded import PostgresServer, program
from db.migrate import migrate
from db.pools import connect
from db.projection_health import measure
from infra.children import NOBODY
from infra.errors import Malformed
from infra.settings import Settings
from projections.incarnation import renew_if_restored
from projections.projector import open_projector, project_batch
from projections.verify import verify
from tests.projections.conftest import Shop
from tests.projections.test_process import processes, until
from tests.projections.test_projector import assert_equal_sides
from tests.support import Clock, moved

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("restore")]


@pytest.fixture
def another(tmp_path: Path) -> Iterator[PostgresServer]:
    """A cluster of its own, whose transaction ids have not come as far."""
    tmp_path.chmod(0o755)
    server = PostgresServer(tmp_path / "another", tmp_path / "run", {"fsync": "off"})
    server.start()
    yield server
    server.stop()


def copy_into(dsn: str, another: PostgresServer) -> None:
    """Restore a dump into another cluster."""
    dump = subprocess.run([str(program("pg_dump")), "--dbname", dsn], check=True, capture_output=True).stdout
    command = [str(program("psql")), "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", another.dsn()]
    subprocess.run(command, input=dump, check=True, capture_output=True)


async def remember(dsn: str, clock: Clock) -> None:
    """Note the cluster, as whoever leads first does."""
    async with await connect(dsn, "test") as conn:
        assert not await renew_if_restored(conn, clock())


async def test_the_same_cluster_is_no_restore(database: str, shop: Shop, clock: Clock) -> None:
    """A restart, and every further lead, finds what it left."""
    incarnation = shop.value("SELECT incarnation FROM projection_checkpoint")
    for _ in range(2):
        await remember(database, clock)
    assert shop.value("SELECT incarnation FROM projection_checkpoint") == incarnation


@contextlib.asynccontextmanager
async def watching(dsn: str) -> AsyncIterator[CheckpointWatcher]:
    """Follow the checkpoint as a reader does."""
    watcher = CheckpointWatcher(dsn)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()


async def live_on(settings: Settings, shop: Shop, clock: Clock, token: Token, unread: uuid.UUID) -> None:
    """Run a projector on the restored database, without any further help, and hold everything against the rules."""
    async with processes(settings, clock):

        async def is_rebuilt() -> bool:
            query = "SELECT NOT needs_rebuild AND life = 2 FROM projection_checkpoint"
            return bool(await asyncio.to_thread(shop.value, query))

        await until(is_rebuilt)
        assert shop.value(f"SELECT count(*) FROM package_listing WHERE package_id = '{unread}'") == 1
        new = shop.announce(name="Luis Ñáñez", phone="+573009999999")

        async def shows_new() -> bool:
            query = f"SELECT count(*) FROM package_listing WHERE package_id = '{new}'"
            return bool(await asyncio.to_thread(shop.value, query) == 1)

        await until(shows_new)
    assert_equal_sides(shop)
    assert shop.value("SELECT life FROM change_log ORDER BY position DESC LIMIT 1") == 2
    async with watching(settings.postgres_dsn) as watcher:
        with pytest.raises(Malformed):
            await watcher.wait_for(token, 10)
    async with await connect(settings.postgres_dsn, "test") as conn:
        assert (await measure(conn, clock())).lag == 0
    wrong = shop.conn.execute("UPDATE package_listing SET paid = 77").rowcount
    assert await verify(settings, clock=clock) == wrong, "the log's old rows excuse nothing"


async def live_before(dsn: str, shop: Shop, clock: Clock) -> tuple[Token, uuid.UUID]:
    """Give a token of the old life, and a package that was committed in it and never projected."""
    await remember(dsn, clock)
    shop.receive(shop.announce())
    async with await open_projector(dsn) as projector:
        await project_batch(projector, clock)
    xid = shop.value("SELECT max(xid::text::bigint) FROM change_log")
    token = Token(shop.value("SELECT incarnation FROM projection_checkpoint"), xid=xid)
    return token, shop.announce(name="Eva Ruiz")


async def test_a_dump_restored_into_another_cluster(
    database: str, shop: Shop, settings: Settings, another: PostgresServer, clock: Clock
) -> None:
    """By themselves: another incarnation, rebuilt read models, refused tokens, no lag, and no package excused."""
    token, unread = await live_before(database, shop, clock)
    copy_into(database, another)
    with contextlib.closing(Shop(another.dsn(), clock)) as restored:
        await live_on(moved(settings, another.dsn()), restored, clock, token, unread)


class ArchivedCluster:
    """A cluster that archives its WAL, with a base backup, and the way back to a named point."""

    def __init__(self, folder: Path) -> None:
        self._archive = folder / "archive"
        self._archive.mkdir()
        self._archive.chmod(0o777)
        self._backup = folder / "backup"
        options = {"wal_level": "replica", "archive_mode": "on", "archive_command": f"cp %p {self._archive}/%f"}
        self.server = PostgresServer(folder / "cluster", folder / "run", options)

    def back_up(self) -> None:
        """Copy the running cluster."""
        command = [str(program("pg_basebackup")), "--pgdata", str(self._backup), "--checkpoint=fast"]
        subprocess.run([*command, "--dbname", self.server.dsn()], check=True, capture_output=True)

    def restore(self, point: str) -> None:
        """Stop, put the backup in the cluster's place, and play the archive up to the point."""
        self.server.stop()
        shutil.rmtree(self.server.folder)
        self._backup.rename(self.server.folder)
        with (self.server.folder / "postgresql.auto.conf").open("a") as file:
            file.write(f"restore_command = 'cp {self._archive}/%f %p'\nrecovery_target_name = '{point}'\n")
            file.write("recovery_target_action = 'promote'\n")
        (self.server.folder / "recovery.signal").touch()
        if os.geteuid() == 0:
            for path in (self.server.folder, *self.server.folder.rglob("*")):
                shutil.chown(path, NOBODY, NOBODY)
        self.server.start()
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:  # it answers before it is promoted
            while conn.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
                time.sleep(0.05)


@pytest.fixture
def archived(tmp_path: Path) -> Iterator[ArchivedCluster]:
    tmp_path.chmod(0o755)
    cluster = ArchivedCluster(tmp_path)
    cluster.server.start()
    migrate(cluster.server.dsn())
    yield cluster
    cluster.server.stop()


async def test_a_point_in_time_restored_into_the_same_cluster(
    settings: Settings, archived: ArchivedCluster, clock: Clock
) -> None:
    """The system identifier stays, the timeline doesn't: what came after the point is gone, and its tokens with it."""
    dsn = archived.server.dsn()
    with contextlib.closing(Shop(dsn, clock)) as shop:
        token, unread = await live_before(dsn, shop, clock)
        await asyncio.to_thread(archived.back_up)
        shop.conn.execute("SELECT pg_create_restore_point('here')")
        lost = shop.announce(name="Nadie Nunca", phone="+573007777777")
        shop.conn.execute("SELECT pg_switch_wal()")
    await asyncio.to_thread(archived.restore, "here")
    with contextlib.closing(Shop(dsn, clock)) as shop:
        assert shop.value(f"SELECT count(*) FROM packages WHERE package_id = '{lost}'") == 0
        await live_on(moved(settings, dsn), shop, clock, token, unread)


async def test_without_renewal_an_old_token_would_be_believed(
    database: str, shop: Shop, another: PostgresServer, clock: Clock
) -> None:
    """The mutant that goes on as if nothing had happened takes the old life's numbers for its own."""
    token, _ = await live_before(database, shop, clock)
    copy_into(database, another)
    async with watching(another.dsn()) as watcher:
        await watcher.wait_for(token, 10)
