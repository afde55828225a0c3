-- The sources of the read models, such that one definition is quick both for a batch's keys and for all packages.

-- Most parcels have one code alone, and a call for each of a million took a third of a rebuild's reading.
CREATE OR REPLACE VIEW package_listing_source AS
SELECT m.package_id, p.version, p.tracking_code, p.guide_number, p.guide_key, p.other_codes,
       CASE WHEN p.other_codes = '{}' THEN '{}' ELSE code_keys(p.other_codes) END AS other_code_keys, p.status,
       s.code AS site, place.code AS "position", p.carrier, p.package_type, p.condition, p.recipient_name,
       p.customer_id, c.name AS customer_name, c.phone AS customer_phone, p.observations, p.cancellation_reason,
       p.announced_at, p.received_at, p.delivered_at, p.cancelled_at,
       base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) AS base_fee, t.daily_storage,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE m.storage_days END AS storage_days,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE m.storage_fee END AS storage_fee,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE
           base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) + m.storage_fee END AS total,
       m.paid
-- A condition on package_id reaches each table below the grouping, as a lookup or as a range; joined to packages
-- instead, it would stop there, and charges and payments were read whole or row by row.
FROM (SELECT package_id, sum(storage_days)::integer AS storage_days, sum(storage_fee)::bigint AS storage_fee,
             sum(paid)::bigint AS paid
      FROM (SELECT package_id, 0 AS storage_days, 0::bigint AS storage_fee, 0::bigint AS paid FROM packages
            UNION ALL SELECT package_id, storage_days, storage_fee, 0 FROM charges
            UNION ALL SELECT package_id, 0, 0, amount FROM payments) AS money
      GROUP BY package_id) AS m
JOIN packages AS p ON p.package_id = m.package_id
JOIN customers AS c USING (customer_id)
JOIN sites AS s USING (site_id)
JOIN tariffs AS t USING (tariff_id)
LEFT JOIN positions AS place ON place.position_id = p.position_id;

-- From the tables themselves: what a parcel costs isn't searched for.
CREATE OR REPLACE VIEW package_search_source AS
SELECT p.package_id, p.announced_at,
       ' ' || searchable(concat_ws(' ', c.name, nullif(p.recipient_name, c.name), c.phone,
           p.guide_number, nullif(p.guide_key, p.guide_number), p.tracking_code,
           left(p.tracking_code, 4) || '-' || right(p.tracking_code, 4),
           nullif(array_to_string(p.other_codes, ' '), ''))) AS text
FROM packages AS p JOIN customers AS c USING (customer_id);
