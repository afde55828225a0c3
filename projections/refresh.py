"""The materialized views, refreshed beside their readers: one refresh in the whole cluster, never two at once."""

from datetime import datetime

from db.pools import Connection
from infra import metrics

VIEWS = ("package_fees", "daily_summary")

# Whoever doesn't get the lock leaves the work to the one who has it.
TAKE_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('paqueteria.refresh', 0))"

# On one processor, however large the views are: the others are for readers.
SET_UP = """
SELECT set_config('paqueteria.now', %(now)s, true), set_config('statement_timeout', '0', true),
       set_config('max_parallel_workers_per_gather', '0', true)
"""

REFRESH = {
    "package_fees": "REFRESH MATERIALIZED VIEW CONCURRENTLY package_fees",
    "daily_summary": "REFRESH MATERIALIZED VIEW CONCURRENTLY daily_summary",
}

# No page shows these: each prices its rows itself. Whoever sums by the view is that much off.
OUTDATED = """
SELECT count(*) FROM package_listing AS l
WHERE l.status = 'RECEIVED' AND NOT EXISTS (
    SELECT FROM package_fees AS f WHERE f.package_id = l.package_id AND f.next_fee_at >= %(now)s)
"""

# Kept beside the views and not in them: there, every refresh would rewrite every row.
RECORD = """
INSERT INTO view_refreshes (view, refreshed_at, took) VALUES (%(view)s, %(now)s, clock_timestamp() - now())
ON CONFLICT (view) DO UPDATE SET refreshed_at = excluded.refreshed_at, took = excluded.took
RETURNING extract(epoch FROM took)::float8
"""


async def refresh_views(conn: Connection, now: datetime) -> None:
    """Refresh each view as of `now`, in a transaction each; skips one that another process is refreshing."""
    outdated = await (await conn.execute(OUTDATED, {"now": now})).fetchone()
    metrics.FEES_OUTDATED.set(outdated[0] if outdated else 0)
    for view in VIEWS:
        async with conn.transaction():
            turn = await (await conn.execute(TAKE_TURN)).fetchone()
            if turn is None or not turn[0]:
                return
            await conn.execute(SET_UP, {"now": now.isoformat()})
            await conn.execute(REFRESH[view].encode())
            took = await (await conn.execute(RECORD, {"view": view, "now": now})).fetchone()
            if took is not None:
                metrics.VIEW_REFRESH_SECONDS.labels(view).observe(took[0])
