"""The words a package is found by; a row is written only when its words change, since their index is dear."""

DERIVED = """
words AS (
    INSERT INTO package_search (package_id, announced_at, text)
    SELECT package_id, announced_at, text FROM package_search_source AS s
    WHERE package_id = ANY(%(package_ids)s::uuid[])
      AND NOT EXISTS (SELECT FROM package_search AS l WHERE l.package_id = s.package_id AND l.text = s.text)
    ON CONFLICT (package_id) DO UPDATE SET text = excluded.text),
words_of_none AS (
    DELETE FROM package_search WHERE package_id IN (SELECT key FROM gone))
"""
