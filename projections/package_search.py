"""The words a package is found by; a row is written only when its words change, since their index is dear.

They are made of the listing's row alone: one that has just become no other in what they are made of needs no look.
"""

# Made of the listing's own row: read again from the normalized tables, the same words cost three times as much.
DERIVED = """
words AS (
    INSERT INTO package_search (package_id, announced_at, text)
    SELECT package_id, announced_at, other_words FROM upserted AS u
    WHERE other_words IS NOT NULL
      AND NOT EXISTS (SELECT FROM package_search AS l WHERE l.package_id = u.package_id AND l.text = u.other_words)
    ON CONFLICT (package_id) DO UPDATE SET text = excluded.text),
words_of_none AS (
    DELETE FROM package_search WHERE package_id IN (SELECT key FROM gone))
"""
