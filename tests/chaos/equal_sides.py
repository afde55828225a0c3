"""What each read model must be, said by plain SQL over the normalized tables, and compared row by row both ways.

It shares nothing with the views that feed the read models, nor with `projections.verify`.
"""

from typing import Any

import psycopg

EXPECTED = {
    "package_listing": """
SELECT k.package_id, k.version, k.tracking_code, k.guide_number, replace(upper(k.guide_number), '-', '') AS guide_key,
       k.other_codes,
       coalesce((SELECT array_agg(replace(replace(upper(code), ' ', ''), '-', '') ORDER BY n)
                 FROM unnest(k.other_codes) WITH ORDINALITY AS t (code, n)), '{}') AS other_code_keys,
       k.status, (SELECT code FROM sites WHERE site_id = k.site_id) AS site,
       (SELECT code FROM positions WHERE package_id = k.package_id) AS position,
       k.carrier, k.package_type, k.condition, k.recipient_name, k.customer_id,
       (SELECT name FROM customers WHERE customer_id = k.customer_id) AS customer_name,
       (SELECT phone FROM customers WHERE customer_id = k.customer_id) AS customer_phone,
       k.observations, k.cancellation_reason, k.announced_at, k.received_at, k.delivered_at, k.cancelled_at,
       base.fee AS base_fee, t.daily_storage,
       CASE WHEN k.status <> 'RECEIVED' THEN sums.days END AS storage_days,
       CASE WHEN k.status <> 'RECEIVED' THEN sums.storage END AS storage_fee,
       CASE WHEN k.status <> 'RECEIVED' THEN base.fee + sums.storage END AS total,
       (SELECT coalesce(sum(amount), 0)::bigint FROM payments WHERE package_id = k.package_id) AS paid
FROM packages AS k
JOIN tariffs AS t ON t.tariff_id = k.tariff_id,
LATERAL (SELECT CASE WHEN k.package_type = 'EXTRA_SIZED' THEN t.base_fee_extra_sized ELSE t.base_fee_normal END) AS base
    (fee),
LATERAL (SELECT coalesce(sum(storage_days), 0)::integer, coalesce(sum(storage_fee), 0)::bigint FROM charges
         WHERE package_id = k.package_id) AS sums (days, storage)
""",
    "package_search": """
SELECT k.package_id, k.announced_at, lower(unaccent(' ' || array_to_string(ARRAY[
           c.name, CASE WHEN k.recipient_name <> c.name THEN k.recipient_name END, c.phone, k.guide_number,
           CASE WHEN k.guide_number LIKE '%-%' THEN replace(k.guide_number, '-', '') END, k.tracking_code,
           substr(k.tracking_code, 1, 4) || '-' || substr(k.tracking_code, 5)] || k.other_codes, ' '))) AS text
FROM packages AS k, customers AS c WHERE c.customer_id = k.customer_id
""",
    "customer_listing": """
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at,
       lower(unaccent(' ' || array_to_string(ARRAY[name, phone, email, document, building, tower, apartment], ' ')))
FROM customers
""",
    "payment_listing": """
SELECT y.payment_id, y.package_id, s.code, y.staff_id, y.method, y.amount, y.due, y.amount_reason, y.collected_by,
       y.at, y.reverses IS NOT NULL
FROM payments AS y, sites AS s WHERE s.site_id = y.site_id
""",
    "package_counts": """
SELECT s.code, k.status, count(*) FROM packages AS k, sites AS s WHERE s.site_id = k.site_id GROUP BY s.code, k.status
""",
}

ACTUAL = {model: f"SELECT * FROM {model}" for model in EXPECTED} | {
    "package_counts": "SELECT site, status, count FROM package_counts WHERE count <> 0"
}

BOTH_WAYS = """
SELECT (SELECT count(*) FROM (({expected}) EXCEPT ALL ({actual})) AS missing)
     + (SELECT count(*) FROM (({actual}) EXCEPT ALL ({expected})) AS wrong)
"""

LAG = """
SELECT count(*) FROM change_log AS g, projection_checkpoint AS c WHERE NOT pg_visible_in_snapshot(g.xid, c.snapshot)
"""


def differences(conn: psycopg.Connection[tuple[Any, ...]]) -> dict[str, int]:
    """Count, by read model, the rows that are missing, wrong or too many."""
    found = {}
    for model, expected in EXPECTED.items():
        actual = ACTUAL[model]
        row = conn.execute(BOTH_WAYS.format(expected=expected, actual=actual).encode()).fetchone()
        if row is None or row[0]:
            found[model] = int(row[0]) if row else -1
    return found


def lag(conn: psycopg.Connection[tuple[Any, ...]]) -> int:
    """Count the committed changes that the read models don't hold yet."""
    row = conn.execute(LAG).fetchone()
    assert row is not None
    return int(row[0])


def assert_equal_sides(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The read side is exactly what the write side says."""
    found = differences(conn)
    assert found == {}, f"the sides differ: {found}"
