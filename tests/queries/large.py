"""A shop of 100,000 parcels in its read models, and the plans of the statements that read them."""

import re
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.sql import SQL

from queries.pages import Query

# A year of parcels at four sites: 5 % in storage, 2 % announced, 3 % cancelled, the rest delivered.
FILL = """
INSERT INTO package_listing (
    package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site, "position",
    carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone, announced_at,
    received_at, delivered_at, cancelled_at, base_fee, daily_storage, storage_days, storage_fee, total, paid)
SELECT ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 2,
       translate(upper(lpad(to_hex(n::bigint * 7919), 8, '2')), '01', 'GH'), 'GUIA-' || lpad(n::text, 8, '0'),
       'GUIA' || lpad(n::text, 8, '0'), ARRAY['CODE-' || n], ARRAY['CODE' || n], status,
       'SEDE-' || n / 7 % 4, CASE status WHEN 'RECEIVED' THEN 'A-' || lpad(n::text, 6, '0') END,
       'Servientrega', CASE WHEN n % 5 = 0 THEN 'EXTRA_SIZED' ELSE 'NORMAL' END, 'GOOD',
       name || ' ' || n % 977, ('01920000-0000-7000-8000-' || lpad(to_hex(n % 20000), 12, '0'))::uuid,
       name || ' ' || n % 977, '+57300' || lpad((n % 20000)::text, 7, '0'), announced_at,
       CASE WHEN status IN ('RECEIVED', 'DELIVERED') THEN announced_at + interval '3 hours' END,
       CASE status WHEN 'DELIVERED' THEN announced_at + interval '9 hours' END,
       CASE status WHEN 'CANCELLED' THEN announced_at + interval '9 hours' END,
       CASE WHEN n % 5 = 0 THEN 2000 ELSE 1500 END, 1000, CASE WHEN status <> 'RECEIVED' THEN 0 END,
       CASE WHEN status <> 'RECEIVED' THEN 0 END, CASE WHEN status <> 'RECEIVED' THEN 1500 END, 0
FROM generate_series(1, %(count)s) AS n
CROSS JOIN LATERAL (SELECT
    CASE WHEN n % 20 = 7 THEN 'RECEIVED' WHEN n % 50 = 11 THEN 'ANNOUNCED' WHEN n % 33 = 5 THEN 'CANCELLED'
         ELSE 'DELIVERED' END AS status,
    (ARRAY['María García', 'José Muñoz', 'Ana Gómez', 'Luis Peña', 'Sofía Núñez', 'Andrés Xiques'])[1 + n % 6] AS name,
    %(now)s - interval '365 days' * (n::float8 / %(count)s) AS announced_at) AS made
"""

DERIVE = """
INSERT INTO package_search
SELECT package_id, announced_at, ' ' || searchable(concat_ws(' ', customer_name, customer_phone, guide_number,
    guide_key, tracking_code, left(tracking_code, 4) || '-' || right(tracking_code, 4),
    array_to_string(other_codes, ' ')))
FROM package_listing;
INSERT INTO package_counts SELECT site, status, count(*) FROM package_listing GROUP BY site, status;
INSERT INTO customer_listing
SELECT DISTINCT ON (customer_id) customer_id, 1, customer_name, customer_phone, NULL, NULL, NULL, NULL, NULL, NULL,
    announced_at, ' ' || searchable(concat_ws(' ', customer_name, customer_phone))
FROM package_listing ORDER BY customer_id;
INSERT INTO payment_listing
SELECT uuidv7(), package_id, site, gen_random_uuid(), 'CASH', 1500, 1500, NULL, NULL, delivered_at, false
FROM package_listing WHERE status = 'DELIVERED';
"""


def fill(dsn: str, now: datetime, count: int) -> None:
    """Fill a migrated database's read models with `count` parcels of the year before `now`."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(FILL.replace(" % ", " %% "), {"now": now, "count": count})
        conn.execute(DERIVE)
        conn.execute("VACUUM ANALYZE")


TYPES = {int: "bigint", str: "text", datetime: "timestamptz", date: "date", uuid.UUID: "uuid", list: "text[]"}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


class Plans:
    """Asks the planner, at its default settings, how a query would run."""

    def __init__(self, conn: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.conn = conn

    def of(self, query: Query, *, is_generic: bool = False) -> list[dict[str, Any]]:
        """Give the nodes of a query's plan, for its own values, or for any."""
        binds = {"scopes": list(query.scopes), "now": query.now, **query.binds}
        if not is_generic:
            row = self.conn.execute("EXPLAIN (FORMAT JSON) " + query.statement, binds).fetchone()
        else:
            # What a prepared statement may come to: `$n` with the types that psycopg gives, and no values.
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", query.statement)))
            text = query.statement
            for number, name in enumerate(names, 1):
                kind = TYPES.get(type(binds[name]), "text")
                text = text.replace(f"%({name})s", f"${number}::{kind}")
            row = self.conn.execute(SQL("EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + text.replace("%%", "%"))).fetchone()
        assert row is not None
        return list(_nodes(row[0][0]["Plan"]))

    def pages_read(self, query: Query) -> int:
        """Count the table and index pages that a query looks at."""
        binds = {"scopes": list(query.scopes), "now": query.now, **query.binds}
        row = self.conn.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query.statement, binds).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    def indexes(self, query: Query) -> set[str]:
        """Name the indexes of the plans that a query may get, having made sure that none reads a large table whole."""
        found = set()
        for is_generic in (False,) if query.plan_by_values else (False, True):
            nodes = self.of(query, is_generic=is_generic)
            whole = {n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan" and "Relation Name" in n}
            assert not whole & {"package_listing", "package_search", "customer_listing", "payment_listing"}, query
            found |= {node["Index Name"] for node in nodes if "Index Name" in node}
        return found
