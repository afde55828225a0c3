"""At 100,000 parcels and default planner settings, every query finds its rows by an index, prepared or not."""

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from db.embedded import PostgresServer
from queries import (
    arrivals,
    cursors,
    get_customer,
    get_package,
    list_customers,
    list_positions,
    lookup_packages,
    package_fee,
    summary,
    track_package,
)
from queries.cursors import Cursor
from queries.list_customers import CustomerPage
from queries.list_packages import PackageFilters, fetch
from queries.pages import Query
from tests.conftest import TEMPLATE
from tests.queries.large import Plans, fill
from tests.support import Clock

PACKAGE = uuid.UUID("01930000-0000-7000-8000-000000000009")
CUSTOMER = uuid.UUID("01920000-0000-7000-8000-000000000009")

pytestmark = pytest.mark.xdist_group("large")


@pytest.fixture(scope="session")
def plans(postgres: PostgresServer) -> Iterator[Plans]:
    """The planner of a database with 100,000 parcels."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE large TEMPLATE {TEMPLATE} STRATEGY file_copy")
    fill(postgres.dsn("large"), Clock()(), 100_000)
    with psycopg.connect(postgres.dsn("large"), autocommit=True, options="-c jit=off") as conn:
        yield Plans(conn)


FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a status": {"status": ["CANCELLED"]},
    "two statuses": {"status": ["ANNOUNCED", "CANCELLED"]},
    "a site": {"site": "SEDE-1"},
    "a site and a status": {"site": "SEDE-1", "status": ["RECEIVED"]},
    "a customer": {"customer_id": CUSTOMER},
    "a position": {"position": "a000107"},
    "days in storage": {"min_days": 30},
    "days in storage at a site": {"min_days": 30, "site": "SEDE-2"},
    "received": {"received_from": "2026-06-01", "received_to": "2026-06-03"},
    "announced": {"announced_from": "2026-06-01", "announced_to": "2026-06-03"},
    "a stay": {"received_from": "2026-06-01", "received_to": "2026-06-29", "min_stay": 3, "max_stay": 6},
    "paid": {"paid_from": "2026-06-01", "paid_to": "2026-06-02"},
    "paid in cash": {"payment_method": "CASH", "paid_from": "2026-06-01", "paid_to": "2026-06-02", "site": "SEDE-1"},
    "a rare word": {"q": "guia-00012345"},
    "common words": {"q": "garcía 300"},
    "two letters": {"q": "xi"},
    "common words and a status": {"q": "garcia", "status": ["ANNOUNCED"]},
    "common words and a site": {"q": "muñoz", "site": "SEDE-3"},
    "common words and dates": {"q": "garcia 300", "announced_from": "2026-06-01", "announced_to": "2026-06-11"},
    "a common word and dates": {"q": "garcia", "received_from": "2026-06-01", "received_to": "2026-06-03"},
    "a word of a customer": {"q": "muñoz", "customer_id": CUSTOMER},
}

MOST_PAGES = 1000
"""For a page, rows looked up one by one, and a count, by indexes alone. Rows that are read to be passed by are more."""

WALKS = {
    ("nothing", "newest"): "package_listing_announced",
    ("nothing", "oldest"): "package_listing_announced",
    ("nothing", "owed"): "package_listing_owed",
    ("nothing", "days"): "package_listing_days",
    ("a status", "newest"): "package_listing_status",
    ("two statuses", "oldest"): "package_listing_status",
    ("a site", "newest"): "package_listing_site",
    ("a site and a status", "oldest"): "package_listing_site",
    ("a customer", "newest"): "package_listing_customer",
    ("a position", "newest"): "package_listing_position",
    ("days in storage", "owed"): "package_listing_owed",
    ("days in storage", "oldest"): "package_listing_status",
    ("days in storage at a site", "oldest"): "package_listing_site",
    ("common words and a status", "oldest"): "package_listing_status",
    ("common words and a site", "newest"): "package_listing_site",
    ("received", "newest"): "package_listing_received",
    ("announced", "newest"): "package_listing_announced",
    ("paid", "newest"): "payment_listing_at",
    ("paid in cash", "oldest"): "payment_listing_at",
    ("a rare word", "newest"): "package_search_text",
    ("common words", "newest"): "package_listing_announced",
    ("two letters", "oldest"): "package_search_text",
    ("common words and dates", "newest"): "package_search_announced",
    ("a common word and dates", "oldest"): "package_listing_received",
}


def listing(filters: PackageFilters, *, is_continued: bool) -> Query:
    now = Clock()()
    asked = filters.model_dump(mode="json")
    asked["status"] = sorted(set(filters.status))
    last = (now - timedelta(days=100)).isoformat(), str(PACKAGE), 101_500
    key = last if filters.sort == "owed" else last[:2]
    pinned = now if filters.sort in ("owed", "days") else None
    cursor = cursors.write(Cursor(key, pinned), asked, "a key") if is_continued else None
    return fetch(filters, now, "a key", 50, cursor)


@pytest.mark.parametrize("sort", ["newest", "oldest", "owed", "days"])
@pytest.mark.parametrize("name", FILTERS)
def test_every_listing_uses_its_index(plans: Plans, name: str, sort: Any) -> None:  # noqa: ANN401
    """No filter in no order reads the listing or the search whole, on the first page or a later one."""
    filters = PackageFilters(sort=sort, **FILTERS[name])
    for is_continued in (False, True):
        used = plans.indexes(listing(filters, is_continued=is_continued))
        assert WALKS.get((name, sort), "package_") in " ".join(used)


@pytest.mark.parametrize("sort", ["newest", "oldest", "owed", "days"])
@pytest.mark.parametrize("name", ["nothing", "a status", "two statuses", "a site", "a site and a status"])
def test_a_late_page_costs_what_the_first_does(plans: Plans, name: str, sort: Any) -> None:  # noqa: ANN401
    """A cursor begins in the index where the page before ended, however far that is."""
    filters = PackageFilters(sort=sort, **FILTERS[name])
    first, late = (plans.pages_read(listing(filters, is_continued=late)) for late in (False, True))
    assert late <= 1.5 * first + 20


RECEIVED: dict[str, dict[str, Any]] = {
    "ten days": {"received_from": "2026-06-01", "received_to": "2026-06-11"},
    "a quarter": {"received_from": "2026-03-01", "received_to": "2026-06-01"},
    "since then": {"received_from": "2026-06-01"},
    "until then": {"received_to": "2026-06-01"},
    "ten days, announced in five": {
        "received_from": "2026-06-01",
        "received_to": "2026-06-11",
        "announced_from": "2026-06-02",
        "announced_to": "2026-06-07",
    },
    "a month's stay": {"received_from": "2026-06-01", "received_to": "2026-06-29", "min_stay": 0, "max_stay": 6},
    "days in storage": {"min_days": 30},
}
BESIDES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a common status": {"status": ["DELIVERED"]},
    "a rare status": {"status": ["CANCELLED"]},
    "two statuses": {"status": ["RECEIVED", "CANCELLED"]},
    "a site": {"site": "SEDE-1"},
    "a site and a status": {"site": "SEDE-2", "status": ["DELIVERED"]},
}
WORDS = ("garcía", "xi", "a", "a-00", "garcia 300", "guia-0001 300", "a-000 peña", "zzzyx", "sofia a-0001", "010007")
READ_WHOLE = """
WITH patterns AS MATERIALIZED (
    SELECT array_agg(search_pattern(word)) AS patterns FROM unnest(%(words)s::text[]) AS word)
SELECT package_id::text FROM package_listing AS l JOIN package_search USING (package_id, announced_at)
WHERE status = ANY(%(statuses)s) AND (%(site)s::text IS NULL OR site = %(site)s)
  AND NOT EXISTS (SELECT FROM unnest((SELECT patterns FROM patterns)) AS pattern
                  WHERE text NOT LIKE pattern AND coalesce(' ' || lower("position") NOT LIKE pattern, true))
  AND coalesce(received_at >= %(received_from)s, %(received_from)s::timestamptz IS NULL)
  AND coalesce(received_at < %(received_to)s, %(received_to)s::timestamptz IS NULL)
  AND coalesce(received_at < %(received_before)s, %(received_before)s::timestamptz IS NULL)
  AND coalesce(announced_at >= %(announced_from)s, true) AND coalesce(announced_at < %(announced_to)s, true)
  AND coalesce(storage_days >= %(min_stay)s, %(min_stay)s::int IS NULL)
  AND coalesce(storage_days <= %(max_stay)s, %(max_stay)s::int IS NULL)
ORDER BY announced_at {direction}, package_id {direction}
"""


def compare(plans: Plans, filters: PackageFilters, direction: str) -> None:
    query = listing(filters, is_continued=False)
    binds = {"scopes": [], "now": query.now, "words": (filters.q or "").split(), **query.binds}
    row = plans.conn.execute(query.statement, binds).fetchone()
    assert row is not None
    wanted = [key for (key,) in plans.conn.execute(READ_WHOLE.replace("{direction}", direction), binds).fetchall()]
    assert [item["package_id"] for item in json.loads(row[4])] == wanted[:50]
    assert min(row[-1], 10_000) == min(len(wanted), 10_000)


@pytest.mark.parametrize("besides", BESIDES)
@pytest.mark.parametrize("received", RECEIVED)
def test_what_an_order_passes_by_is_not_read(plans: Plans, received: str, besides: str) -> None:
    """Receptions are sought in the indexes alone: parcels, order and count are those of reading everything."""
    for sort, direction in (("newest", "DESC"), ("oldest", "ASC")):
        filters = PackageFilters(sort=sort, **RECEIVED[received] | BESIDES[besides])
        compare(plans, filters, direction)
        for is_continued in (False, True):
            assert plans.pages_read(listing(filters, is_continued=is_continued)) < MOST_PAGES


@pytest.mark.parametrize("words", WORDS)
def test_words_find_what_reading_everything_finds(plans: Plans, words: str) -> None:
    """Each parcel once, whether its text, its position or both have the words, in order and in number."""
    compare(plans, PackageFilters(q=words, sort="oldest"), "ASC")
    for narrowed in ({}, BESIDES["a rare status"], BESIDES["a site"], RECEIVED["ten days"]):
        compare(plans, PackageFilters(q=words, **narrowed), "DESC")


def others() -> dict[str, Query]:
    now = Clock()()
    return {
        "package": get_package.fetch(PACKAGE, now),
        "fee": package_fee.fetch(PACKAGE, now),
        "lookup of a code": lookup_packages.fetch("GUIA-00000042", now),
        "lookup of a phone": lookup_packages.fetch("300 000 0042", now),
        "track": track_package.fetch("2222-2JGX", now),
        "customer": get_customer.fetch(CUSTOMER, now),
        "customers": list_customers.fetch(CustomerPage(), now, "a key"),
        "customers by words": list_customers.fetch(CustomerPage(q="garcia 300"), now, "a key"),
        "summary": summary.fetch(None, None, now),
        "summary of a site": summary.fetch(None, "SEDE-1", now),
        "arrivals": arrivals.fetch(None, None, now),
        "arrivals at a site": arrivals.fetch(None, "SEDE-1", now),
        "positions": list_positions.fetch("SEDE-1", now),
        "some positions": list_positions.fetch("SEDE-1", now, 200, 1000),
    }


@pytest.mark.parametrize("name", others())
def test_every_other_query_uses_an_index(plans: Plans, name: str) -> None:
    """Nor does any other query read a large table whole."""
    plans.indexes(others()[name])


def test_merged_orders_are_those_of_sorting(plans: Plans) -> None:
    """What the walks give is what sorting all of it gives, at 100,000 as well."""
    now = Clock()()
    for sort, order in {
        "newest": "announced_at DESC, package_id DESC",
        "owed": "fee.total DESC, received_at, package_id",
        "days": "received_at, package_id",
    }.items():
        query = fetch(PackageFilters(sort=sort, site="SEDE-1", status=["RECEIVED"]), now, "a key", 100)
        row = plans.conn.execute(query.statement, {"scopes": [], "now": now, **query.binds}).fetchone()
        assert row is not None
        wanted = plans.conn.execute(
            f"SELECT package_id::text FROM package_listing AS l, package_fee(base_fee, daily_storage, received_at, %s)"
            f" AS fee WHERE site = 'SEDE-1' AND status = 'RECEIVED' ORDER BY {order} LIMIT 100",
            [now],
        ).fetchall()
        assert [item["package_id"] for item in json.loads(row[4])] == [package_id for (package_id,) in wanted]
