"""A shop written by plain SQL, so that projections are proved without the commands that feed them."""

import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from redis.asyncio import Redis

from db.pools import Connection
from projections.projector import open_projector
from tests.support import Clock

CODES = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"

ANNOUNCE = """
WITH customer AS (
    INSERT INTO customers (name, phone) VALUES (%(name)s, %(phone)s)
    ON CONFLICT (phone) DO UPDATE SET phone = excluded.phone RETURNING customer_id)
INSERT INTO packages (
    guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id, announced_at)
SELECT %(guide)s, %(code)s, customer_id, %(name)s, (SELECT site_id FROM sites), 'ANNOUNCED',
       (SELECT tariff_id FROM tariffs), %(now)s
FROM customer
RETURNING package_id, customer_id
"""

RECEIVE = """
WITH place AS (
    UPDATE positions SET package_id = %(id)s
    WHERE position_id = (SELECT position_id FROM positions WHERE package_id IS NULL ORDER BY ordinal LIMIT 1)
    RETURNING position_id)
UPDATE packages SET status = 'RECEIVED', package_type = 'NORMAL', condition = 'GOOD', received_at = %(now)s,
    position_id = (SELECT position_id FROM place), version = version + 1
WHERE package_id = %(id)s
"""

DELIVER = """
WITH charge AS (
    INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, at)
    SELECT p.package_id, 1500, f.storage_days, f.storage_fee, f.total, f.total, %(now)s
    FROM packages AS p, package_fee(1500, 1000, p.received_at, %(now)s) AS f WHERE p.package_id = %(id)s
    RETURNING total),
payment AS (
    INSERT INTO payments (package_id, site_id, method, amount, due, staff_id, at)
    SELECT %(id)s, (SELECT site_id FROM sites), 'CASH', total, total, %(staff_id)s, %(now)s FROM charge),
place AS (UPDATE positions SET package_id = NULL WHERE package_id = %(id)s)
UPDATE packages SET status = 'DELIVERED', delivered_at = %(now)s, position_id = NULL, version = version + 1
WHERE package_id = %(id)s
"""

LOG = "INSERT INTO change_log (package_id, customer_id, type, at) VALUES (%s, %s, %s, %s)"


class Shop:
    """Writes the normalized side and its log on one connection; `conn` may hold a transaction open."""

    def __init__(self, dsn: str, clock: Clock) -> None:
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.clock = clock
        self._number = 0
        staff = self.conn.execute(
            "INSERT INTO staff (username, full_name, role, password_hash) VALUES ('clerk' || pg_backend_pid(), 'Clerk',"
            " 'OPERATOR', '-') RETURNING staff_id"
        ).fetchone()
        assert staff is not None
        self.staff_id: uuid.UUID = staff[0]

    def close(self) -> None:
        """Let go of the connection."""
        self.conn.close()

    def announce(self, name: str = "Ana Peña", phone: str = "+573001234567") -> uuid.UUID:
        """Announce a package of a guide of its own."""
        self._number += 1
        pid = self.conn.info.backend_pid
        code = "".join(secrets.choice(CODES) for _ in range(8))
        values = {
            "name": name,
            "phone": phone,
            "guide": f"G-{pid}-{self._number:05d}",
            "code": code,
            "now": self.clock(),
        }
        with self.conn.transaction():
            row = self.conn.execute(ANNOUNCE, values).fetchone()
            assert row is not None
            self.conn.execute(LOG, (row[0], row[1], "PackageAnnounced", self.clock()))
        package_id: uuid.UUID = row[0]
        return package_id

    def receive(self, package_id: uuid.UUID) -> None:
        """Put an announced package on the shelf."""
        self._change(RECEIVE, package_id, "PackageReceived")

    def deliver(self, package_id: uuid.UUID) -> None:
        """Hand a package over for what is due."""
        self._change(DELIVER, package_id, "PackageDelivered")

    def rename(self, phone: str, name: str) -> None:
        """Change a customer's name, which shows on all their packages."""
        with self.conn.transaction():
            row = self.conn.execute(
                "UPDATE customers SET name = %s, version = version + 1 WHERE phone = %s RETURNING customer_id",
                (name, phone),
            ).fetchone()
            assert row is not None
            self.conn.execute(LOG, (None, row[0], "CustomerChanged", self.clock()))

    def _change(self, statement: str, package_id: uuid.UUID, type_: str) -> None:
        with self.conn.transaction():
            values = {"id": package_id, "now": self.clock(), "staff_id": self.staff_id}
            self.conn.execute(statement.encode(), values)
            self.conn.execute(LOG, (package_id, None, type_, self.clock()))

    def all(self, statement: str) -> list[dict[str, Any]]:
        """Read rows as dicts."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode()).fetchall()

    def value(self, statement: str) -> Any:  # noqa: ANN401
        """Read one value."""
        row = self.conn.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def shop(database: str, clock: Clock) -> Iterator[Shop]:
    shop = Shop(database, clock)
    yield shop
    shop.conn.close()


@pytest.fixture
def second_shop(database: str, clock: Clock, shop: Shop) -> Iterator[Shop]:
    """Another clerk, whose transactions run beside the first one's."""
    assert shop.conn.info.dsn
    second = Shop(database, clock)
    yield second
    second.conn.close()


@pytest.fixture
async def projector(database: str, anyio_backend: str) -> AsyncIterator[Connection]:
    assert anyio_backend == "asyncio"
    async with await open_projector(database) as conn:
        yield conn


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    assert anyio_backend == "asyncio"
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()
        yield client
