"""The schema is what the migrations make, and a database that isn't ours to change is left alone."""

import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from db.embedded import PostgresServer, program
from db.migrate import APPLIED_TABLE, FOLDER, checksum, migrate, migrations
from infra.errors import ConfigurationError

SCHEMA = Path("db/schema.sql")


def dump(dsn: str) -> str:
    """Give the schema as pg_dump writes it, without what differs from run to run."""
    without = ["--no-owner", "--no-privileges", "--exclude-table=change_log_[0-9b]*"]  # its parts depend on when
    command = [str(program("pg_dump")), "--schema-only", *without, "--dbname", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [
        line for line in text.splitlines() if line and not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)
    ]
    return "\n".join(lines) + "\n"


def test_the_migrated_schema_is_the_one_in_the_tree(database: str) -> None:
    """db/schema.sql is what a reader looks at; `python -m tests.db.write_schema` writes it again after a migration."""
    assert dump(database) == SCHEMA.read_text()


def test_a_second_run_has_nothing_to_do(database: str) -> None:
    """Every start migrates."""
    assert migrate(database) == []


def test_a_log_from_before_its_months_is_kept_where_it_is(postgres: PostgresServer) -> None:
    """The step that partitions the log copies no row: what was written before is the first partition, in order."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS older")
        conn.execute("CREATE DATABASE older TEMPLATE template0")
    with psycopg.connect(postgres.dsn("older"), autocommit=True) as conn:
        for name in ("0001_write_side", "0002_read_side"):
            conn.execute(migrations()[name].encode())
        conn.execute(APPLIED_TABLE)
        for name in ("0001_write_side", "0002_read_side"):
            conn.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", (name, checksum(migrations()[name]))
            )
        conn.execute("INSERT INTO change_log (type, at) SELECT 'Old', now() FROM generate_series(1, 3)")
        migrate(postgres.dsn("older"))
        conn.execute("INSERT INTO change_log (type, at) VALUES ('New', now())")
        written = conn.execute("SELECT position, type, life FROM change_log ORDER BY position").fetchall()
        assert written == [(1, "Old", 1), (2, "Old", 1), (3, "Old", 1), (4, "New", 1)]
        assert conn.execute("SELECT count(*) FROM change_log_before").fetchone() == (4,)
        assert conn.execute("SELECT count(*) FROM change_log_other").fetchone() == (0,)
        with pytest.raises(psycopg.errors.IntegrityError):
            conn.execute("DELETE FROM change_log_before")
    assert dump(postgres.dsn("older")) == SCHEMA.read_text()


def test_two_at_once_migrate_once(postgres: PostgresServer) -> None:
    """Several processes start together; one migrates, and the other finds it done."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS empty")
        conn.execute("CREATE DATABASE empty TEMPLATE template0")
    with ThreadPoolExecutor(2) as pool:
        applied = list(pool.map(migrate, [postgres.dsn("empty")] * 2))
    assert sorted(applied, key=len) == [[], list(migrations())]


def test_a_newer_database_is_refused(database: str) -> None:
    """An old program would write what the newer schema doesn't mean."""
    with psycopg.connect(database) as conn:
        conn.execute("INSERT INTO schema_migrations (name, checksum) VALUES ('9999_later', '-')")
    with pytest.raises(ConfigurationError, match="newer version"):
        migrate(database)


def test_a_migration_is_never_edited(database: str) -> None:
    """What ran once is history: a change of it would be missing wherever it had run."""
    with psycopg.connect(database) as conn:
        conn.execute("UPDATE schema_migrations SET checksum = '-' WHERE name LIKE '0001%'")
    with pytest.raises(ConfigurationError, match="another text of 0001_write_side"):
        migrate(database)


INDEX = """-- no transaction: packages are many
DROP INDEX CONCURRENTLY IF EXISTS packages_carrier;
CREATE INDEX CONCURRENTLY packages_carrier ON packages (carrier);
"""

IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('packages_carrier')"


@pytest.fixture
def with_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One migration more, which builds an index on a table that has rows."""
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder)
    (folder / "9999_index.sql").write_text(INDEX)
    monkeypatch.setattr("db.migrate.FOLDER", folder)


@pytest.mark.usefixtures("with_index")
def test_an_index_is_built_while_others_write(database: str) -> None:
    """Whoever writes meanwhile doesn't wait: the build waits for them."""
    with psycopg.connect(database) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("LOCK TABLE packages IN ROW EXCLUSIVE MODE")
        migrating = pool.submit(migrate, database)
        with psycopg.connect(database, autocommit=True, options="-c lock_timeout=2s") as other:
            building = "SELECT count(*) FROM pg_stat_progress_create_index"
            while other.execute(building).fetchone() != (1,):
                time.sleep(0.01)
            other.execute("UPDATE packages SET carrier = carrier")
            assert not migrating.done()
        writer.commit()
        assert migrating.result() == ["9999_index"]
        assert writer.execute(IS_VALID).fetchone() == (True,)


@pytest.mark.usefixtures("with_index")
def test_an_interrupted_index_is_built_anew(database: str) -> None:
    """What a broken run left is dropped first, and the step isn't taken for done."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE INDEX packages_carrier ON packages (carrier)")
        conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'packages_carrier'::regclass")
        assert migrate(database) == ["9999_index"]
        assert conn.execute(IS_VALID).fetchone() == (True,)


FIRST_RELEASE = 5
"""What these made was there before anybody had rows."""


def test_indexes_on_tables_with_rows_are_built_concurrently() -> None:
    """A table that the same step makes is empty; any other is somebody's, who would wait for the build."""
    for name, text in migrations().items():
        made = set(re.findall(r"CREATE TABLE (\w+)", text))
        for concurrently, table in re.findall(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?.*?ON (\w+)", text):
            assert int(name[:4]) <= FIRST_RELEASE or table in made or concurrently, name


def test_migrations_are_numbered_in_order() -> None:
    """The name says the order, with no gap and no number twice."""
    numbers = [int(path.name[:4]) for path in sorted(FOLDER.glob("*.sql"))]
    assert numbers == list(range(1, len(numbers) + 1))
