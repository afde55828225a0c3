"""What the database needs now and then, and what it tells of itself when it is asked: the work of scheduled jobs."""

from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from db.pools import Connection

# The parts of a partitioned table have statistics of their own, and the whole has others.
TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'm') ORDER BY c.relname
"""

# What is unique guards something, whether anybody reads it or not.
UNUSED_INDEXES = """
SELECT s.relname AS "table", s.indexrelname AS "index", pg_relation_size(s.indexrelid) AS size_bytes
FROM pg_stat_user_indexes AS s JOIN pg_index AS i USING (indexrelid)
WHERE s.idx_scan = 0 AND NOT i.indisunique
ORDER BY size_bytes DESC, "index"
"""

# Each of these scans read this many rows that it didn't want, or so it seems.
READ_FROM_END_TO_END = """
SELECT relname AS "table", seq_scan AS scans, seq_tup_read / seq_scan AS rows_by_scan, coalesce(idx_scan, 0) AS by_index
FROM pg_stat_user_tables
WHERE seq_scan >= 100 AND seq_tup_read / seq_scan >= 10000
ORDER BY seq_tup_read DESC
"""

KEYS_WITHOUT_INDEX = """
SELECT k.conrelid::regclass::text AS "table", k.conname AS "constraint"
FROM pg_constraint AS k
WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND k.conparentid = 0 AND NOT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = k.conrelid AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey)
ORDER BY 1, 2
"""

COUNTED_SINCE = "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()"


async def analyze_tables(conn: Connection, _now: datetime) -> dict[str, int]:
    """Take every table's statistics anew, one table a transaction; gives how many they were."""
    tables = await (await conn.execute(TABLES)).fetchall()
    for (name,) in tables:
        await conn.execute("SELECT analyze_table(%s)", (name,))
    return {"tables": len(tables)}


async def report_indexes(conn: Connection, _now: datetime) -> dict[str, Any]:
    """Name the indexes that nobody used since the server counts, and where one might be missing."""
    row = await (await conn.execute(COUNTED_SINCE)).fetchone()
    return {
        "counted_since": row[0].isoformat() if row and row[0] else None,
        "unused": await _rows(conn, UNUSED_INDEXES),
        "read_from_end_to_end": await _rows(conn, READ_FROM_END_TO_END),
        "keys_without_index": await _rows(conn, KEYS_WITHOUT_INDEX),
    }


async def _rows(conn: Connection, statement: str) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(statement.encode())).fetchall()
