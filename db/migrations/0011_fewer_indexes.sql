-- no transaction: parcels are many
-- What the projector writes for every parcel, and few or none are found by. Until the last process of the release before
-- has gone, its lookups by phone and by other codes read the whole table.

-- Most parcels have one code alone: an index of the others' holds nothing of them.
DROP INDEX CONCURRENTLY IF EXISTS package_listing_codes;
CREATE INDEX CONCURRENTLY package_listing_codes ON package_listing USING gin (other_code_keys)
    WITH (fastupdate = off) WHERE other_code_keys <> '{}';
DROP INDEX CONCURRENTLY IF EXISTS package_listing_other_codes;
-- A phone is one customer's, and a customer's parcels have an index of their own.
DROP INDEX CONCURRENTLY IF EXISTS package_listing_phone;

-- The words of a parcel from the listing's own row, so that the projector needn't read it again to know them.
CREATE OR REPLACE FUNCTION package_words(customer_name text, recipient_name text, customer_phone text, guide_number text,
    guide_key text, tracking_code text, other_codes text[]) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ' ' || searchable(concat_ws(' ', customer_name, nullif(recipient_name, customer_name), customer_phone,
    guide_number, nullif(guide_key, guide_number), tracking_code,
    left(tracking_code, 4) || '-' || right(tracking_code, 4), nullif(array_to_string(other_codes, ' '), '')));

CREATE OR REPLACE VIEW package_search_source AS
SELECT p.package_id, p.announced_at, package_words(c.name, p.recipient_name, c.phone, p.guide_number, p.guide_key,
    p.tracking_code, p.other_codes) AS text
FROM packages AS p JOIN customers AS c USING (customer_id);
