"""Read models filled by hand: what a projector would have written, without one."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from fastapi.testclient import TestClient
from psycopg.types.json import Jsonb
from redis import Redis

from db.consistency import CHANNEL, Token, TokenSigner
from db.page_cache import EPOCH_KEY, PREFIX, RAISE, generation_key
from infra.auth import Role, Session, encode_session
from infra.settings import Settings
from tests.support import Clock

EPOCH = "epoch-of-tests"

UPSERT = """
INSERT INTO package_listing SELECT (jsonb_populate_record(NULL::package_listing, %(row)s)).*
ON CONFLICT (package_id) DO UPDATE SET
    version = excluded.version, status = excluded.status, site = excluded.site, "position" = excluded."position",
    recipient_name = excluded.recipient_name, customer_id = excluded.customer_id,
    customer_name = excluded.customer_name, customer_phone = excluded.customer_phone,
    received_at = excluded.received_at, delivered_at = excluded.delivered_at, cancelled_at = excluded.cancelled_at,
    storage_days = excluded.storage_days, storage_fee = excluded.storage_fee, total = excluded.total,
    paid = excluded.paid
"""

CUSTOMERS = """
INSERT INTO customer_listing (customer_id, version, name, phone, created_at, text)
SELECT DISTINCT ON (l.customer_id) l.customer_id, 1, l.customer_name, l.customer_phone, l.announced_at,
    ' ' || searchable(concat_ws(' ', l.customer_name, l.customer_phone))
FROM package_listing AS l WHERE l.package_id = ANY(%(ids)s) ORDER BY l.customer_id, l.announced_at
ON CONFLICT (customer_id) DO NOTHING
"""

SEARCH = """
INSERT INTO package_search SELECT l.package_id, l.announced_at,
    ' ' || searchable(concat_ws(' ', l.customer_name, nullif(l.recipient_name, l.customer_name), l.customer_phone,
        l.guide_number, nullif(l.guide_key, l.guide_number), l.tracking_code,
        left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4), array_to_string(l.other_codes, ' ')))
FROM package_listing AS l WHERE l.package_id = ANY(%(ids)s)
ON CONFLICT (package_id) DO UPDATE SET text = excluded.text
"""

COUNT = """
WITH gone AS (DELETE FROM package_counts)
INSERT INTO package_counts SELECT site, status, count(*) FROM package_listing GROUP BY site, status
ON CONFLICT (site, status) DO UPDATE SET count = excluded.count
"""

GENERATIONS = """
INSERT INTO page_generations SELECT scope, %(batch)s FROM unnest(%(scopes)s::text[]) AS scope
ON CONFLICT (scope) DO UPDATE SET batch = excluded.batch
"""

MOVE = """
UPDATE projection_checkpoint SET batch = batch + 1, snapshot = pg_current_snapshot(), at = %(at)s RETURNING batch
"""

PAY = """
INSERT INTO payment_listing (payment_id, package_id, site, staff_id, method, amount, due, at, is_reversal)
VALUES (uuidv7(), %s, %s, %s, %s, %s, %s, %s, %s)
"""

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"


def tracking_code(number: int) -> str:
    """Spell a number as a tracking code."""
    letters = ""
    for _ in range(8):
        number, digit = divmod(number, len(ALPHABET))
        letters = ALPHABET[digit] + letters
    return letters


@dataclass
class Shop:
    """A shop's read models, and the client that asks for them."""

    conn: psycopg.Connection[tuple[Any, ...]]
    redis: Redis
    clock: Clock
    settings: Settings
    client: TestClient
    staff: dict[Role, uuid.UUID]
    made: int = 0
    rows: dict[uuid.UUID, dict[str, Any]] = field(default_factory=dict)

    def row(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Make up a parcel, announced an hour ago unless `fields` say more."""
        self.made += 1
        number = self.made
        announced_at = self.clock() - timedelta(hours=1) + timedelta(seconds=number)
        row = {
            "package_id": uuid.UUID(int=(1 << 96) + number),
            "version": 1,
            "tracking_code": tracking_code(number * 7919),
            "guide_number": f"GUIA-{number:06}",
            "other_codes": [],
            "status": "ANNOUNCED",
            "site": "PRINCIPAL",
            "position": None,
            "carrier": "Servientrega",
            "package_type": None,
            "condition": None,
            "customer_id": uuid.UUID(int=(2 << 96) + number),
            "customer_name": f"Ana Gómez {number}",
            "customer_phone": f"+57300{number:07}",
            "observations": None,
            "cancellation_reason": None,
            "announced_at": announced_at,
            "received_at": None,
            "delivered_at": None,
            "cancelled_at": None,
            "base_fee": 1500,
            "daily_storage": 1000,
            "storage_days": 0,
            "storage_fee": 0,
            "total": 1500,
            "paid": 0,
            **fields,
        }
        row.setdefault("recipient_name", row["customer_name"])
        row["guide_key"] = row["guide_number"].replace("-", "")
        row["other_code_keys"] = [code.replace("-", "").replace(" ", "").upper() for code in row["other_codes"]]
        self.rows[row["package_id"]] = row
        return row

    def stored(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Make up a parcel in storage; `hours` is how long it has been there."""
        hours = fields.pop("hours", 1)
        received_at = fields.setdefault("received_at", self.clock() - timedelta(hours=hours))
        fields.setdefault("announced_at", received_at - timedelta(hours=1))
        fields.setdefault("position", f"A-{self.made + 1:03}")
        unknown_yet = {"storage_days": None, "storage_fee": None, "total": None}
        return self.row(
            **{"status": "RECEIVED", "version": 2, "package_type": "NORMAL", "condition": "GOOD"} | unknown_yet | fields
        )

    def delivered(self, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Make up a parcel that was handed over just now."""
        return self.stored(
            **{
                "status": "DELIVERED",
                "version": 3,
                "position": None,
                "delivered_at": self.clock(),
                "storage_days": 0,
                "storage_fee": 0,
                "total": 1500,
                "paid": 1500,
            }
            | fields
        )

    def pay(self, row: dict[str, Any], method: str, who: Role, amount: int, hours: float = 0) -> None:
        """Write a payment of so many hours ago; one that is negative takes back another."""
        at = self.clock() - timedelta(hours=hours)
        values = [row["package_id"], row["site"], self.staff[who], method, amount, amount, at, amount < 0]
        self.conn.execute(PAY, values)

    def publish(self, *rows: dict[str, Any], scopes: Iterable[str] = (), announce: bool = True) -> int:
        """Write a batch as the projector would, and announce it; gives its number."""
        scopes = {"all", *scopes} if rows else set(scopes)
        with self.conn.transaction():
            cursor = self.conn.cursor()
            for row in rows:
                plain = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}
                plain = {k: str(v) if isinstance(v, uuid.UUID) else v for k, v in plain.items()}
                old = cursor.execute(
                    "SELECT status, customer_id FROM package_listing WHERE package_id = %s", [row["package_id"]]
                ).fetchone()
                scopes |= {f"status:{row['status']}", f"customer:{row['customer_id']}"}
                scopes |= {f"status:{old[0]}", f"customer:{old[1]}"} if old else set()
                cursor.execute(UPSERT, {"row": Jsonb(plain)})
            for statement in (SEARCH, CUSTOMERS):
                cursor.execute(statement, {"ids": [row["package_id"] for row in rows]})
            cursor.execute("DELETE FROM package_counts")
            cursor.execute(COUNT)
            batch = int((cursor.execute(MOVE, {"at": self.clock()}).fetchone() or (0,))[0])
            cursor.execute(GENERATIONS, {"batch": batch, "scopes": list(scopes)})
            packages = [
                {"package_id": str(r["package_id"]), "status": r["status"], "version": r["version"]} for r in rows
            ]
            if rows:
                cursor.execute("INSERT INTO batch_changes VALUES (%s, %s, %s)", [batch, Jsonb(packages), self.clock()])
        if announce:
            self.announce(scopes, batch)
        return batch

    @property
    def channel(self) -> str:
        """Where a projector tells readers of what it announces, and that it lives."""
        return f"{PREFIX}:announcements:{self.redis.connection_pool.connection_kwargs['db']}"

    def announce(self, scopes: Iterable[str], batch: int) -> None:
        """Raise the generations in Redis, and wake who waits for the batch."""
        scopes = list(scopes)
        keys = [EPOCH_KEY, *map(generation_key, scopes)]
        message = " ".join((EPOCH, str(batch), *scopes))
        self.redis.eval(RAISE, len(keys), *keys, EPOCH, *[batch] * len(scopes), self.channel, message)
        self.conn.execute("SELECT pg_notify(%s, '')", [CHANNEL])

    def sign_in(self, role: Role = Role.VIEWER) -> dict[str, str]:
        """Give the header of a person of that role."""
        session = Session(self.staff[role], 1)
        return {"Authorization": f"Bearer {encode_session(session, self.settings.secret_key, self.clock())}"}

    def get(self, path: str, headers: dict[str, str] | None = None, role: Role = Role.VIEWER) -> Any:  # noqa: ANN401
        """Ask the read API as a member of staff."""
        return self.client.get(f"/api/v1{path}", headers=self.sign_in(role) | (headers or {}))

    def items(self, path: str) -> list[Any]:
        """Give the items of a 200 answer."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        items: list[Any] = answer.json()["items"]
        return items

    def codes(self, path: str) -> list[str]:
        """Give the tracking codes of a listing's page, in order, without their dash."""
        return [item["tracking_code"].replace("-", "") for item in self.items(path)]

    def token(self, batch: int | None = None, xid: int | None = None, incarnation: str | None = None) -> dict[str, str]:
        """Sign a Consistency-Token as a header."""
        if incarnation is None:
            row = self.conn.execute("SELECT incarnation FROM projection_checkpoint").fetchone()
            incarnation = str(row[0]) if row else ""
        signer = TokenSigner(self.settings.secret_key)
        return {"Consistency-Token": signer.sign(Token(incarnation, xid=xid, batch=batch))}
