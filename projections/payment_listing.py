"""Money as the summary reads it: append-only, like its source."""

# Most parcels' payments are known already, and asking first is cheaper than a conflict.
DERIVED = """
money AS (
    INSERT INTO payment_listing (
        payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal)
    SELECT payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal
    FROM payment_listing_source AS s
    WHERE package_id = ANY(%(package_ids)s::uuid[])
      AND NOT EXISTS (SELECT FROM payment_listing AS l WHERE l.payment_id = s.payment_id)
    ON CONFLICT (payment_id) DO NOTHING)
"""
