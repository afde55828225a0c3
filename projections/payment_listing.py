"""Money as the summary reads it: append-only, like its source."""

DERIVED = """
money AS (
    INSERT INTO payment_listing (
        payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal)
    SELECT payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal
    FROM payment_listing_source WHERE package_id = ANY(%(package_ids)s::uuid[])
    ON CONFLICT (payment_id) DO NOTHING)
"""
