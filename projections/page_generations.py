"""Which scopes' pages a batch changes; see `db.page_cache` for what a generation is."""

from db.page_cache import MANY_CUSTOMERS

MOST_CUSTOMERS = 200
"""Customers whose scopes a batch raises one by one; more of them share one scope, which each of their pages has too."""

# Those that can show what has moved, from where it left and where it came to; no other page is discarded.
SCOPES = f"""
SELECT 'all' AS scope WHERE EXISTS (SELECT FROM moves)
UNION ALL SELECT 'status:' || status FROM (
    SELECT status FROM moves UNION SELECT old_status FROM moves) AS s WHERE status IS NOT NULL
UNION ALL SELECT 'customer:' || customer_id FROM touched WHERE (SELECT count(*) FROM touched) <= {MOST_CUSTOMERS}
UNION ALL SELECT '{MANY_CUSTOMERS}' WHERE (SELECT count(*) FROM touched) > {MOST_CUSTOMERS}
UNION ALL SELECT 'customers' WHERE EXISTS (SELECT FROM customers_changed)
"""

TOUCHED = """
touched AS (
    SELECT customer_id FROM moved WHERE status IS NOT NULL
    UNION SELECT old_customer_id FROM moved WHERE old_customer_id <> customer_id OR status IS NULL
    UNION SELECT customer_id FROM customers_changed)
"""

RAISED = """
generations AS (
    INSERT INTO page_generations (scope, batch)
    SELECT scope, %(batch)s FROM unnest(%(scopes)s::text[]) AS scope
    ON CONFLICT (scope) DO UPDATE SET batch = excluded.batch)
"""
