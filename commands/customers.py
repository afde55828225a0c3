"""How commands find the customers they are about, or make them: the phone is the natural key."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from commands.transaction import Context
from db.pools import Connection

POLICY_VERSION = "2026-11"
"""The data policy that a consent given now is a consent to (Ley 1581)."""

FIND = "SELECT phone, customer_id FROM customers WHERE phone = ANY(%(phones)s)"

# In the order of the phones, so that two who add the same ones wait and never deadlock. Nothing of an existing
# customer is changed: households share a phone.
ADD = """
INSERT INTO customers (customer_id, name, phone, created_at)
SELECT coalesce(customer_id, uuidv7()), name, phone, %(now)s
FROM jsonb_to_recordset(%(people)s) AS person (customer_id uuid, name text, phone text)
ORDER BY phone
ON CONFLICT (phone) DO NOTHING
RETURNING phone, customer_id
"""

ADD_CONSENTS = """
INSERT INTO consents (customer_id, package_id, policy_version, channel, at)
SELECT customer_id, package_id, %(policy_version)s, %(channel)s, %(now)s
FROM unnest(%(consenting)s::uuid[], %(consented)s::uuid[]) AS given (customer_id, package_id)
"""


@dataclass(frozen=True, slots=True)
class Person:
    """A name and a phone as somebody gave them."""

    name: str
    phone: str | None


async def find_or_add_all(conn: Connection, people: Sequence[Person], context: Context) -> list[uuid.UUID]:
    """Give each phone's customer, made with the first name given if there was none; without a phone a new one each."""
    phones = {person.phone for person in people if person.phone is not None}
    known: dict[str | None, uuid.UUID] = {}
    if phones:
        known |= dict(await (await conn.execute(FIND, {"phones": list(phones)})).fetchall())
    new = {person.phone: person.name for person in reversed(people) if person.phone and person.phone not in known}
    if new:
        rows = Jsonb([{"name": name, "phone": phone} for phone, name in new.items()])
        known |= dict(await (await conn.execute(ADD, {"people": rows, "now": context.now})).fetchall())
    if missed := [phone for phone in phones if phone not in known]:  # somebody else added them while we waited
        known |= dict(await (await conn.execute(FIND, {"phones": missed})).fetchall())
    nameless = [person.name for person in people if person.phone is None]
    added = iter(await _add_without_phone(conn, nameless, context))
    return [known[person.phone] if person.phone else next(added) for person in people]


async def _add_without_phone(conn: Connection, names: Sequence[str], context: Context) -> list[uuid.UUID]:
    if not names:
        return []
    ids = await new_ids(conn, len(names))
    rows = Jsonb([{"customer_id": str(id_), "name": name} for id_, name in zip(ids, names, strict=True)])
    await conn.execute(ADD, {"people": rows, "now": context.now})
    return ids


async def new_ids(conn: Connection, count: int) -> list[uuid.UUID]:
    """Draw ids that grow, for rows that must name each other."""
    found = await conn.execute("SELECT uuidv7() FROM generate_series(1, %(count)s)", {"count": count})
    return [row[0] for row in await found.fetchall()]


def consents(given: Sequence[tuple[uuid.UUID, uuid.UUID]], channel: str, context: Context) -> dict[str, Any]:
    """Give what ADD_CONSENTS takes: of each customer and package, to the data policy that is in force."""
    return {
        "consenting": [customer_id for customer_id, _ in given],
        "consented": [package_id for _, package_id in given],
        "policy_version": POLICY_VERSION,
        "channel": channel,
        "now": context.now,
    }
