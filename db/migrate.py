"""Bring a database to this version of the schema: forward only, one file a step, one process at a time."""

import hashlib
import time
from pathlib import Path

import psycopg

from db.roles import give_rights, make_roles
from infra.errors import ConfigurationError

FOLDER = Path(__file__).parent / "migrations"

ONE_AT_A_TIME = "SELECT pg_try_advisory_lock(hashtextextended('paqueteria.migrate', 0))"

PAUSE = 0.05
"""Seconds between tries to be the one: a statement that waited would be waited for by an index built concurrently."""

APPLIED_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz DEFAULT now() NOT NULL
)"""

OLDEST_SERVER = 180000

CONCURRENTLY = "-- no transaction:"
"""What a step begins with whose statements can't be undone together: indexes that are built while everybody works.

It first drops what an interrupted run has left, so that it can be run again.
"""

# The months that are written now are there before the first command; later ones are the scheduler's (db.change_log).
THIS_AND_NEXT_MONTH = """
SELECT add_change_log_month((date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month')::date)
FROM generate_series(0, 1) AS n
"""


def migrations() -> dict[str, str]:
    """Give the steps by name, in order."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.sql"))}


def checksum(text: str) -> str:
    """Tell one step's text from another's."""
    return hashlib.sha256(text.encode()).hexdigest()


def pending(conn: psycopg.Connection[tuple[str, str]]) -> list[str]:
    """Name the steps that the database lacks; a database that has more, or other ones, raises ConfigurationError."""
    known = migrations()
    exists = conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL AS there, '' AS nothing").fetchone()
    applied = dict(conn.execute("SELECT name, checksum FROM schema_migrations")) if exists and exists[0] else {}
    if newer := sorted(applied.keys() - known.keys()):
        raise ConfigurationError(f"The database is of a newer version than this program: it has {', '.join(newer)}")
    if edited := [name for name, text in known.items() if name in applied and applied[name] != checksum(text)]:
        raise ConfigurationError(f"The database was made by another text of {', '.join(edited)}")
    return [name for name in known if name not in applied]


def migrate(dsn: str) -> list[str]:
    """Apply what is missing and name it. Raises ConfigurationError, or psycopg.OperationalError with no database."""
    known = migrations()
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name="paqueteria migrate") as conn:
        if conn.info.server_version < OLDEST_SERVER:
            raise ConfigurationError(f"PostgreSQL 18 is needed, and this is {conn.info.server_version // 10000}")
        while conn.execute(ONE_AT_A_TIME).fetchone() != (True,):
            time.sleep(PAUSE)
        conn.execute("SET lock_timeout = '5s'")
        conn.execute("SET statement_timeout = '15min'")
        steps = pending(conn)
        for name in steps:
            _apply(conn, name, known[name])
        conn.execute(THIS_AND_NEXT_MONTH)
        with conn.transaction():
            make_roles(conn)
            give_rights(conn)
        return steps


def _apply(conn: psycopg.Connection[tuple[str, str]], name: str, text: str) -> None:
    if text.startswith(CONCURRENTLY):
        conn.execute("SET lock_timeout = 0")  # it waits for whoever has begun earlier, and keeps nobody waiting
        for statement in filter(str.strip, text.split(";\n")):
            conn.execute(statement.encode())
        conn.execute("SET lock_timeout = '5s'")
    with conn.transaction():
        conn.execute(APPLIED_TABLE)
        if not text.startswith(CONCURRENTLY):
            conn.execute(text.encode())
        conn.execute("INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", (name, checksum(text)))
