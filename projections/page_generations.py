"""Which scopes' pages a batch changes; see `db.page_cache` for what a generation is."""

# Those that can show what has moved, from where it left and where it came to; no other page is discarded.
SCOPES = """
SELECT 'all' AS scope FROM moved
UNION SELECT 'status:' || status FROM moved WHERE status IS NOT NULL
UNION SELECT 'status:' || old_status FROM moved WHERE old_status IS NOT NULL
UNION SELECT 'customer:' || customer_id FROM moved WHERE status IS NOT NULL
UNION SELECT 'customer:' || old_customer_id FROM moved WHERE old_status IS NOT NULL
UNION SELECT 'customers' FROM customers_changed
UNION SELECT 'customer:' || customer_id FROM customers_changed
"""

RAISED = """
generations AS (
    INSERT INTO page_generations (scope, batch)
    SELECT scope, %(batch)s FROM unnest(%(scopes)s::text[]) AS scope
    ON CONFLICT (scope) DO UPDATE SET batch = excluded.batch)
"""
