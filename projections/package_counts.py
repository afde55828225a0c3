"""How many packages each site has in each status: kept by the difference that each batch makes."""

from collections import Counter
from collections.abc import Iterable

from db.pools import Connection
from projections.package_listing import Moved

# MERGE, since INSERT … ON CONFLICT would hold a negative difference against the table's CHECK before it adds it.
ADD = """
MERGE INTO package_counts AS c
USING unnest(%(sites)s::text[], %(statuses)s::text[], %(differences)s::bigint[]) AS d (site, status, difference)
ON c.site = d.site AND c.status = d.status
WHEN MATCHED THEN UPDATE SET count = c.count + d.difference
WHEN NOT MATCHED THEN INSERT (site, status, count) VALUES (d.site, d.status, d.difference)
"""


async def project(conn: Connection, moved: Iterable[Moved]) -> None:
    """Take rows from where they stood and add them where they stand."""
    differences: Counter[tuple[str, str]] = Counter()
    for row in moved:
        if row.site is not None and row.status is not None:
            differences[row.site, row.status] += 1
        if row.old_site is not None and row.old_status is not None:
            differences[row.old_site, row.old_status] -= 1
    changed = {place: difference for place, difference in differences.items() if difference}
    if changed:
        sites, statuses = zip(*changed, strict=True)
        await conn.execute(
            ADD, {"sites": list(sites), "statuses": list(statuses), "differences": list(changed.values())}
        )
