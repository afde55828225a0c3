"""The listing: one row a package, derived again from the normalized tables whenever a change names the package."""

# `moved` is where each row stood before (NULL for a new one), and where it stands now (NULL for one that is gone);
# `moves` is how many went from where to where.
DERIVED = """
upserted AS (
    INSERT INTO package_listing AS l (
        package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site,
        position, carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone,
        observations, cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee,
        daily_storage, storage_days, storage_fee, total, paid)
    SELECT
        package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site,
        position, carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone,
        observations, cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee,
        daily_storage, storage_days, storage_fee, total, paid
    FROM package_listing_source WHERE package_id = ANY(%(package_ids)s::uuid[])
    ORDER BY package_id  -- about the order in which the table holds them
    ON CONFLICT (package_id) DO UPDATE SET
        version = excluded.version, tracking_code = excluded.tracking_code, guide_number = excluded.guide_number,
        guide_key = excluded.guide_key, other_codes = excluded.other_codes, other_code_keys = excluded.other_code_keys,
        status = excluded.status, site = excluded.site, position = excluded.position, carrier = excluded.carrier,
        package_type = excluded.package_type, condition = excluded.condition, recipient_name = excluded.recipient_name,
        customer_id = excluded.customer_id, customer_name = excluded.customer_name,
        customer_phone = excluded.customer_phone, observations = excluded.observations,
        cancellation_reason = excluded.cancellation_reason, announced_at = excluded.announced_at,
        received_at = excluded.received_at, delivered_at = excluded.delivered_at, cancelled_at = excluded.cancelled_at,
        base_fee = excluded.base_fee, daily_storage = excluded.daily_storage, storage_days = excluded.storage_days,
        storage_fee = excluded.storage_fee, total = excluded.total, paid = excluded.paid
    RETURNING OLD.site AS old_site, OLD.status AS old_status, OLD.customer_id AS old_customer_id,
        NEW.site, NEW.status, NEW.customer_id, NEW.package_id, NEW.version, NEW.announced_at,
        CASE WHEN (OLD.customer_name, OLD.recipient_name, OLD.customer_phone, OLD.guide_number, OLD.guide_key,
                OLD.tracking_code, OLD.other_codes)
            IS DISTINCT FROM (NEW.customer_name, NEW.recipient_name, NEW.customer_phone, NEW.guide_number,
                NEW.guide_key, NEW.tracking_code, NEW.other_codes)
        THEN package_words(NEW.customer_name, NEW.recipient_name, NEW.customer_phone, NEW.guide_number, NEW.guide_key,
            NEW.tracking_code, NEW.other_codes) END AS other_words),
gone AS (  -- no command deletes, but a hand may have; the source gave a row for every other key
    SELECT key FROM unnest(%(package_ids)s::uuid[]) AS key
    WHERE (SELECT count(*) FROM upserted) < cardinality(%(package_ids)s::uuid[])
      AND key NOT IN (SELECT package_id FROM upserted)),
deleted AS (
    DELETE FROM package_listing WHERE package_id IN (SELECT key FROM gone)
    RETURNING site, status, customer_id, NULL, NULL, NULL::uuid, package_id, NULL::integer),
moved AS (
    SELECT old_site, old_status, old_customer_id, site, status, customer_id, package_id, version FROM upserted
    UNION ALL SELECT * FROM deleted),
moves AS (
    SELECT old_site, old_status, site, status, count(*) AS packages FROM moved GROUP BY 1, 2, 3, 4)
"""
