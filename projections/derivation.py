"""Derive the read models of dirty keys again from the normalized tables, whatever it was that made them dirty.

All of them in one statement: a batch is mostly of a few keys, and then each statement costs more than what it does.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from db.pools import Connection
from projections import (
    batch_changes,
    customer_listing,
    package_counts,
    package_listing,
    package_search,
    page_generations,
    payment_listing,
)
from projections.batch_changes import Noted
from projections.changes import Key, array_of, of
from projections.parking import Id, derive_healthy

DERIVE = f"""
WITH {package_listing.DERIVED}, {package_search.DERIVED}, {payment_listing.DERIVED}, {package_counts.DERIVED},
     {customer_listing.DERIVED}, {page_generations.TOUCHED}, {batch_changes.NOTED}
{page_generations.SCOPES}
"""


@dataclass(slots=True)
class Derived:
    """The scopes whose pages that changes, and why some keys couldn't be derived."""

    scopes: set[str] = field(default_factory=set)
    reasons: dict[Key, str] = field(default_factory=dict)

    def add(self, other: "Derived") -> None:
        """Take in what else was derived."""
        self.scopes |= other.scopes
        self.reasons |= other.reasons


async def derive(
    conn: Connection, package_ids: Collection[Id], customer_ids: Collection[Id], noted: Noted | None = None
) -> Derived:
    """Derive the rows of these keys; one that can't be derived fails them all. What changes is noted for a batch."""
    keys = {"package_ids": array_of(package_ids), "customer_ids": array_of(customer_ids)}
    binds = {**keys, "batch": noted and noted.batch, "at": noted and noted.at}
    return Derived({scope for (scope,) in await (await conn.execute(DERIVE, binds)).fetchall()})


async def derive_what_can_be(
    conn: Connection, keys: Collection[Key], suspects: Collection[Key], noted: Noted
) -> Derived:
    """Derive every key that can be derived and give the reasons of the others; the `suspects` are tried one by one."""
    derived = Derived()

    async def derive_packages(package_ids: Sequence[str]) -> None:
        derived.add(await derive(conn, package_ids, (), noted))

    async def derive_customers(customer_ids: Sequence[str]) -> None:
        derived.add(await derive(conn, (), customer_ids, noted))

    suspected = set(keys) & set(suspects)
    for group in ([key for key in keys if key not in suspected], *([key] for key in suspected)):
        if customer_ids := of(group, "customer"):
            found = await derive_healthy(conn, customer_ids, derive_customers)
            derived.reasons |= {("customer", key): reason for key, reason in found.items()}
        if package_ids := of(group, "package"):
            found = await derive_healthy(conn, package_ids, derive_packages)
            derived.reasons |= {("package", key): reason for key, reason in found.items()}
    return derived
