"""The customers, with the words they are found by; a row is written only when it changes, since their index is dear."""

# Also the customers that packages have moved to: a correction may have made them.
DERIVED = """
customers_changed AS (
    INSERT INTO customer_listing (
        customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text)
    SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text
    FROM customer_listing_source AS s
    WHERE customer_id = ANY(
            %(customer_ids)s::uuid[] || ARRAY(
                SELECT customer_id FROM moved WHERE customer_id <> old_customer_id OR old_customer_id IS NULL))
      AND NOT EXISTS (
        SELECT FROM customer_listing AS l WHERE l.customer_id = s.customer_id
        AND (l.version, l.name, l.phone, l.email, l.document, l.building, l.tower, l.apartment, l.notes, l.text)
            IS NOT DISTINCT FROM
            (s.version, s.name, s.phone, s.email, s.document, s.building, s.tower, s.apartment, s.notes, s.text))
    ON CONFLICT (customer_id) DO UPDATE SET
        version = excluded.version, name = excluded.name, phone = excluded.phone, email = excluded.email,
        document = excluded.document, building = excluded.building, tower = excluded.tower,
        apartment = excluded.apartment, notes = excluded.notes, text = excluded.text
    RETURNING customer_id)
"""
