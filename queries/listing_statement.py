"""The listing's statement for each shape that its parameters can have: each order walks an index of its own.

The planner can't choose well for `%(x)s IS NULL OR …`, so a statement has only what was asked for. It is put together
from the literal fragments below, once for each shape.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from db.package_document import PACKAGE_DOCUMENT, PRICED
from queries.sql import compose, extended, stamped

Sort = Literal["newest", "oldest", "owed", "days"]

COUNTED = 10_000
"""Matches that are counted one by one, and sorted where their own index has no order."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the parameters are, without their values; `implied` are the filters that follow from others."""

    sort: Sort
    filters: frozenset[str]
    implied: frozenset[str]
    words: int
    in_storage: bool
    is_continued: bool
    is_brief: bool
    """What is shown was received within few days: they are best collected by that, and sorted."""

    @property
    def is_counted_already(self) -> bool:
        """Tell whether the projection keeps this count."""
        return not self.words and self.filters <= {"statuses", "site"}

    @property
    def is_planned_by_values(self) -> bool:
        """Tell whether the best plan depends on how rare a payment, how common a word, or how wide a range is."""
        has_range = self.sort == "owed" and any(name.endswith(("_from", "_to", "_before")) for name in self.filters)
        return has_range or self.is_by_payment or self.words > 0

    @property
    def is_by_payment(self) -> bool:
        """Tell whether only what was paid for in some way is shown."""
        return not self.filters.isdisjoint(PAYMENT_CONDITIONS)

    @property
    def is_small(self) -> bool:
        """Tell whether a filter leaves so few rows that they are best sorted."""
        return bool(self.filters & {"customer_id", "position"})

    @property
    def is_collected(self) -> bool:
        """Tell whether walking to the first that was received then would take longer than sorting them."""
        return self.is_brief and not (self.in_storage or self.words or self.is_small or self.is_by_payment)

    @property
    def is_kept_by_index(self) -> bool:
        """Tell whether the index of the order holds what is asked for besides."""
        is_narrowed = self.words > 0 or not self.filters.isdisjoint(HIDDEN)
        return is_narrowed and self.sort in ("newest", "oldest") and not self.is_by_payment

    @property
    def is_walked_by_status(self) -> bool:
        """Tell whether the index of this order begins with the status, or with site and status."""
        narrowed = self.in_storage or bool(self.filters & {"statuses", "site"})
        return narrowed and not (self.is_small or self.is_by_payment) and self.sort in ("newest", "oldest")


CONDITIONS = {
    "statuses": "l.status = ANY(%(statuses)s)",
    "site": "l.site = %(site)s",
    "customer_id": "l.customer_id = %(customer_id)s",
    "position": """l."position" IS NOT NULL AND code_key(l."position") = code_key(%(position)s)""",
    "min_stay": "l.storage_days >= %(min_stay)s",
    "max_stay": "l.storage_days <= %(max_stay)s",
    "received_from": "l.received_at >= %(received_from)s",
    "received_to": "l.received_at < %(received_to)s",
    "announced_from": "l.announced_at >= %(announced_from)s",
    "announced_to": "l.announced_at < %(announced_to)s",
    "received_before": "l.received_at < %(received_before)s",
}

# An order's index knows when a parcel was received. In a plain condition the planner sees an index of receptions, too,
# and takes whichever it believes to be short; coalesce() leaves it none but that of the order.
HIDDEN = {
    name: f"coalesce({CONDITIONS[name]}, false)"
    for name in ("min_stay", "max_stay", "received_from", "received_to", "received_before")
}

PAYMENT_CONDITIONS = {
    "paid_from": "y.at >= %(paid_from)s",
    "paid_to": "y.at < %(paid_to)s",
    "payment_method": "y.method = %(payment_method)s",
    "payment_staff_id": "y.staff_id = %(payment_staff_id)s",
}

# As income counts it: a payment and its reversal leave nothing, and a reversal alone stands for itself. By the first
# part the planner may begin with the payments, by the second each parcel of an order is looked at.
PAID = """EXISTS (SELECT FROM payment_listing AS y WHERE y.package_id = l.package_id AND {payments})
    AND (SELECT sum(y.amount) <> 0 OR sum(CASE WHEN y.is_reversal THEN -1 ELSE 1 END) <> 0
         FROM payment_listing AS y WHERE y.package_id = l.package_id AND {payments})"""
INCOME = """json_build_object('income', (
    SELECT sum(y.amount)::bigint FROM payment_listing AS y WHERE y.package_id = l.package_id AND {payments}))"""

ORDERS: dict[Sort, str] = {
    "newest": "l.announced_at DESC, l.package_id DESC",
    "oldest": "l.announced_at, l.package_id",
    "owed": "fee.total DESC, l.received_at, l.package_id",
    "days": "l.received_at, l.package_id",
}

KEYS: dict[Sort, str] = {
    "newest": "json_build_array(instant(l.announced_at), l.package_id)",
    "oldest": "json_build_array(instant(l.announced_at), l.package_id)",
    "owed": "json_build_array(instant(l.received_at), l.package_id, fee.total)",
    "days": "json_build_array(instant(l.received_at), l.package_id)",
}

AFTER: dict[Sort, str] = {
    "newest": "(l.announced_at, l.package_id) < (%(after_at)s::timestamptz, %(after_id)s::uuid)",
    "oldest": "(l.announced_at, l.package_id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)",
    "owed": """(fee.total < %(after_due)s OR (fee.total = %(after_due)s
        AND (l.received_at, l.package_id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)))""",
    "days": "(l.received_at, l.package_id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)",
}

STATEMENT = """
WITH RECURSIVE {parts} page AS MATERIALIZED ({page})
SELECT coalesce(json_agg({document} ORDER BY l.n) FILTER (WHERE l.n <= %(limit)s), '[]')::text AS body,
       {expires_at} AS expires_at,
       NULL AS etag,
       coalesce(max(l.n) > %(limit)s, false) AS has_more,
       max({key}::text) FILTER (WHERE l.n = %(limit)s) AS last_key,
       ({count}) AS count
FROM (SELECT l.*, row_number() OVER (ORDER BY {order}) AS n FROM page AS l {priced}) AS l {priced}
"""

WALK = "SELECT {columns} FROM {source} WHERE {conditions} ORDER BY {order} LIMIT %(limit)s + 1"

# The indexes hold all that a walk asks for, so that the rows which it leaves out are never read.
BY_KEY = """
SELECT l.* FROM ({keys}) AS k CROSS JOIN LATERAL (
    SELECT l.* FROM package_listing AS l WHERE l.package_id = k.package_id LIMIT 1) AS l
"""
KEY = "l.package_id, l.announced_at"
ALL = "l.*"

# A position is one parcel's: OFFSET keeps the planner from walking an order until it meets it.
COLLECT = """
SELECT l.* FROM (SELECT {columns} FROM {source} WHERE {conditions} OFFSET 0) AS l ORDER BY {order} LIMIT %(limit)s + 1
"""

# One walk for each status, for an index that begins with the status has no order across several. Status and site are
# pinned by a range and named in the order: with an equality the planner takes any index on announced_at to be as good,
# and then walks a year of delivered parcels to the few announced ones.
WALK_BY_STATUS = """
SELECT l.* FROM unnest(%(statuses)s::text[]) AS branch (status) CROSS JOIN LATERAL (
    SELECT {columns} FROM {source} WHERE {pinned} AND {conditions} ORDER BY {pinned_order} LIMIT %(limit)s + 1
) AS l ORDER BY {order} LIMIT %(limit)s + 1
"""

BY_STATUS = {"columns": "l.status", "values": "branch.status", "newest": "l.status DESC", "oldest": "l.status"}
BY_SITE = {
    "columns": "l.site, l.status",
    "values": "%(site)s, branch.status",
    "newest": "l.site DESC, l.status DESC",
    "oldest": "l.site, l.status",
}

# One bound at each end, the narrowest: of two the index may begin at the wider one, and a late page then walks from
# the first row.
LOWER = "({columns}) >= ({values})"
LOWER_FROM = "({columns}, l.announced_at) >= ({values}, %(announced_from)s)"
LOWER_AFTER = "({columns}, l.announced_at, l.package_id) > ({values}, %(after_at)s::timestamptz, %(after_id)s::uuid)"
UPPER = "({columns}) <= ({values})"
UPPER_TO = "({columns}, l.announced_at) < ({values}, %(announced_to)s)"
UPPER_AFTER = "({columns}, l.announced_at, l.package_id) < ({values}, %(after_at)s::timestamptz, %(after_id)s::uuid)"

ANNOUNCED = frozenset({"announced_from", "announced_to"})

IMPLIED: dict[Sort, str] = {"newest": "announced_to", "oldest": "announced_from", "days": "received_from", "owed": ""}
"""The filter that a cursor implies, since it came from a row within the filters."""

# What is owed falls as received_at rises, for parcels with the same fees. There are few such pairs of fees: each is
# walked by its index, and the walks are merged. One row more than is shown of each tells when another could overtake.
WALK_BY_FEES = """
SELECT l.* FROM pairs {start} CROSS JOIN LATERAL (
    SELECT l.* FROM {source} {priced}
    WHERE l.base_fee = pairs.base_fee AND l.daily_storage = pairs.daily_storage AND {conditions}
    ORDER BY l.received_at, l.package_id LIMIT %(limit)s + 1
) AS l
"""

PAIRS = """
pairs AS (
    (SELECT base_fee, daily_storage FROM package_listing WHERE status = 'RECEIVED'
     ORDER BY base_fee, daily_storage LIMIT 1)
    UNION ALL
    SELECT following.base_fee, following.daily_storage FROM pairs CROSS JOIN LATERAL (
        SELECT l.base_fee, l.daily_storage FROM package_listing AS l
        WHERE l.status = 'RECEIVED' AND (l.base_fee, l.daily_storage) > (pairs.base_fee, pairs.daily_storage)
        ORDER BY l.base_fee, l.daily_storage LIMIT 1) AS following
),
"""

# Where a pair's walk goes on behind a row that owes `after_due`: at the first one that owes no more than that.
START = """
CROSS JOIN LATERAL (
    SELECT %(now)s - (least((%(after_due)s - pairs.base_fee) / nullif(pairs.daily_storage, 0), 100000) + 1)
           * interval '24 hours' AS since
) AS step
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN %(after_due)s < pairs.base_fee THEN %(now)s
        WHEN pairs.daily_storage = 0 AND %(after_due)s > pairs.base_fee THEN '-infinity'
        WHEN pairs.daily_storage = 0 THEN %(after_at)s::timestamptz
        WHEN (%(after_due)s - pairs.base_fee) %% pairs.daily_storage = 0
            THEN least(greatest(step.since, %(after_at)s::timestamptz), step.since + interval '24 hours')
        ELSE step.since END AS since
) AS start
"""

# The position isn't in the text, so that moving a parcel doesn't touch the search: the positions' own index is read
# besides, for what the text alone doesn't say. One row more than COUNTED tells that there are too many to sort; with so
# many by their texts nobody needs to know which others there are by their positions, for the order is walked.
MATCHED = """
by_text AS MATERIALIZED (
    SELECT s.package_id, s.announced_at FROM {searched} WHERE {in_text} AND {conditions} LIMIT 10001
),
by_position AS MATERIALIZED (
    SELECT l.package_id, s.announced_at
    FROM (SELECT l.package_id FROM package_listing AS l
          WHERE l."position" IS NOT NULL AND ({in_position}) AND (SELECT count(*) <= 10000 FROM by_text) OFFSET 0)
        AS stored CROSS JOIN LATERAL (
            SELECT l.* FROM package_listing AS l WHERE l.package_id = stored.package_id LIMIT 1) AS l
        CROSS JOIN LATERAL (
            SELECT s.text, s.announced_at FROM package_search AS s WHERE s.package_id = l.package_id LIMIT 1) AS s
    WHERE {in_either} AND NOT ({in_text}) AND {conditions} LIMIT 10001
),
matched AS NOT MATERIALIZED (SELECT m.* FROM by_text AS m UNION ALL SELECT m.* FROM by_position AS m),
found AS MATERIALIZED (SELECT count(*) AS count FROM matched),
"""

# What is asked for is all in `matched`, so that the few that are shown are chosen before any is looked up.
CHOOSE = """
SELECT l.* FROM (
    SELECT l.* FROM matched AS l WHERE {few} AND {after} ORDER BY {order} LIMIT %(limit)s + 1
) AS m CROSS JOIN LATERAL (SELECT l.* FROM package_listing AS l WHERE l.package_id = m.package_id LIMIT 1) AS l
"""

FEW = "(SELECT count <= 10000 FROM found)"
MANY = "(SELECT count > 10000 FROM found)"

COUNT_KEPT = """SELECT coalesce(sum(k.count), 0)::bigint FROM package_counts AS k
WHERE k.status = ANY(%(statuses)s) {at_site}"""
COUNT_ROWS = "SELECT count(*) FROM (SELECT FROM {source} WHERE {conditions} LIMIT 10001) AS counted"
# From the latest on, whatever the order shown: parcels are received soon after they are announced, so that a range of
# receptions begins at its late end, and is found by few steps there.
COUNT_WALK = """
SELECT count(*) FROM (
    SELECT FROM {source} WHERE {conditions} ORDER BY l.announced_at DESC, l.package_id DESC LIMIT 10001) AS counted
"""
COUNT_BY_STATUS = """
SELECT count(*) FROM (
    SELECT FROM unnest(%(statuses)s::text[]) AS branch (status) CROSS JOIN LATERAL (
        SELECT FROM {source} WHERE {pinned} AND {conditions} ORDER BY {pinned_order} LIMIT 10001) AS l
    LIMIT 10001) AS counted
"""
# By an order of their own, so that the smallest index there is counts them.
COUNT_STORED = """
SELECT count(*) FROM (SELECT FROM {source} WHERE {conditions} ORDER BY l.received_at LIMIT 10001) AS counted
"""

NEXT_MEMBER = """(SELECT min(m.received_at) + %(min_days)s * interval '24 hours' FROM package_listing AS m
    WHERE m.status = 'RECEIVED' AND m.received_at >= %(received_before)s)"""

LISTING = "package_listing AS l"

# A row at a time by its key: how many there will be can't be known from a text, and a join would read a whole table.
TEXT = "package_search AS s"
TEXT_AND_LISTING = "package_search AS s JOIN package_listing AS l ON l.package_id = s.package_id"
LISTING_AND_TEXT = """package_listing AS l CROSS JOIN LATERAL (
    SELECT s.text, s.announced_at FROM package_search AS s WHERE s.package_id = l.package_id LIMIT 1) AS s"""
MATCHES = """matched AS m CROSS JOIN LATERAL (
    SELECT l.* FROM package_listing AS l WHERE l.package_id = m.package_id LIMIT 1) AS l"""


def _word(number: int) -> str:
    return compose("search_pattern(%({name})s)", name=f"word_{number}")


def _words(shape: Shape, template: str, between: str) -> str:
    return between.join(compose(template, word=_word(number)) for number in range(shape.words))


IN_TEXT = "s.text LIKE {word}"
IN_POSITION = """' ' || lower(l."position") LIKE {word}"""
# The planner takes a text that it doesn't know for a rare one, and would read and sort everything rather than walk
# until enough is found. coalesce() hides what it would guess from.
IN_EITHER = """coalesce(s.text LIKE {word} OR ' ' || lower(l."position") LIKE {word}, false)"""


def _of_payments(shape: Shape, template: str) -> str:
    wanted = [text for name, text in PAYMENT_CONDITIONS.items() if name in shape.filters]
    return compose(template, payments=" AND ".join(wanted))


def _conditions(shape: Shape, *without: str, said: Mapping[str, str] = CONDITIONS) -> str:
    wanted = [text for name, text in said.items() if name in shape.filters and name not in without]
    if shape.in_storage and "position" not in shape.filters:
        wanted.append("l.status = 'RECEIVED'")
    if shape.is_by_payment:
        wanted.append(_of_payments(shape, PAID))
    return " AND ".join(wanted) or "true"


def _continued(shape: Shape, *more: str, without: Iterable[str] = (), said: Mapping[str, str] = CONDITIONS) -> str:
    if not shape.is_continued:
        return " AND ".join([_conditions(shape, *without, said=said), *more])
    return " AND ".join([_conditions(shape, *without, IMPLIED[shape.sort], said=said), AFTER[shape.sort], *more])


def _walk(shape: Shape, source: str, *more: str) -> str:
    """Walk the index of the order, or the indexes that it is merged from."""
    order, priced = ORDERS[shape.sort], PRICED
    if shape.sort != "owed":
        said, columns = (CONDITIONS | HIDDEN, KEY) if shape.is_kept_by_index else (CONDITIONS, ALL)
        conditions = _continued(shape, *more, said=said)
        return _rows_of(shape, compose(WALK, columns=columns, source=source, conditions=conditions, order=order))
    if not shape.is_continued:
        return compose(WALK_BY_FEES, source=source, priced=priced, conditions=_continued(shape, *more), start="")
    conditions = _continued(shape, *more, "l.received_at >= start.since")
    return compose(WALK_BY_FEES, source=source, priced=priced, conditions=conditions, start=START)


def _rows_of(shape: Shape, keys: str) -> str:
    """Look up what a walk has found by its index alone."""
    return compose(BY_KEY, keys=keys) if shape.is_kept_by_index else keys


def _walk_by_status(shape: Shape, source: str, *more: str) -> str:
    """Walk an index that begins with what pins a branch, once for each status."""
    conditions = " AND ".join([*_unpinned(shape), *more]) or "true"
    columns = KEY if shape.is_kept_by_index else ALL
    return _rows_of(shape, _branches(shape, WALK_BY_STATUS, columns=columns, source=source, conditions=conditions))


def _branches(shape: Shape, template: str, **fragments: str) -> str:
    order = ORDERS[shape.sort]
    pinned_order = f"{_pinned(shape)[shape.sort]}, {order}"
    return compose(template, pinned=_range(shape), pinned_order=pinned_order, order=order, **fragments)


def _pinned(shape: Shape) -> dict[str, str]:
    return BY_SITE if "site" in shape.filters else BY_STATUS


def _range(shape: Shape) -> str:
    """Bound a branch's walk by what pins it, the filters on announced_at, and the row it goes on after."""
    lower = LOWER_FROM if "announced_from" in shape.filters else LOWER
    upper = UPPER_TO if "announced_to" in shape.filters else UPPER
    if shape.is_continued:
        lower, upper = (lower, UPPER_AFTER) if shape.sort == "newest" else (LOWER_AFTER, upper)
    pinned = _pinned(shape)
    return compose(f"{lower} AND {upper}", columns=pinned["columns"], values=pinned["values"])


def _unpinned(shape: Shape) -> list[str]:
    pinned = {"statuses", "site", "announced_from", "announced_to"}
    return [text for name, text in (CONDITIONS | HIDDEN).items() if name in shape.filters - pinned]


def _sort(shape: Shape, source: str, *more: str) -> str:
    """Sort what a filter leaves; of `owed` all of it, since each of it tells when the order changes."""
    conditions = _continued(shape, *more)
    if shape.sort == "owed":
        template = "SELECT l.* FROM {source} {priced} WHERE {conditions}"
        return compose(template, source=source, priced=PRICED, conditions=conditions)
    template = COLLECT if "position" in shape.filters else WALK
    return compose(template, columns=ALL, source=source, conditions=conditions, order=ORDERS[shape.sort])


def _collect(shape: Shape) -> str:
    """Sort what was received within few days, as the index of receptions knows it."""
    conditions = _continued(shape, without=shape.implied & ANNOUNCED)
    order = ORDERS[shape.sort]
    keys = compose(COLLECT, columns=KEY, source=LISTING, conditions=conditions, order=order)
    return compose(BY_KEY, keys=keys)


def _few(shape: Shape) -> str:
    if shape.sort not in ("newest", "oldest"):
        return _sort(shape, MATCHES, FEW)
    after = AFTER[shape.sort] if shape.is_continued else "true"
    return compose(CHOOSE, few=FEW, after=after, order=ORDERS[shape.sort])


def _page(shape: Shape) -> str:
    words = [_words(shape, IN_EITHER, " AND ")] if shape.words else []
    source = LISTING_AND_TEXT if shape.words else LISTING
    if shape.is_small:
        return _sort(shape, source, *words)
    if shape.is_collected and shape.sort == "oldest":
        return _collect(shape)
    walk = _walk_by_status if shape.is_walked_by_status else _walk
    if not shape.words:
        return walk(shape, source)
    few, many = _few(shape), walk(shape, source, *words, MANY)
    return compose("({few}) UNION ALL ({many})", few=few, many=many)


def _count(shape: Shape) -> str:
    if shape.is_counted_already:
        return compose(COUNT_KEPT, at_site="AND k.site = %(site)s" if "site" in shape.filters else "")
    if not shape.words:
        return _count_rows(shape)
    if shape.is_small:
        conditions = f"{_conditions(shape)} AND {_words(shape, IN_EITHER, ' AND ')}"
        return compose(COUNT_ROWS, source=LISTING_AND_TEXT, conditions=conditions)
    return "SELECT count FROM found"


def _count_rows(shape: Shape) -> str:
    whole = replace(shape, is_continued=False, sort="newest")
    if shape.in_storage and not shape.is_small:
        return compose(COUNT_STORED, source=LISTING, conditions=_conditions(shape, *(shape.implied & ANNOUNCED)))
    if shape.is_small or shape.is_by_payment or shape.is_collected:
        return compose(COUNT_ROWS, source=LISTING, conditions=_conditions(shape, *(shape.implied & ANNOUNCED)))
    if shape.is_walked_by_status:
        conditions = " AND ".join(_unpinned(whole)) or "true"
        return _branches(whole, COUNT_BY_STATUS, source=LISTING, conditions=conditions)
    return compose(COUNT_WALK, source=LISTING, conditions=_conditions(shape, said=CONDITIONS | HIDDEN))


def _expiry(shape: Shape) -> str:
    """When time changes the page: `owed` looks at all candidates, since another may overtake what is shown."""
    if shape.sort in ("owed", "days") and shape.is_continued:
        return "NULL::timestamptz"  # its cursor has pinned the instant
    shown = "l.status = 'RECEIVED'" if shape.sort == "owed" else "l.status = 'RECEIVED' AND l.n <= %(limit)s"
    fees = compose("min(fee.next_fee_at) FILTER (WHERE {shown})", shown=shown)
    return f"least({fees}, {NEXT_MEMBER})" if "received_before" in shape.filters else fees


def _parts(shape: Shape) -> Iterator[str]:
    if shape.sort == "owed":
        yield PAIRS
    if shape.words and not shape.is_small:
        yield _matched(shape)


def _matched(shape: Shape) -> str:
    """Find what has the words; when it was announced is known beside them, everything else by the listing."""
    by_date = [name for name in ("announced_from", "announced_to") if name in shape.filters]
    listed = _conditions(shape, *by_date)
    return compose(
        MATCHED,
        searched=TEXT if listed == "true" else TEXT_AND_LISTING,
        conditions=" AND ".join([listed, *(CONDITIONS[name].replace("l.", "s.") for name in by_date)]),
        in_text=_words(shape, IN_TEXT, " AND "),
        in_position=_words(shape, IN_POSITION, " OR "),
        in_either=_words(shape, IN_EITHER, " AND "),
    )


def _document(shape: Shape) -> str:
    return extended(PACKAGE_DOCUMENT, _of_payments(shape, INCOME)) if shape.is_by_payment else PACKAGE_DOCUMENT


@functools.cache
def statement(shape: Shape) -> str:
    """Give the one statement that answers such a listing."""
    return stamped(
        compose(
            STATEMENT,
            parts=" ".join(_parts(shape)),
            page=_page(shape),
            document=_document(shape),
            expires_at=_expiry(shape),
            key=KEYS[shape.sort],
            count=_count(shape),
            order=ORDERS[shape.sort],
            priced=PRICED,
        )
    )
