"""What the shop does is told from the read models, and what isn't there is told no longer."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from db import shop_figures
from db.pools import Connection
from tests.support import Clock, gauge

pytestmark = pytest.mark.anyio

PAY = """
INSERT INTO payment_listing (payment_id, package_id, site, method, staff_id, amount, due, is_reversal, at)
VALUES (gen_random_uuid(), gen_random_uuid(), 'PRINCIPAL', %s, gen_random_uuid(), %s, %s, false, %s)
"""


@pytest.fixture
def models(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


async def test_the_shop_is_told_as_the_read_models_have_it(
    conn: Connection, models: psycopg.Connection, clock: Clock
) -> None:
    """Parcels by status, places by site, and the money of the day in Bogota, which begins at 05:00 UTC."""
    models.execute("INSERT INTO package_counts VALUES ('PRINCIPAL', 'RECEIVED', 97), ('NORTE', 'RECEIVED', 3)")
    midnight = clock().replace(hour=5, minute=0)
    for method, amount, at in (
        ("CASH", 1500, midnight),
        ("CASH", 2000, clock()),
        ("NEQUI", 500, clock()),
        ("NEQUI", 9000, midnight - timedelta(microseconds=1)),
    ):
        models.execute(PAY, (method, amount, amount, at))
    await shop_figures.show(conn, clock())
    assert gauge("packages", status="RECEIVED") == 100
    assert (
        gauge("positions", site="PRINCIPAL", state="free"),
        gauge("positions", site="PRINCIPAL", state="taken"),
    ) == (
        3,
        97,
    )
    assert (gauge("income_today_pesos", method="CASH"), gauge("income_today_pesos", method="NEQUI")) == (3500, 500)
    models.execute("DELETE FROM package_counts")
    await shop_figures.show(conn, clock.advance(days=1))
    assert gauge("packages", status="RECEIVED") is None
    assert gauge("positions", site="PRINCIPAL", state="free") == 100
    assert (gauge("income_today_pesos", method="CASH"), gauge("income_today_pesos", method="NEQUI")) == (0, None)
