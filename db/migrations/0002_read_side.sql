-- The read side: the fee's one rule, the source that defines the listing, and the read models that projections keep.

-- storage_days = max(0, ceil(hours / 24) - 1), exact to the microsecond; no reception means none.
CREATE FUNCTION storage_days(received_at timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT greatest(0, ceil(extract(epoch FROM until - received_at) / 86400)::integer - 1);
END;

-- The fee of one parcel at an instant, in whole pesos. At exactly next_fee_at the old fee still holds.
CREATE FUNCTION package_fee(base_fee bigint, daily_storage bigint, received_at timestamptz, until timestamptz)
RETURNS TABLE (storage_days integer, storage_fee bigint, total bigint, next_fee_at timestamptz)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT days, days * daily_storage, base_fee + days * daily_storage, received_at + (days + 1) * interval '24 hours'
    FROM storage_days(received_at, until) AS days;
END;

-- A parcel whose type isn't known yet is quoted as NORMAL.
CREATE FUNCTION base_fee(package_type text, base_fee_normal bigint, base_fee_extra_sized bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE package_type WHEN 'EXTRA_SIZED' THEN base_fee_extra_sized ELSE base_fee_normal END;
END;

-- The clock of a refresh: the transaction's own, unless the session sets another (tests move time with it).
CREATE FUNCTION shop_now() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(nullif(current_setting('paqueteria.now', true), '')::timestamptz, now());
END;

-- An instant as the contract writes it: UTC, six decimals, Z.
CREATE FUNCTION instant(at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
END;

CREATE FUNCTION searchable(text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT lower(public.unaccent($1));
END;

-- A word that is searched for, as a LIKE pattern: of one or two letters the beginning of a word, else any part of one.
CREATE FUNCTION search_pattern(word text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN length(plain) <= 2 THEN '% ' ELSE '%' END
        || replace(replace(replace(plain, '\', '\\'), '%', '\%'), '_', '\_') || '%'
    FROM searchable(word) AS plain;
END;

-- How two codes are compared: without spaces and dashes, in upper case.
CREATE FUNCTION code_key(code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT upper(translate(code, ' -', ''));
END;

CREATE FUNCTION code_keys(codes text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(array_agg(code_key(code)), '{}') FROM unnest(codes) AS code;
END;

-- What the listing is. The projector upserts these rows for the keys of a batch, a rebuild inserts them all.
-- storage_days, storage_fee and total are frozen when the parcel leaves; while it is in storage they are null here,
-- for time changes them, and whoever reads prices the row with package_fee().
CREATE VIEW package_listing_source AS
SELECT p.package_id, p.version, p.tracking_code, p.guide_number, p.guide_key, p.other_codes,
       code_keys(p.other_codes) AS other_code_keys, p.status,
       s.code AS site, place.code AS "position", p.carrier, p.package_type, p.condition, p.recipient_name,
       p.customer_id, c.name AS customer_name, c.phone AS customer_phone, p.observations, p.cancellation_reason,
       p.announced_at, p.received_at, p.delivered_at, p.cancelled_at,
       base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) AS base_fee, t.daily_storage,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE coalesce(charged.storage_days, 0) END AS storage_days,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE coalesce(charged.storage_fee, 0) END AS storage_fee,
       CASE WHEN p.status = 'RECEIVED' THEN NULL ELSE
           base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) + coalesce(charged.storage_fee, 0)
           END AS total,
       coalesce(paid.amount, 0) AS paid
FROM packages AS p
JOIN customers AS c USING (customer_id)
JOIN sites AS s USING (site_id)
JOIN tariffs AS t USING (tariff_id)
LEFT JOIN positions AS place ON place.position_id = p.position_id
LEFT JOIN LATERAL (SELECT sum(storage_days)::integer AS storage_days, sum(storage_fee)::bigint AS storage_fee
                   FROM charges WHERE charges.package_id = p.package_id) AS charged ON p.received_at IS NOT NULL
LEFT JOIN LATERAL (SELECT sum(amount)::bigint AS amount
                   FROM payments WHERE payments.package_id = p.package_id) AS paid ON p.received_at IS NOT NULL;

CREATE TABLE package_listing (
    package_id uuid PRIMARY KEY,
    version integer NOT NULL,
    tracking_code text NOT NULL,
    guide_number text NOT NULL,
    guide_key text NOT NULL,
    other_codes text[] NOT NULL,
    other_code_keys text[] NOT NULL,
    status text NOT NULL,
    site text NOT NULL,
    "position" text,
    carrier text,
    package_type text,
    condition text,
    recipient_name text NOT NULL,
    customer_id uuid NOT NULL,
    customer_name text NOT NULL,
    customer_phone text,
    observations text,
    cancellation_reason text,
    announced_at timestamptz NOT NULL,
    received_at timestamptz,
    delivered_at timestamptz,
    cancelled_at timestamptz,
    base_fee bigint NOT NULL,
    daily_storage bigint NOT NULL,
    storage_days integer,
    storage_fee bigint,
    total bigint,
    paid bigint NOT NULL
);

-- The words a parcel is found by, each with a space before it; a table of its own, touched only when they change.
CREATE VIEW package_search_source AS
SELECT l.package_id, l.announced_at,
       ' ' || searchable(concat_ws(' ', l.customer_name, nullif(l.recipient_name, l.customer_name), l.customer_phone,
           l.guide_number, nullif(l.guide_key, l.guide_number), l.tracking_code,
           left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
           nullif(array_to_string(l.other_codes, ' '), ''))) AS text
FROM package_listing_source AS l;

CREATE TABLE package_search (
    package_id uuid PRIMARY KEY,
    announced_at timestamptz NOT NULL,
    text text NOT NULL
);

CREATE VIEW customer_listing_source AS
SELECT c.customer_id, c.version, c.name, c.phone, c.email, c.document, c.building, c.tower, c.apartment, c.notes,
       c.created_at,
       ' ' || searchable(concat_ws(' ', c.name, c.phone, c.email, c.document, c.building, c.tower, c.apartment)) AS text
FROM customers AS c;

CREATE TABLE customer_listing (
    customer_id uuid PRIMARY KEY,
    version integer NOT NULL,
    name text NOT NULL,
    phone text,
    email text,
    document text,
    building text,
    tower text,
    apartment text,
    notes text,
    created_at timestamptz NOT NULL,
    text text NOT NULL
);

CREATE TABLE package_counts (
    site text NOT NULL,
    status text NOT NULL,
    count bigint NOT NULL CHECK (count >= 0),
    PRIMARY KEY (site, status)
);

-- Money as the summary reads it; append-only like its source.
CREATE TABLE payment_listing (
    payment_id uuid PRIMARY KEY,
    package_id uuid NOT NULL,
    site text NOT NULL,
    staff_id uuid NOT NULL,
    method text NOT NULL,
    amount bigint NOT NULL,
    due bigint NOT NULL,
    amount_reason text,
    collected_by text,
    at timestamptz NOT NULL,
    is_reversal boolean NOT NULL
);

CREATE VIEW payment_listing_source AS
SELECT y.payment_id, y.package_id, s.code AS site, y.staff_id, y.method, y.amount, y.due, y.amount_reason,
       y.collected_by, y.at, y.reverses IS NOT NULL AS is_reversal
FROM payments AS y JOIN sites AS s USING (site_id);

-- Where the projector stands: every transaction visible in `snapshot` is in the read models; `batch` only grows.
-- `incarnation` is another life of the cluster: snapshots of one mean nothing in the next.
CREATE TABLE projection_checkpoint (
    name text PRIMARY KEY CHECK (name = 'listing'),
    incarnation text NOT NULL,
    snapshot pg_snapshot NOT NULL,
    batch bigint NOT NULL,
    at timestamptz NOT NULL
);
INSERT INTO projection_checkpoint
    SELECT 'listing', replace(gen_random_uuid()::text, '-', ''), pg_current_snapshot(), 1, now();

-- The batch that last changed what a scope's pages show: 'all', 'status:…', 'customer:…', 'customers'.
CREATE TABLE page_generations (
    scope text PRIMARY KEY,
    batch bigint NOT NULL
);

-- What each batch changed, for those who follow along; kept for an hour.
CREATE TABLE batch_changes (
    batch bigint PRIMARY KEY,
    packages jsonb NOT NULL,
    at timestamptz NOT NULL
);

CREATE TABLE view_refreshes (
    view text PRIMARY KEY,
    refreshed_at timestamptz NOT NULL,
    took interval NOT NULL
);

-- Fees of what is in storage, priced ahead. A reader takes a row only while it holds: same version, and the instant
-- within the row's fee step. Read from the normalized tables, so that nothing hangs on a table a rebuild swaps.
CREATE MATERIALIZED VIEW package_fees AS
SELECT p.package_id, p.version, s.code AS site,
       base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) AS base_fee,
       fee.storage_days, fee.storage_fee, fee.total, fee.next_fee_at
FROM packages AS p
JOIN sites AS s USING (site_id)
JOIN tariffs AS t USING (tariff_id)
CROSS JOIN LATERAL package_fee(base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized), t.daily_storage,
                               p.received_at, shop_now()) AS fee
WHERE p.status = 'RECEIVED';
CREATE UNIQUE INDEX package_fees_key ON package_fees (package_id);
CREATE INDEX package_fees_next ON package_fees (next_fee_at);

-- A day's money by site, method and person, the day being Bogota's.
CREATE MATERIALIZED VIEW daily_summary AS
SELECT (y.at AT TIME ZONE 'America/Bogota')::date AS day, s.code AS site, y.method, y.staff_id,
       sum(y.amount)::bigint AS amount,
       sum(CASE WHEN y.reverses IS NULL THEN greatest(y.due - y.amount, 0) ELSE least(y.due - y.amount, 0) END)::bigint
           AS waived,
       count(*) FILTER (WHERE y.reverses IS NULL) - count(*) FILTER (WHERE y.reverses IS NOT NULL) AS count
FROM payments AS y JOIN sites AS s USING (site_id)
GROUP BY 1, 2, 3, 4;
CREATE UNIQUE INDEX daily_summary_key ON daily_summary (day, site, method, staff_id);

-- Small reference data is read through views: always exact, and a right to read one needs none on its tables.
CREATE VIEW site_list AS
SELECT code AS site, name, address, phone, opening_hours, version FROM sites;

CREATE VIEW tariff_list AS
SELECT tariff_id, valid_from, lead(valid_from) OVER (ORDER BY valid_from) AS valid_until,
       base_fee_normal, base_fee_extra_sized, daily_storage FROM tariffs;

CREATE VIEW shelf AS
SELECT s.code AS site, p.code AS "position", p.ordinal FROM positions AS p JOIN sites AS s USING (site_id);

CREATE VIEW staff_list AS
SELECT staff_id, username, full_name, role, active, version, created_at FROM staff;

CREATE VIEW staff_sessions AS
SELECT staff_id, username, full_name, role, session_generation FROM staff WHERE active;

CREATE VIEW package_history AS
SELECT g.position, g.package_id, g.type, g.at, g.actor, w.full_name AS actor_name, g.version, g.data
FROM change_log AS g LEFT JOIN staff AS w ON w.staff_id = g.actor
WHERE g.package_id IS NOT NULL;

-- The listing's orders, newest first or oldest first, whole and by what narrows it.
CREATE INDEX package_listing_announced ON package_listing (announced_at, package_id);
CREATE INDEX package_listing_status ON package_listing (status, announced_at, package_id);
CREATE INDEX package_listing_site ON package_listing (site, status, announced_at, package_id);
CREATE INDEX package_listing_customer ON package_listing (customer_id, announced_at, package_id);
CREATE INDEX package_listing_received ON package_listing (received_at, package_id) WHERE received_at IS NOT NULL;
CREATE INDEX package_listing_days ON package_listing (received_at, package_id) WHERE status = 'RECEIVED';
CREATE INDEX package_listing_owed ON package_listing (base_fee, daily_storage, received_at, package_id)
    WHERE status = 'RECEIVED';
CREATE INDEX package_listing_position ON package_listing (code_key("position"), "position", package_id)
    WHERE "position" IS NOT NULL;
-- What a lookup finds exactly.
CREATE INDEX package_listing_tracking_code ON package_listing (tracking_code);
CREATE INDEX package_listing_guide ON package_listing (guide_key);
CREATE INDEX package_listing_phone ON package_listing (customer_phone) WHERE customer_phone IS NOT NULL;
CREATE INDEX package_listing_other_codes ON package_listing USING gin (other_code_keys) WITH (fastupdate = off);
CREATE INDEX package_search_text ON package_search USING gin (text gin_trgm_ops);
CREATE INDEX customer_listing_text ON customer_listing USING gin (text gin_trgm_ops);
CREATE INDEX customer_listing_name ON customer_listing (name, customer_id);
CREATE INDEX customer_listing_phone ON customer_listing (phone) WHERE phone IS NOT NULL;
CREATE INDEX payment_listing_at ON payment_listing (at);
CREATE INDEX payment_listing_package ON payment_listing (package_id);
