"""A primary and its streaming standby: real servers, one copied from the other."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from db.embedded import PostgresServer, program
from infra.children import NOBODY

PRIMARY = {"wal_level": "replica", "fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
STANDBY = {"hot_standby": "on", "hot_standby_feedback": "on", "max_standby_streaming_delay": "5s"}

PATIENCE = 30.0


def copied(primary: PostgresServer, folder: Path, options: dict[str, str] | None = None) -> PostgresServer:
    """Make a standby of a running primary, as the manual says; it isn't started."""
    data = folder / "postgres"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    command = [str(program("pg_basebackup")), "--pgdata", str(data), "--checkpoint=fast", "--write-recovery-conf"]
    name = f"{primary.dsn('postgres')}&application_name=standby"
    subprocess.run([*command, "--dbname", name], check=True, capture_output=True)
    hand_over(data)
    return PostgresServer(data, folder / "run", PRIMARY | STANDBY | (options or {}))


def hand_over(folder: Path) -> None:
    """Give a copied cluster to the user that its server runs as."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, NOBODY, NOBODY)


@contextlib.contextmanager
def pair(folder: Path, **options: str) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Run both while the block lasts; `options` are the standby's."""
    folder.chmod(0o755)
    primary = PostgresServer(folder / "postgres", folder / "run", PRIMARY)
    primary.start()
    standby = copied(primary, folder / "standby", options)
    standby.start()
    try:
        yield primary, standby
    finally:
        standby.stop()
        primary.stop()


def wait_for_replay(primary: str, standby: str) -> None:
    """Return once the standby shows what the primary has committed."""
    with psycopg.connect(primary, autocommit=True) as conn:
        (position,) = conn.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
    with psycopg.connect(standby, autocommit=True) as conn:
        deadline = time.monotonic() + PATIENCE
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        while conn.execute(reached, [position]).fetchone() != (True,):
            assert time.monotonic() < deadline
            time.sleep(0.01)
