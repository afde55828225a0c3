"""What has committed since the checkpoint: whole transactions, each with the keys that it makes dirty.

A batch is bounded. A backlog is taken transaction by transaction, and one that makes very many rows dirty (a customer
with 10,000 packages) in parts, which are kept in `unfinished_changes` until the last one is in.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from db.pools import Connection
from projections.parking import Kind

Key = tuple[Kind, str]
"""A row of a package or of a customer, to be derived again: its id as the database writes it."""

Packages = dict[str, list[str]]
"""The packages of customers."""

LogRow = tuple[str, str | None, str | None, datetime]
"""What names a change's keys: its transaction, a package, a customer; and when it was made."""

LOG_ROW = "SELECT xid::text, package_id::text, customer_id::text, at FROM"
"""Ids as text: a batch has thousands, and sends them back as they came."""

AT_ONCE = 250
"""Keys: a transaction that makes more of them dirty is taken in parts."""

PART = 40
"""Keys of one part: what other changes may have to wait for."""

# The bounds are scalar subqueries: known before the scan, they let it use the index on xid. Joined, it reads the log.
# `since` is bound, known before that: months that are long over aren't even opened. With its table, xid is a number;
# alone, it would be the text that is selected, of which "10" comes before "9".
READ_CHANGES = f"""
{LOG_ROW} change_log
WHERE logged_at >= %(since)s
  AND xid >= (SELECT unread_from FROM projection_checkpoint WHERE name = 'listing')
  AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
  AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
  AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
  AND xid <> ALL (%(unfinished)s::text[]::xid8[])
ORDER BY change_log.xid
LIMIT %(limit)s
"""

READ_ONE = f"""
{LOG_ROW} change_log
WHERE logged_at >= %(since)s AND xid = %(xid)s::text::xid8
  AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
"""

PACKAGES_OF_CUSTOMERS = """
SELECT customer_id::text, package_id::text FROM packages WHERE customer_id = ANY(%(customer_ids)s::uuid[])
"""

NEXT_PART = """
SELECT xid::text::bigint, part, package_ids::text[], customer_ids::text[]
FROM unfinished_changes ORDER BY xid, part LIMIT 1
"""

KEEP_PARTS = """
INSERT INTO unfinished_changes (xid, part, package_ids, customer_ids)
SELECT %(xid)s::text::xid8, (number - 1) / %(part)s, coalesce(array_agg(key) FILTER (WHERE is_package), '{}'),
       coalesce(array_agg(key) FILTER (WHERE NOT is_package), '{}')
FROM unnest(%(keys)s::uuid[], %(are_packages)s::boolean[]) WITH ORDINALITY AS k (key, is_package, number)
GROUP BY 2
"""

FORGET_PART = "DELETE FROM unfinished_changes WHERE xid = %(xid)s::text::xid8 AND part = %(part)s"


# Not frozen, and with one list: there are thousands in a batch, and more would make each several times as dear.
@dataclass(slots=True)
class Change:
    """What one transaction makes dirty, by the packages and customers that its log rows name."""

    xid: int
    at: datetime
    named: list[tuple[str | None, str | None]]

    @property
    def rows(self) -> int:
        """How many log rows it has."""
        return len(self.named)

    @property
    def whole_customer_ids(self) -> list[str]:
        """Customers whose every package it makes dirty."""
        return [customer_id for package_id, customer_id in self.named if package_id is None and customer_id is not None]

    @property
    def is_reference(self) -> bool:
        """Tell whether it names neither: a site, a tariff, staff."""
        return (None, None) in self.named

    def keys(self, packages: Packages) -> list[Key]:
        """Name its dirty keys, given the packages of its whole customers; the customers come first."""
        customer_ids: set[str] = set()
        package_ids: set[str] = set()
        for package_id, customer_id in self.named:
            if package_id is not None:
                package_ids.add(package_id)
            elif customer_id is not None:
                package_ids.update(packages.get(customer_id, ()))
            if customer_id is not None:
                customer_ids.add(customer_id)
        return [("customer", key) for key in customer_ids] + [("package", key) for key in package_ids]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the keys of a change that is taken in parts."""

    xid: int
    number: int
    keys: list[Key]


@dataclass(frozen=True, slots=True)
class Unread:
    """Where what is unread begins, by the server's clock, and which transactions beyond have been read already."""

    since: datetime
    besides: Collection[int] = ()


def by_transaction(rows: Iterable[LogRow]) -> list[Change]:
    """Put the log's rows together, in the order in which each transaction comes up first."""
    changes: dict[str, Change] = {}
    for xid, package_id, customer_id, at in rows:
        change = changes.get(xid)
        if change is None:
            changes[xid] = Change(int(xid), at, [(package_id, customer_id)])
        else:
            change.named.append((package_id, customer_id))
            change.at = max(change.at, at)
    return list(changes.values())


async def read_changes(conn: Connection, limit: int, unread: Unread) -> tuple[list[Change], int | None]:
    """Read whole transactions, about `limit` rows of them, and the first transaction left out (None: all was read)."""
    binds = {"limit": limit + 1, "since": unread.since, "unfinished": [str(xid) for xid in unread.besides]}
    rows = await (await conn.execute(READ_CHANGES, binds)).fetchall()
    changes = by_transaction(rows)
    if len(rows) <= limit:
        return changes, None
    end = changes[-1].xid
    if len(changes) == 1:  # one transaction larger than a batch: it is read whole
        rows = await (await conn.execute(READ_ONE, {"xid": str(end), "since": unread.since})).fetchall()
        return by_transaction(rows), end + 1
    return changes[:-1], end


async def read_packages(conn: Connection, changes: Iterable[Change]) -> Packages:
    """Read the packages of the customers that changed as a whole, by customer."""
    packages: Packages = {}
    if whole := [customer_id for change in changes for customer_id in change.whole_customer_ids]:
        rows = await conn.execute(PACKAGES_OF_CUSTOMERS, {"customer_ids": array_of(whole)})
        for customer_id, package_id in await rows.fetchall():
            packages.setdefault(customer_id, []).append(package_id)
    return packages


async def next_part(conn: Connection) -> Part | None:
    """Read the oldest part that is still to be done."""
    row = await (await conn.execute(NEXT_PART)).fetchone()
    if row is None:
        return None
    xid, number, package_ids, customer_ids = row
    keys: list[Key] = [("customer", key) for key in customer_ids]
    return Part(xid, number, keys + [("package", key) for key in package_ids])


async def keep_parts(conn: Connection, xid: int, keys: list[Key]) -> None:
    """Keep a change's keys for the batches to come."""
    are_packages = array_of("t" if kind == "package" else "f" for kind, _ in keys)
    binds = {"xid": str(xid), "part": PART, "keys": array_of(key for _, key in keys), "are_packages": are_packages}
    await conn.execute(KEEP_PARTS, binds)


async def forget_part(conn: Connection, part: Part) -> None:
    """Strike off a part that is in."""
    await conn.execute(FORGET_PART, {"xid": str(part.xid), "part": part.number})


def of(keys: Iterable[Key], kind: str) -> list[str]:
    """Give the keys of one kind."""
    return [key for its_kind, key in keys if its_kind == kind]


def array_of(values: Iterable[object]) -> str:
    """Write an array of keys as the database reads it: thousands are quicker so than one by one."""
    return f"{{{','.join(map(str, values))}}}"
