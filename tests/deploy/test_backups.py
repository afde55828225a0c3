"""The commands that docs/operations.md gives for the day when everything is gone, as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from db.embedded import PostgresServer, program
from db.migrate import migrate
from infra.clock import system_clock
from infra.settings import Settings
from tests.chaos.house import own_environment
from tests.projections.conftest import Shop
from tests.service import projecting
from tests.standbys import hand_over
from tests.support import moved, wait_until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("backups")]

OPERATIONS = Path("docs/operations.md").read_text()

Run = Callable[..., str]


def commands(name: str) -> str:
    """Give the lines of a block of the documentation."""
    found = re.search(rf"^```bash {name}\n(.*?)^```$", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    folder = tmp_path / "backups"
    (folder / "wal").mkdir(parents=True)
    (folder / "wal").chmod(0o777)
    return folder


@pytest.fixture
def cluster(tmp_path: Path, backups: Path) -> Iterator[PostgresServer]:
    """The shop's own cluster, which archives as the documentation says."""
    (line,) = re.findall(r"`archive_command = '([^`]*)'`", OPERATIONS)
    archive = line.replace("/backups", str(backups))
    server = PostgresServer(tmp_path / "cluster", tmp_path / "run", {"archive_mode": "on", "archive_command": archive})
    server.start()
    migrate(server.dsn())
    yield server
    server.stop()


@pytest.fixture
def run(settings: Settings, backups: Path, cluster: PostgresServer) -> Run:
    """Runs a block of the documentation, with PostgreSQL's programs on the path, and gives what it said."""
    here = {"BACKUPS": str(backups), "DATABASE_URL": cluster.dsn(), "PGDATA": str(cluster.folder)}
    path = os.pathsep.join([str(Path(sys.executable).parent), str(program("pg_dump").parent), os.environ["PATH"]])

    def run(name: str, **more: str) -> str:
        there = moved(settings, more.pop("database", cluster.dsn()))
        environment = own_environment(there) | {"PATH": path} | here | more
        done = subprocess.run(
            [str(shutil.which("bash")), "-euc", commands(name)],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def prove(run: Run, settings: Settings, dsn: str) -> None:
    """Start the projector on what was restored, wait until it is calm, and run the documented proof."""
    restored = moved(settings, dsn)
    with projecting(restored, system_clock), psycopg.connect(dsn, autocommit=True) as conn:
        state = "SELECT life = 2 AND NOT needs_rebuild FROM projection_checkpoint"
        wait_until(lambda: conn.execute(state).fetchone() == (True,))
        assert "equals" in run("proof", database=dsn)


def shop_on(dsn: str) -> Shop:
    return Shop(dsn, system_clock)  # type: ignore[arg-type] # real time: it is what one goes back to


def projected(settings: Settings, shop: Shop, dsn: str) -> None:
    """Let a projector take in what there is, and note which cluster it is."""
    is_in = "SELECT (SELECT count(*) FROM package_listing) = (SELECT count(*) FROM packages)"
    with projecting(moved(settings, dsn), system_clock):
        wait_until(lambda: bool(shop.value(is_in)))


def test_a_dump_comes_back_in_another_cluster(
    run: Run, settings: Settings, cluster: PostgresServer, tmp_path: Path
) -> None:
    """By another owner, without the roles: `migrate` makes them, and the proof holds."""
    shop = shop_on(cluster.dsn())
    package = shop.announce()
    projected(settings, shop, cluster.dsn())
    run("dump")
    shop.close()
    other = PostgresServer(tmp_path / "other", tmp_path / "run2", {"fsync": "off"})
    other.start()
    try:
        run("restore-dump", NEW_DATABASE_URL=other.dsn())
        prove(run, settings, other.dsn())
        restored = shop_on(other.dsn())
        assert restored.value("SELECT package_id FROM package_listing") == package
        restored.close()
    finally:
        other.stop()


def test_a_point_in_time_comes_back(run: Run, settings: Settings, cluster: PostgresServer) -> None:
    """All that was before the instant, nothing of what came after it."""
    shop = shop_on(cluster.dsn())
    kept = [shop.announce()]
    projected(settings, shop, cluster.dsn())
    run("base-backup")
    kept.append(shop.announce())
    instant = shop.value("SELECT clock_timestamp()")
    shop.announce(name="Nadie Nunca", phone="+573007777777")
    shop.value("SELECT pg_switch_wal()")
    shop.close()
    cluster.stop()
    run("point-in-time", INSTANT=instant.isoformat())
    hand_over(cluster.folder)
    cluster.start()
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        wait_until(lambda: conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))
    prove(run, settings, cluster.dsn())
    restored = shop_on(cluster.dsn())
    found = {row["package_id"] for row in restored.all("SELECT package_id FROM package_listing")}
    restored.close()
    assert found == set(kept)
