"""What the shop itself does, in figures for whoever watches it: from the read models alone, and cheaply."""

from datetime import datetime

from db.pools import Connection
from infra import metrics

COUNT_PACKAGES = "SELECT status, sum(count)::bigint FROM package_counts GROUP BY status"

COUNT_POSITIONS = """
SELECT s.site, count(*) AS places, coalesce(max(k.count), 0) AS taken
FROM shelf AS s LEFT JOIN package_counts AS k ON k.site = s.site AND k.status = 'RECEIVED'
GROUP BY s.site
"""

SUM_INCOME = """
SELECT y.method, sum(y.amount)::bigint FROM payment_listing AS y
WHERE y.at >= date_trunc('day', %(now)s::timestamptz, 'America/Bogota') AND y.at <= %(now)s
GROUP BY y.method
"""

FIGURES = (metrics.PACKAGES, metrics.POSITIONS, metrics.INCOME_TODAY)


async def show(conn: Connection, now: datetime) -> None:
    """Set this process's gauges to what the read models say."""
    packages = await (await conn.execute(COUNT_PACKAGES)).fetchall()
    positions = await (await conn.execute(COUNT_POSITIONS)).fetchall()
    income = await (await conn.execute(SUM_INCOME, {"now": now})).fetchall()
    forget()
    for status, count in packages:
        metrics.PACKAGES.set(count, status)
    for site, places, taken in positions:
        metrics.POSITIONS.set(max(places - taken, 0), site, "free")
        metrics.POSITIONS.set(taken, site, "taken")
    for method, amount in income or [("CASH", 0)]:
        metrics.INCOME_TODAY.set(amount, method)


def forget() -> None:
    """Tell no figure that isn't known."""
    for figure in FIGURES:
        figure.clear()
