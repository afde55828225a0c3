-- The normalized side: what commands write, and the log of what they changed.
-- A wrong state must be impossible here too, whatever the code above does.

CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE sites (
    site_id uuid DEFAULT uuidv7() PRIMARY KEY,
    code text NOT NULL CONSTRAINT sites_code_key UNIQUE CHECK (code ~ '^[A-Z0-9-]{2,32}$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    address text,
    phone text,
    opening_hours text,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL
);

CREATE TABLE staff (
    staff_id uuid DEFAULT uuidv7() PRIMARY KEY,
    username text NOT NULL CONSTRAINT staff_username_key UNIQUE CHECK (username = lower(username)),
    full_name text NOT NULL,
    role text NOT NULL CHECK (role IN ('ADMIN', 'OPERATOR', 'VIEWER')),
    password_hash text NOT NULL,
    active boolean DEFAULT true NOT NULL,
    -- A token carries the generation it was issued in; a new password or a dismissal ends all earlier ones.
    session_generation integer DEFAULT 1 NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL
);

CREATE TABLE customers (
    customer_id uuid DEFAULT uuidv7() PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 2 AND 100),
    phone text CONSTRAINT customers_phone_key UNIQUE CHECK (phone ~ '^\+[1-9][0-9]{5,14}$'),
    email text,
    document text,
    building text,
    tower text,
    apartment text,
    notes text,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL
);

CREATE TABLE tariffs (
    tariff_id uuid DEFAULT uuidv7() PRIMARY KEY,
    valid_from timestamptz NOT NULL CONSTRAINT tariffs_valid_from_key UNIQUE,
    base_fee_normal bigint NOT NULL CHECK (base_fee_normal >= 0),
    base_fee_extra_sized bigint NOT NULL CHECK (base_fee_extra_sized >= 0),
    daily_storage bigint NOT NULL CHECK (daily_storage >= 0),
    created_at timestamptz DEFAULT now() NOT NULL
);

CREATE TABLE positions (
    position_id uuid DEFAULT uuidv7() PRIMARY KEY,
    site_id uuid NOT NULL REFERENCES sites,
    code text NOT NULL CHECK (length(code) BETWEEN 1 AND 32),
    ordinal integer NOT NULL,
    -- Who stands here. Taking a place is an update of its row, so that two who want the same one meet on its lock.
    package_id uuid CONSTRAINT positions_package_key UNIQUE,
    CONSTRAINT positions_code_key UNIQUE (site_id, code),
    CONSTRAINT positions_ordinal_key UNIQUE (site_id, ordinal),
    CONSTRAINT positions_occupancy_key UNIQUE (position_id, package_id)
);
CREATE INDEX positions_free ON positions (site_id, ordinal) WHERE package_id IS NULL;

CREATE TABLE packages (
    package_id uuid DEFAULT uuidv7() PRIMARY KEY,
    guide_number text NOT NULL CHECK (guide_number ~ '^[A-Z0-9-]{5,50}$'),
    guide_key text GENERATED ALWAYS AS (replace(guide_number, '-', '')) STORED CHECK (guide_key <> ''),
    other_codes text[] DEFAULT '{}' NOT NULL CHECK (cardinality(other_codes) <= 10),
    tracking_code text NOT NULL CONSTRAINT packages_tracking_code_key UNIQUE
        CHECK (tracking_code ~ '^[23456789ABCDEFGHJKMNPQRSTUVWXYZ]{8}$'),
    customer_id uuid NOT NULL REFERENCES customers,
    recipient_name text NOT NULL CHECK (length(recipient_name) BETWEEN 2 AND 100),
    site_id uuid NOT NULL REFERENCES sites,
    carrier text,
    package_type text CHECK (package_type IN ('NORMAL', 'EXTRA_SIZED')),
    condition text CHECK (condition IN ('GOOD', 'FAIR', 'OPENED', 'DAMAGED')),
    status text NOT NULL CHECK (status IN ('ANNOUNCED', 'RECEIVED', 'DELIVERED', 'CANCELLED')),
    position_id uuid CONSTRAINT packages_position_key UNIQUE,
    tariff_id uuid NOT NULL REFERENCES tariffs,
    observations text,
    cancellation_reason text CHECK (cancellation_reason IN ('CUSTOMER_REQUEST', 'RETURNED_TO_CARRIER', 'UNCLAIMED',
        'DAMAGED', 'LOST', 'EXPIRED', 'STAFF_ERROR', 'OTHER')),
    announced_at timestamptz NOT NULL,
    received_at timestamptz,
    delivered_at timestamptz,
    cancelled_at timestamptz,
    version integer DEFAULT 1 NOT NULL,
    CONSTRAINT packages_position_while_received CHECK ((position_id IS NOT NULL) = (status = 'RECEIVED')),
    CONSTRAINT packages_status_and_instants CHECK (CASE status
        WHEN 'ANNOUNCED' THEN received_at IS NULL AND delivered_at IS NULL AND cancelled_at IS NULL
        WHEN 'RECEIVED' THEN received_at IS NOT NULL AND delivered_at IS NULL AND cancelled_at IS NULL
        WHEN 'DELIVERED' THEN received_at IS NOT NULL AND delivered_at IS NOT NULL AND cancelled_at IS NULL
        ELSE delivered_at IS NULL AND cancelled_at IS NOT NULL END),
    CONSTRAINT packages_instants_in_order CHECK (announced_at <= received_at AND received_at <= delivered_at
        AND greatest(announced_at, received_at) <= cancelled_at),
    CONSTRAINT packages_known_once_received CHECK (received_at IS NULL
        OR (package_type IS NOT NULL AND condition IS NOT NULL)),
    CONSTRAINT packages_cancelled_for_a_reason CHECK ((cancellation_reason IS NOT NULL) = (status = 'CANCELLED')),
    CONSTRAINT packages_occupancy_key UNIQUE (package_id, position_id)
);
CREATE UNIQUE INDEX packages_active_guide_key ON packages (guide_key) WHERE status <> 'CANCELLED';
CREATE INDEX packages_customer ON packages (customer_id);
CREATE INDEX packages_announcements ON packages (announced_at) WHERE status = 'ANNOUNCED';
CREATE INDEX packages_in_storage ON packages (received_at) WHERE status = 'RECEIVED';

-- A parcel's place and a place's parcel name each other, or neither: looked at when the transaction ends.
ALTER TABLE packages ADD CONSTRAINT packages_stand_on_their_position FOREIGN KEY (position_id, package_id)
    REFERENCES positions (position_id, package_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE positions ADD CONSTRAINT positions_hold_their_package FOREIGN KEY (package_id, position_id)
    REFERENCES packages (package_id, position_id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE consents (
    consent_id uuid DEFAULT uuidv7() PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers,
    package_id uuid NOT NULL REFERENCES packages,
    policy_version text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('WEB', 'COUNTER')),
    at timestamptz NOT NULL
);
CREATE INDEX consents_customer ON consents (customer_id);

-- What a parcel had cost when it left. A correction is another row with the opposite sign.
CREATE TABLE charges (
    charge_id uuid DEFAULT uuidv7() PRIMARY KEY,
    package_id uuid NOT NULL REFERENCES packages,
    base_fee bigint NOT NULL,
    storage_days integer NOT NULL,
    storage_fee bigint NOT NULL,
    total bigint NOT NULL,
    due bigint NOT NULL,
    reverses uuid CONSTRAINT charges_reversed_once UNIQUE REFERENCES charges,
    staff_id uuid REFERENCES staff,
    at timestamptz NOT NULL,
    CONSTRAINT charges_add_up CHECK (total = base_fee + storage_fee),
    CONSTRAINT charges_signs CHECK (CASE WHEN reverses IS NULL THEN total >= 0 AND due IN (0, total)
        ELSE total <= 0 AND due IN (0, total) END)
);
CREATE INDEX charges_package ON charges (package_id);

CREATE TABLE payments (
    payment_id uuid DEFAULT uuidv7() PRIMARY KEY,
    package_id uuid NOT NULL REFERENCES packages,
    site_id uuid NOT NULL REFERENCES sites,
    method text NOT NULL CHECK (method IN ('CASH', 'TRANSFER', 'NEQUI', 'DAVIPLATA')),
    amount bigint NOT NULL,
    due bigint NOT NULL,
    amount_reason text,
    collected_by text,
    reverses uuid CONSTRAINT payments_reversed_once UNIQUE REFERENCES payments,
    staff_id uuid NOT NULL REFERENCES staff,
    at timestamptz NOT NULL,
    CONSTRAINT payments_signs CHECK (CASE WHEN reverses IS NULL THEN amount >= 0 AND due >= 0
        ELSE amount <= 0 AND due <= 0 END),
    CONSTRAINT payments_differ_for_a_reason CHECK (amount = due OR amount_reason IS NOT NULL)
);
CREATE INDEX payments_package ON payments (package_id);
CREATE INDEX payments_at ON payments (at);

CREATE TABLE package_photos (
    photo_id uuid DEFAULT uuidv7() PRIMARY KEY,
    package_id uuid NOT NULL REFERENCES packages,
    media_type text NOT NULL,
    object_key text NOT NULL CONSTRAINT package_photos_object_key UNIQUE,
    bytes integer NOT NULL,
    staff_id uuid REFERENCES staff,
    at timestamptz NOT NULL
);
CREATE INDEX package_photos_package ON package_photos (package_id);

CREATE TABLE idempotency_keys (
    actor text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (actor, method, path, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- History, in the transaction of what it tells. Personal values stand in data under `person` alone.
CREATE TABLE change_log (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    package_id uuid,
    customer_id uuid,
    type text NOT NULL,
    actor uuid,
    version integer,
    data jsonb DEFAULT '{}' NOT NULL,
    request_id text,
    at timestamptz NOT NULL
);
CREATE INDEX change_log_xid ON change_log (xid);
CREATE INDEX change_log_package ON change_log (package_id, position) WHERE package_id IS NOT NULL;
CREATE INDEX change_log_customer ON change_log (customer_id) WHERE customer_id IS NOT NULL AND package_id IS NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- The log's one permitted update: an erasure empties `person`.
CREATE FUNCTION allow_erasure_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.data = jsonb_set(OLD.data, '{person}', '{}', false)
       AND (NEW.position, NEW.xid, NEW.package_id, NEW.customer_id, NEW.type, NEW.actor, NEW.version, NEW.request_id, NEW.at)
           IS NOT DISTINCT FROM
           (OLD.position, OLD.xid, OLD.package_id, OLD.customer_id, OLD.type, OLD.actor, OLD.version, OLD.request_id, OLD.at)
    THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'change_log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER change_log_erasure BEFORE UPDATE ON change_log FOR EACH ROW EXECUTE FUNCTION allow_erasure_only();
CREATE TRIGGER change_log_append_only BEFORE DELETE OR TRUNCATE ON change_log EXECUTE FUNCTION refuse_change();
CREATE TRIGGER charges_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON charges EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payments EXECUTE FUNCTION refuse_change();

INSERT INTO tariffs (valid_from, base_fee_normal, base_fee_extra_sized, daily_storage)
    VALUES ('2000-01-01T00:00:00Z', 1500, 2000, 1000);
INSERT INTO sites (code, name) VALUES ('PRINCIPAL', 'Sede principal');
INSERT INTO positions (site_id, code, ordinal)
    SELECT site_id, lpad(n::text, 2, '0'), n FROM sites, generate_series(0, 99) AS n;
