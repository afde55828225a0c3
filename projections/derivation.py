"""Derive the read models of dirty keys again from the normalized tables, whatever it was that made them dirty."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from db.pools import Connection
from projections import (
    customer_listing,
    package_counts,
    package_listing,
    package_search,
    page_generations,
    payment_listing,
)
from projections.changes import Key, of
from projections.parking import derive_healthy


@dataclass(slots=True)
class Derived:
    """How packages moved, the scopes whose pages that changes, and why some keys couldn't be derived."""

    moved: list[package_listing.Moved] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)
    reasons: dict[Key, str] = field(default_factory=dict)


async def derive(
    conn: Connection, package_ids: Collection[uuid.UUID], customer_ids: Collection[uuid.UUID]
) -> tuple[list[package_listing.Moved], set[str]]:
    """Derive the rows of these keys; tell how packages moved, and the scopes whose pages that changes."""
    moved: list[package_listing.Moved] = []
    if package_ids:
        moved = await package_listing.project(conn, package_ids)
        await package_search.project(conn, package_ids)
        if gone := [row.package_id for row in moved if row.status is None]:
            await package_search.forget(conn, gone)
        await payment_listing.project(conn, package_ids)
        await package_counts.project(conn, moved)
    owners = {row.customer_id for row in moved if row.customer_id is not None}
    changed = await customer_listing.project(conn, {*customer_ids, *owners})
    return moved, page_generations.scopes_of(moved, changed)


async def derive_all(conn: Connection, keys: Collection[Key]) -> Derived:
    """Derive every key; one that can't be derived fails them all."""
    moved, scopes = await derive(conn, of(keys, "package"), of(keys, "customer"))
    return Derived(moved, scopes)


async def derive_what_can_be(conn: Connection, keys: Collection[Key], suspects: Collection[Key]) -> Derived:
    """Derive every key that can be derived and give the reasons of the others; the `suspects` are tried one by one."""
    derived = Derived()

    async def derive_packages(package_ids: Sequence[uuid.UUID]) -> None:
        moved, scopes = await derive(conn, package_ids, ())
        derived.moved += moved
        derived.scopes |= scopes

    async def derive_customers(customer_ids: Sequence[uuid.UUID]) -> None:
        _, scopes = await derive(conn, (), customer_ids)
        derived.scopes |= scopes

    suspected = set(keys) & set(suspects)
    for group in ([key for key in keys if key not in suspected], *([key] for key in suspected)):
        if customer_ids := of(group, "customer"):
            found = await derive_healthy(conn, customer_ids, derive_customers)
            derived.reasons |= {("customer", key): reason for key, reason in found.items()}
        if package_ids := of(group, "package"):
            found = await derive_healthy(conn, package_ids, derive_packages)
            derived.reasons |= {("package", key): reason for key, reason in found.items()}
    return derived
