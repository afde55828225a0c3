"""How many packages each site has in each status: kept by the difference that each batch makes."""

# MERGE, since INSERT … ON CONFLICT would hold a negative difference against the table's CHECK before it adds it.
DERIVED = """
counts AS (
    MERGE INTO package_counts AS c
    USING (
        SELECT site, status, sum(difference) AS difference
        FROM (SELECT site, status, packages FROM moves WHERE site IS NOT NULL
              UNION ALL SELECT old_site, old_status, -packages FROM moves WHERE old_site IS NOT NULL)
            AS d (site, status, difference)
        GROUP BY site, status HAVING sum(difference) <> 0) AS d
    ON c.site = d.site AND c.status = d.status
    WHEN MATCHED THEN UPDATE SET count = c.count + d.difference
    WHEN NOT MATCHED THEN INSERT (site, status, count) VALUES (d.site, d.status, d.difference))
"""
