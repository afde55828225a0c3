"""The words a package is found by; a row is written only when its words change, since their index is dear.

They are made of the listing's row alone: one that has just become no other in what they are made of needs no look.
"""

# Made of the listing's own row: read again from the normalized tables, the same words cost three times as much.
DERIVED = """
words AS (
    INSERT INTO package_search (package_id, announced_at, text)
    SELECT u.package_id, u.announced_at, w.text
    FROM upserted AS u CROSS JOIN LATERAL package_words(
        u.customer_name, u.recipient_name, u.customer_phone, u.guide_number, u.guide_key, u.tracking_code,
        u.other_codes) AS w (text)
    WHERE u.has_other_words
      AND NOT EXISTS (SELECT FROM package_search AS l WHERE l.package_id = u.package_id AND l.text = w.text)
    ON CONFLICT (package_id) DO UPDATE SET text = excluded.text),
words_of_none AS (
    DELETE FROM package_search WHERE package_id IN (SELECT key FROM gone))
"""
