"""What PostgreSQL tells of itself."""

from db import scheduled_runs
from db.maintenance import KEYS_WITHOUT_INDEX, READ_FROM_END_TO_END, UNUSED_INDEXES
from db.monitoring.findings import Section, ask
from db.pools import Connection

SIZE = """
SELECT pg_database_size(current_database()) AS size_bytes,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       current_setting('max_connections')::int AS max_connections,
       d.blks_hit::float8 / nullif(d.blks_hit + d.blks_read, 0) AS found_in_memory, d.deadlocks, d.temp_bytes,
       d.stats_reset AS counted_since
FROM pg_stat_database AS d WHERE d.datname = current_database()
"""

TABLES = """
SELECT relname AS "table", n_live_tup AS rows, pg_total_relation_size(relid) AS size_bytes,
       pg_indexes_size(relid) AS indexes_bytes, seq_scan AS scans, coalesce(idx_scan, 0) AS by_index,
       round(100.0 * n_dead_tup / nullif(n_live_tup + n_dead_tup, 0), 1)::float8 AS dead_percent,
       greatest(last_vacuum, last_autovacuum) AS vacuumed, greatest(last_analyze, last_autoanalyze) AS analyzed
FROM pg_stat_user_tables ORDER BY size_bytes DESC, relname LIMIT 15
"""

# Utility statements aren't normalized: a password may stand in one.
SLOW_STATEMENTS = """
SELECT left(regexp_replace(s.query, '\\s+', ' ', 'g'), 120) AS statement, s.calls, s.mean_exec_time AS mean_ms,
       s.max_exec_time AS longest_ms, s.total_exec_time / 1000 AS total_seconds, s.rows
FROM pg_stat_statements AS s
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND s.query ~* '^\\s*(select|insert|update|delete|with|merge|refresh)\\y'
ORDER BY s.total_exec_time DESC LIMIT 10
"""

# Measured in the table itself; the server's own estimate is the share of dead rows, beside the tables.
BLOAT = """
SELECT c.relname AS "table", a.table_len AS size_bytes, a.approx_free_percent AS free_percent, a.dead_tuple_percent
FROM (SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'm')
      ORDER BY pg_relation_size(oid) DESC LIMIT 10) AS c
CROSS JOIN LATERAL pgstattuple_approx(c.oid) AS a
"""

SECTIONS = {
    "tables": TABLES,
    "slow_statements": SLOW_STATEMENTS,
    "unused_indexes": UNUSED_INDEXES,
    "read_from_end_to_end": READ_FROM_END_TO_END,
    "keys_without_index": KEYS_WITHOUT_INDEX,
    "bloat": BLOAT,
    "jobs": scheduled_runs.FIND,
}


async def describe(conn: Connection) -> dict[str, Section]:
    """Give every section; one that the server doesn't tell doesn't keep others from being told."""
    size = await ask(conn, SIZE)
    database = size[0] if isinstance(size, list) else size
    return {"database": database, **{name: await ask(conn, statement) for name, statement in SECTIONS.items()}}
