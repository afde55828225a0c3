"""The jobs that look after the database do it, and what they find is there to be read."""

import pytest

from db.maintenance import analyze_tables, report_indexes
from db.pools import Connection
from tests.support import Clock

pytestmark = pytest.mark.anyio


async def value(conn: Connection, statement: str) -> object:
    row = await (await conn.execute(statement.encode())).fetchone()
    return row and row[0]


async def test_every_table_is_analyzed(conn: Connection, clock: Clock) -> None:
    """The views among them, and the log as a whole, which nothing else does."""
    await conn.execute("INSERT INTO sites (code, name) SELECT 'S-' || n, 'x' FROM generate_series(1, 50) AS n")
    found = await analyze_tables(conn, clock())
    assert await value(conn, "SELECT reltuples FROM pg_class WHERE relname = 'sites'") == 51
    assert found["tables"] > 20
    for name in ("package_fees", "change_log"):
        assert await value(conn, f"SELECT reltuples FROM pg_class WHERE relname = '{name}'") == 0


async def test_indexes_that_nobody_uses_and_that_are_missing_are_named(conn: Connection, clock: Clock) -> None:
    """What is unique guards something, and is never called unused; a foreign key's index may have more columns."""
    await conn.execute("""
        CREATE TABLE shelves (shelf integer PRIMARY KEY);
        CREATE TABLE boxes (box integer PRIMARY KEY, shelf integer REFERENCES shelves, lid integer REFERENCES shelves,
            label text);
        CREATE INDEX boxes_label ON boxes (label);
        CREATE INDEX boxes_shelf ON boxes (shelf, label);
        INSERT INTO boxes SELECT n FROM generate_series(1, 20000) AS n""")
    for _ in range(100):
        await conn.execute("SELECT count(*) FROM boxes WHERE lid = 1")
    await conn.execute("SELECT pg_stat_force_next_flush()")
    found = await report_indexes(conn, clock())
    unused = {row["index"] for row in found["unused"] if row["table"] == "boxes"}
    assert unused == {"boxes_label", "boxes_shelf"}
    assert [row["constraint"] for row in found["keys_without_index"] if row["table"] == "boxes"] == ["boxes_lid_fkey"]
    (read,) = found["read_from_end_to_end"]
    assert (read["table"], read["scans"] >= 100, read["rows_by_scan"] >= 10000) == ("boxes", True, True)
