"""A wrong state is impossible in the database too, whatever the code above it does."""

from collections.abc import Iterator

import psycopg
import pytest

PACKAGE = """
INSERT INTO packages (
    guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id, announced_at)
SELECT %(guide)s, %(code)s, (SELECT customer_id FROM customers LIMIT 1), 'Ana Peña', (SELECT site_id FROM sites),
       %(status)s, (SELECT tariff_id FROM tariffs), '2026-01-02T15:00Z'
RETURNING package_id
"""


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("INSERT INTO customers (name, phone) VALUES ('Ana Peña', '+573001234567')")
        conn.execute(PACKAGE, {"guide": "GUIDE-1", "code": "ABCDEFGH", "status": "ANNOUNCED"})
        yield conn


REFUSED = [
    "UPDATE packages SET status = 'RECEIVED'",
    "UPDATE packages SET status = 'DELIVERED', delivered_at = now()",
    "UPDATE packages SET status = 'CANCELLED'",
    "UPDATE packages SET status = 'CANCELLED', cancelled_at = now()",
    "UPDATE packages SET cancelled_at = now()",
    "UPDATE packages SET received_at = now()",
    "UPDATE packages SET status = 'LOST'",
    "UPDATE packages SET position_id = (SELECT min(position_id::text)::uuid FROM positions)",
    "UPDATE positions SET package_id = (SELECT package_id FROM packages) WHERE code IN ('00', '01')",
    "UPDATE positions SET package_id = (SELECT package_id FROM packages) WHERE code = '00'",
    "UPDATE customers SET phone = '3001234567'",
    "INSERT INTO customers (name, phone) VALUES ('Eva', '+573001234567')",
    "DELETE FROM change_log",
    "TRUNCATE change_log",
    "UPDATE charges SET total = 0",
    "DELETE FROM payments",
    "INSERT INTO tariffs (valid_from, base_fee_normal, base_fee_extra_sized, daily_storage) VALUES (now(), -1, 0, 0)",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_a_wrong_state_is_refused(conn: psycopg.Connection, statement: str) -> None:
    """Status, instants, position and money agree, or the transaction fails."""
    with pytest.raises(psycopg.errors.IntegrityError):
        conn.execute(statement.encode())


def test_a_guide_is_active_once_however_it_is_written(conn: psycopg.Connection) -> None:
    """Dashes make no difference; a cancelled guide may be announced again."""
    again = {"guide": "GUI-DE1", "code": "ABCDEFGJ", "status": "ANNOUNCED"}
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(PACKAGE, again)
    conn.execute("UPDATE packages SET status = 'CANCELLED', cancelled_at = now(), cancellation_reason = 'OTHER'")
    conn.execute(PACKAGE, again)


def test_the_log_permits_an_erasure_and_nothing_else(conn: psycopg.Connection) -> None:
    """Personal values stand under `person`; emptying that is the one change that history allows."""
    entry = """{"after": 1, "person": {"name": "Ana"}}"""
    conn.execute("INSERT INTO change_log (type, data, at) VALUES ('CustomerChanged', %s, now())", (entry,))
    for refused in (
        "UPDATE change_log SET data = '{}'",
        "UPDATE change_log SET type = 'Nothing'",
        """UPDATE change_log SET data = '{"after": 2, "person": {}}'""",
        """UPDATE change_log SET data = '{"after": 1, "person": {"name": "Eva"}}'""",
    ):
        with pytest.raises(psycopg.errors.IntegrityError):
            conn.execute(refused.encode())
    conn.execute("""UPDATE change_log SET data = jsonb_set(data, '{person}', '{}')""")
    row = conn.execute("SELECT data FROM change_log").fetchone()
    assert row == ({"after": 1, "person": {}},)
