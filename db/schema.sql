CREATE SCHEMA monitoring;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA monitoring;
COMMENT ON EXTENSION pg_stat_statements IS 'track planning and execution statistics of all SQL statements executed';
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
COMMENT ON EXTENSION pg_trgm IS 'text similarity measurement and index searching based on trigrams';
CREATE EXTENSION IF NOT EXISTS pgstattuple WITH SCHEMA monitoring;
COMMENT ON EXTENSION pgstattuple IS 'show tuple-level statistics';
CREATE EXTENSION IF NOT EXISTS unaccent WITH SCHEMA public;
COMMENT ON EXTENSION unaccent IS 'text search dictionary that removes accents';
CREATE FUNCTION public.add_change_log_month(month date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    name text := 'change_log_' || to_char(month, 'YYYY_MM');
    first timestamptz := date_trunc('month', month::timestamp) AT TIME ZONE 'UTC';
    next timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(name) IS NOT NULL OR EXISTS (SELECT FROM change_log_other WHERE logged_at >= first AND logged_at < next) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE change_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE change_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, next);
    EXECUTE format('CREATE TRIGGER change_log_append_only BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', name);
    RETURN true;
EXCEPTION WHEN invalid_object_definition THEN  -- the months before the log was partitioned are one partition
    RETURN false;
END $$;
CREATE FUNCTION public.allow_erasure_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.data = jsonb_set(OLD.data, '{person}', '{}', false)
       AND (NEW.position, NEW.xid, NEW.life, NEW.package_id, NEW.customer_id, NEW.type, NEW.actor, NEW.version,
            NEW.request_id, NEW.at, NEW.logged_at) IS NOT DISTINCT FROM
           (OLD.position, OLD.xid, OLD.life, OLD.package_id, OLD.customer_id, OLD.type, OLD.actor, OLD.version,
            OLD.request_id, OLD.at, OLD.logged_at)
    THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'change_log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE FUNCTION public.analyze_table(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    EXECUTE format('ANALYZE %I', name);
END $$;
CREATE FUNCTION public.base_fee(package_type text, base_fee_normal bigint, base_fee_extra_sized bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE package_type
             WHEN 'EXTRA_SIZED'::text THEN base_fee_extra_sized
             ELSE base_fee_normal
         END AS base_fee_normal;
END;
CREATE FUNCTION public.begin_change_log_life(life integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    EXECUTE format('ALTER TABLE change_log ALTER COLUMN life SET DEFAULT %s', life);
END $$;
CREATE FUNCTION public.code_key(code text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT upper(translate(code, ' -'::text, ''::text)) AS upper;
END;
CREATE FUNCTION public.code_keys(codes text[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT COALESCE(array_agg(public.code_key(code.code)), '{}'::text[]) AS "coalesce"
    FROM unnest(code_keys.codes) code(code);
END;
CREATE FUNCTION public.instant(at timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT to_char((at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) AS to_char;
END;
CREATE FUNCTION public.old_transactions(seconds double precision) RETURNS TABLE(pid integer, application_name text, age double precision, state text, since timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8, state, xact_start
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND xact_start <= clock_timestamp() - make_interval(secs => seconds)
  AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')
ORDER BY xact_start
$$;
CREATE FUNCTION public.storage_days(received_at timestamp with time zone, until timestamp with time zone) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT GREATEST(0, ((ceil((EXTRACT(epoch FROM (until - received_at)) / (86400)::numeric)))::integer - 1)) AS "greatest";
END;
CREATE FUNCTION public.package_fee(base_fee bigint, daily_storage bigint, received_at timestamp with time zone, until timestamp with time zone) RETURNS TABLE(storage_days integer, storage_fee bigint, total bigint, next_fee_at timestamp with time zone)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT days.days,
     (days.days * package_fee.daily_storage),
     (package_fee.base_fee + (days.days * package_fee.daily_storage)),
     (package_fee.received_at + (((days.days + 1))::double precision * '24:00:00'::interval))
    FROM public.storage_days(package_fee.received_at, package_fee.until) days(days);
END;
CREATE FUNCTION public.searchable(text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT lower(public.unaccent($1)) AS lower;
END;
CREATE FUNCTION public.package_words(customer_name text, recipient_name text, customer_phone text, guide_number text, guide_key text, tracking_code text, other_codes text[]) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (' '::text || public.searchable(concat_ws(' '::text, customer_name, NULLIF(recipient_name, customer_name), customer_phone, guide_number, NULLIF(guide_key, guide_number), tracking_code, (("left"(tracking_code, 4) || '-'::text) || "right"(tracking_code, 4)), NULLIF(array_to_string(other_codes, ' '::text), ''::text))));
CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE FUNCTION public.search_pattern(word text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT ((
         CASE
             WHEN (length(plain.plain) <= 2) THEN '% '::text
             ELSE '%'::text
         END || replace(replace(replace(plain.plain, '\'::text, '\\'::text), '%'::text, '\%'::text), '_'::text, '\_'::text)) || '%'::text)
    FROM public.searchable(search_pattern.word) plain(plain);
END;
CREATE FUNCTION public.shop_now() RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT COALESCE((NULLIF(current_setting('paqueteria.now'::text, true), ''::text))::timestamp with time zone, now()) AS "coalesce";
END;
CREATE FUNCTION public.tell_of_staff() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify('paqueteria_staff', '');
    RETURN NULL;
END
$$;
CREATE TABLE public.api_keys (
    key_id uuid DEFAULT uuidv7() NOT NULL,
    staff_id uuid NOT NULL,
    role text NOT NULL,
    digest bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT api_keys_digest_check CHECK ((length(digest) = 32)),
    CONSTRAINT api_keys_role_check CHECK ((role = ANY (ARRAY['ADMIN'::text, 'OPERATOR'::text, 'VIEWER'::text])))
);
CREATE TABLE public.staff (
    staff_id uuid DEFAULT uuidv7() NOT NULL,
    username text NOT NULL,
    full_name text NOT NULL,
    role text NOT NULL,
    password_hash text NOT NULL,
    active boolean DEFAULT true NOT NULL,
    session_generation integer DEFAULT 1 NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT staff_role_check CHECK ((role = ANY (ARRAY['ADMIN'::text, 'OPERATOR'::text, 'VIEWER'::text]))),
    CONSTRAINT staff_username_check CHECK ((username = lower(username)))
);
CREATE VIEW public.api_key_holders AS
 SELECT k.digest,
    s.staff_id,
    s.username,
    s.full_name,
    GREATEST(k.role, s.role) AS role
   FROM (public.api_keys k
     JOIN public.staff s USING (staff_id))
  WHERE ((k.revoked_at IS NULL) AND s.active);
CREATE TABLE public.batch_changes (
    batch bigint NOT NULL,
    packages json NOT NULL,
    at timestamp with time zone NOT NULL
);
ALTER TABLE ONLY public.batch_changes ALTER COLUMN packages SET STORAGE EXTERNAL;
CREATE TABLE public.change_log (
    "position" bigint NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    life integer DEFAULT 1 NOT NULL,
    package_id uuid,
    customer_id uuid,
    type text NOT NULL,
    actor uuid,
    version integer,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    request_id text,
    at timestamp with time zone NOT NULL,
    logged_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
PARTITION BY RANGE (logged_at);
CREATE TABLE public.change_log_other (
    "position" bigint CONSTRAINT change_log_position_not_null NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() CONSTRAINT change_log_xid_not_null NOT NULL,
    life integer DEFAULT 1 CONSTRAINT change_log_life_not_null NOT NULL,
    package_id uuid,
    customer_id uuid,
    type text CONSTRAINT change_log_type_not_null NOT NULL,
    actor uuid,
    version integer,
    data jsonb DEFAULT '{}'::jsonb CONSTRAINT change_log_data_not_null NOT NULL,
    request_id text,
    at timestamp with time zone CONSTRAINT change_log_at_not_null NOT NULL,
    logged_at timestamp with time zone DEFAULT clock_timestamp() CONSTRAINT change_log_logged_at_not_null NOT NULL
);
ALTER TABLE public.change_log ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.change_log_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.charges (
    charge_id uuid DEFAULT uuidv7() NOT NULL,
    package_id uuid NOT NULL,
    base_fee bigint NOT NULL,
    storage_days integer NOT NULL,
    storage_fee bigint NOT NULL,
    total bigint NOT NULL,
    due bigint NOT NULL,
    reverses uuid,
    staff_id uuid,
    at timestamp with time zone NOT NULL,
    CONSTRAINT charges_add_up CHECK ((total = (base_fee + storage_fee))),
    CONSTRAINT charges_signs CHECK (
CASE
    WHEN (reverses IS NULL) THEN ((total >= 0) AND ((due = 0) OR (due = total)))
    ELSE ((total <= 0) AND ((due = 0) OR (due = total)))
END)
);
CREATE TABLE public.consents (
    consent_id uuid DEFAULT uuidv7() NOT NULL,
    customer_id uuid NOT NULL,
    package_id uuid NOT NULL,
    policy_version text NOT NULL,
    channel text NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT consents_channel_check CHECK ((channel = ANY (ARRAY['WEB'::text, 'COUNTER'::text])))
);
CREATE TABLE public.customer_listing (
    customer_id uuid NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    phone text,
    email text,
    document text,
    building text,
    tower text,
    apartment text,
    notes text,
    created_at timestamp with time zone NOT NULL,
    text text NOT NULL
);
CREATE TABLE public.customers (
    customer_id uuid DEFAULT uuidv7() NOT NULL,
    name text NOT NULL,
    phone text,
    email text,
    document text,
    building text,
    tower text,
    apartment text,
    notes text,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT customers_name_check CHECK (((length(name) >= 2) AND (length(name) <= 100))),
    CONSTRAINT customers_phone_check CHECK ((phone ~ '^\+[1-9][0-9]{5,14}$'::text))
);
CREATE VIEW public.customer_listing_source AS
 SELECT customer_id,
    version,
    name,
    phone,
    email,
    document,
    building,
    tower,
    apartment,
    notes,
    created_at,
    (' '::text || public.searchable(concat_ws(' '::text, name, phone, email, document, building, tower, apartment))) AS text
   FROM public.customers c;
CREATE TABLE public.payments (
    payment_id uuid DEFAULT uuidv7() NOT NULL,
    package_id uuid NOT NULL,
    site_id uuid NOT NULL,
    method text NOT NULL,
    amount bigint NOT NULL,
    due bigint NOT NULL,
    amount_reason text,
    collected_by text,
    reverses uuid,
    staff_id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT payments_differ_for_a_reason CHECK (((amount = due) OR (amount_reason IS NOT NULL))),
    CONSTRAINT payments_method_check CHECK ((method = ANY (ARRAY['CASH'::text, 'TRANSFER'::text, 'NEQUI'::text, 'DAVIPLATA'::text]))),
    CONSTRAINT payments_signs CHECK (
CASE
    WHEN (reverses IS NULL) THEN ((amount >= 0) AND (due >= 0))
    ELSE ((amount <= 0) AND (due <= 0))
END)
);
CREATE TABLE public.sites (
    site_id uuid DEFAULT uuidv7() NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    address text,
    phone text,
    opening_hours text,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sites_code_check CHECK ((code ~ '^[A-Z0-9-]{2,32}$'::text)),
    CONSTRAINT sites_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100)))
);
CREATE MATERIALIZED VIEW public.daily_summary AS
 SELECT ((y.at AT TIME ZONE 'America/Bogota'::text))::date AS day,
    s.code AS site,
    y.method,
    y.staff_id,
    (sum(y.amount))::bigint AS amount,
    (sum(
        CASE
            WHEN (y.reverses IS NULL) THEN GREATEST((y.due - y.amount), (0)::bigint)
            ELSE LEAST((y.due - y.amount), (0)::bigint)
        END))::bigint AS waived,
    (count(*) FILTER (WHERE (y.reverses IS NULL)) - count(*) FILTER (WHERE (y.reverses IS NOT NULL))) AS count
   FROM (public.payments y
     JOIN public.sites s USING (site_id))
  GROUP BY (((y.at AT TIME ZONE 'America/Bogota'::text))::date), s.code, y.method, y.staff_id
  WITH NO DATA;
CREATE TABLE public.idempotency_keys (
    actor text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE public.package_counts (
    site text NOT NULL,
    status text NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT package_counts_count_check CHECK ((count >= 0))
);
CREATE TABLE public.packages (
    package_id uuid DEFAULT uuidv7() NOT NULL,
    guide_number text NOT NULL,
    guide_key text GENERATED ALWAYS AS (replace(guide_number, '-'::text, ''::text)) STORED,
    other_codes text[] DEFAULT '{}'::text[] NOT NULL,
    tracking_code text NOT NULL,
    customer_id uuid NOT NULL,
    recipient_name text NOT NULL,
    site_id uuid NOT NULL,
    carrier text,
    package_type text,
    condition text,
    status text NOT NULL,
    position_id uuid,
    tariff_id uuid NOT NULL,
    observations text,
    cancellation_reason text,
    announced_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone,
    delivered_at timestamp with time zone,
    cancelled_at timestamp with time zone,
    version integer DEFAULT 1 NOT NULL,
    CONSTRAINT packages_cancellation_reason_check CHECK ((cancellation_reason = ANY (ARRAY['CUSTOMER_REQUEST'::text, 'RETURNED_TO_CARRIER'::text, 'UNCLAIMED'::text, 'DAMAGED'::text, 'LOST'::text, 'EXPIRED'::text, 'STAFF_ERROR'::text, 'OTHER'::text]))),
    CONSTRAINT packages_cancelled_for_a_reason CHECK (((cancellation_reason IS NOT NULL) = (status = 'CANCELLED'::text))),
    CONSTRAINT packages_condition_check CHECK ((condition = ANY (ARRAY['GOOD'::text, 'FAIR'::text, 'OPENED'::text, 'DAMAGED'::text]))),
    CONSTRAINT packages_guide_key_check CHECK ((guide_key <> ''::text)),
    CONSTRAINT packages_guide_number_check CHECK ((guide_number ~ '^[A-Z0-9-]{5,50}$'::text)),
    CONSTRAINT packages_instants_in_order CHECK (((announced_at <= received_at) AND (received_at <= delivered_at) AND (GREATEST(announced_at, received_at) <= cancelled_at))),
    CONSTRAINT packages_known_once_received CHECK (((received_at IS NULL) OR ((package_type IS NOT NULL) AND (condition IS NOT NULL)))),
    CONSTRAINT packages_other_codes_check CHECK ((cardinality(other_codes) <= 10)),
    CONSTRAINT packages_package_type_check CHECK ((package_type = ANY (ARRAY['NORMAL'::text, 'EXTRA_SIZED'::text]))),
    CONSTRAINT packages_position_while_received CHECK (((position_id IS NOT NULL) = (status = 'RECEIVED'::text))),
    CONSTRAINT packages_recipient_name_check CHECK (((length(recipient_name) >= 2) AND (length(recipient_name) <= 100))),
    CONSTRAINT packages_status_and_instants CHECK (
CASE status
    WHEN 'ANNOUNCED'::text THEN ((received_at IS NULL) AND (delivered_at IS NULL) AND (cancelled_at IS NULL))
    WHEN 'RECEIVED'::text THEN ((received_at IS NOT NULL) AND (delivered_at IS NULL) AND (cancelled_at IS NULL))
    WHEN 'DELIVERED'::text THEN ((received_at IS NOT NULL) AND (delivered_at IS NOT NULL) AND (cancelled_at IS NULL))
    ELSE ((delivered_at IS NULL) AND (cancelled_at IS NOT NULL))
END),
    CONSTRAINT packages_status_check CHECK ((status = ANY (ARRAY['ANNOUNCED'::text, 'RECEIVED'::text, 'DELIVERED'::text, 'CANCELLED'::text]))),
    CONSTRAINT packages_tracking_code_check CHECK ((tracking_code ~ '^[23456789ABCDEFGHJKMNPQRSTUVWXYZ]{8}$'::text))
);
CREATE TABLE public.tariffs (
    tariff_id uuid DEFAULT uuidv7() NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    base_fee_normal bigint NOT NULL,
    base_fee_extra_sized bigint NOT NULL,
    daily_storage bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tariffs_base_fee_extra_sized_check CHECK ((base_fee_extra_sized >= 0)),
    CONSTRAINT tariffs_base_fee_normal_check CHECK ((base_fee_normal >= 0)),
    CONSTRAINT tariffs_daily_storage_check CHECK ((daily_storage >= 0))
);
CREATE MATERIALIZED VIEW public.package_fees AS
 SELECT p.package_id,
    p.version,
    s.code AS site,
    public.base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) AS base_fee,
    fee.storage_days,
    fee.storage_fee,
    fee.total,
    fee.next_fee_at
   FROM (((public.packages p
     JOIN public.sites s USING (site_id))
     JOIN public.tariffs t USING (tariff_id))
     CROSS JOIN LATERAL public.package_fee(public.base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized), t.daily_storage, p.received_at, public.shop_now()) fee(storage_days, storage_fee, total, next_fee_at))
  WHERE (p.status = 'RECEIVED'::text)
  WITH NO DATA;
CREATE VIEW public.package_history AS
 SELECT g."position",
    g.package_id,
    g.type,
    g.at,
    g.actor,
    w.full_name AS actor_name,
    g.version,
    g.data
   FROM (public.change_log g
     LEFT JOIN public.staff w ON ((w.staff_id = g.actor)))
  WHERE (g.package_id IS NOT NULL);
CREATE TABLE public.package_listing (
    package_id uuid NOT NULL,
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
    announced_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone,
    delivered_at timestamp with time zone,
    cancelled_at timestamp with time zone,
    base_fee bigint NOT NULL,
    daily_storage bigint NOT NULL,
    storage_days integer,
    storage_fee bigint,
    total bigint,
    paid bigint NOT NULL
)
WITH (fillfactor='85');
CREATE TABLE public.positions (
    position_id uuid DEFAULT uuidv7() NOT NULL,
    site_id uuid NOT NULL,
    code text NOT NULL,
    ordinal integer NOT NULL,
    package_id uuid,
    CONSTRAINT positions_code_check CHECK (((length(code) >= 1) AND (length(code) <= 32)))
);
CREATE VIEW public.package_listing_source AS
 SELECT m.package_id,
    p.version,
    p.tracking_code,
    p.guide_number,
    p.guide_key,
    p.other_codes,
        CASE
            WHEN (p.other_codes = '{}'::text[]) THEN '{}'::text[]
            ELSE public.code_keys(p.other_codes)
        END AS other_code_keys,
    p.status,
    s.code AS site,
    place.code AS "position",
    p.carrier,
    p.package_type,
    p.condition,
    p.recipient_name,
    p.customer_id,
    c.name AS customer_name,
    c.phone AS customer_phone,
    p.observations,
    p.cancellation_reason,
    p.announced_at,
    p.received_at,
    p.delivered_at,
    p.cancelled_at,
    public.base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) AS base_fee,
    t.daily_storage,
        CASE
            WHEN (p.status = 'RECEIVED'::text) THEN NULL::integer
            ELSE m.storage_days
        END AS storage_days,
        CASE
            WHEN (p.status = 'RECEIVED'::text) THEN NULL::bigint
            ELSE m.storage_fee
        END AS storage_fee,
        CASE
            WHEN (p.status = 'RECEIVED'::text) THEN NULL::bigint
            ELSE (public.base_fee(p.package_type, t.base_fee_normal, t.base_fee_extra_sized) + m.storage_fee)
        END AS total,
    m.paid
   FROM (((((( SELECT money.package_id,
            (sum(money.storage_days))::integer AS storage_days,
            (sum(money.storage_fee))::bigint AS storage_fee,
            (sum(money.paid))::bigint AS paid
           FROM ( SELECT packages.package_id,
                    0 AS storage_days,
                    (0)::bigint AS storage_fee,
                    (0)::bigint AS paid
                   FROM public.packages
                UNION ALL
                 SELECT charges.package_id,
                    charges.storage_days,
                    charges.storage_fee,
                    0
                   FROM public.charges
                UNION ALL
                 SELECT payments.package_id,
                    0,
                    0,
                    payments.amount
                   FROM public.payments) money
          GROUP BY money.package_id) m
     JOIN public.packages p ON ((p.package_id = m.package_id)))
     JOIN public.customers c USING (customer_id))
     JOIN public.sites s USING (site_id))
     JOIN public.tariffs t USING (tariff_id))
     LEFT JOIN public.positions place ON ((place.position_id = p.position_id)));
CREATE TABLE public.package_photos (
    photo_id uuid DEFAULT uuidv7() NOT NULL,
    package_id uuid NOT NULL,
    media_type text NOT NULL,
    object_key text NOT NULL,
    bytes integer NOT NULL,
    staff_id uuid,
    at timestamp with time zone NOT NULL
);
CREATE TABLE public.package_search (
    package_id uuid NOT NULL,
    announced_at timestamp with time zone NOT NULL,
    text text NOT NULL
);
CREATE VIEW public.package_search_source AS
 SELECT p.package_id,
    p.announced_at,
    public.package_words(c.name, p.recipient_name, c.phone, p.guide_number, p.guide_key, p.tracking_code, p.other_codes) AS text
   FROM (public.packages p
     JOIN public.customers c USING (customer_id));
CREATE TABLE public.page_generations (
    scope text NOT NULL,
    batch bigint NOT NULL
);
CREATE TABLE public.parked_changes (
    kind text NOT NULL,
    key uuid NOT NULL,
    xid xid8 NOT NULL,
    reason text NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT parked_changes_kind_check CHECK ((kind = ANY (ARRAY['package'::text, 'customer'::text])))
);
CREATE TABLE public.payment_listing (
    payment_id uuid NOT NULL,
    package_id uuid NOT NULL,
    site text NOT NULL,
    staff_id uuid NOT NULL,
    method text NOT NULL,
    amount bigint NOT NULL,
    due bigint NOT NULL,
    amount_reason text,
    collected_by text,
    at timestamp with time zone NOT NULL,
    is_reversal boolean NOT NULL
);
CREATE VIEW public.payment_listing_source AS
 SELECT y.payment_id,
    y.package_id,
    s.code AS site,
    y.staff_id,
    y.method,
    y.amount,
    y.due,
    y.amount_reason,
    y.collected_by,
    y.at,
    (y.reverses IS NOT NULL) AS is_reversal
   FROM (public.payments y
     JOIN public.sites s USING (site_id));
CREATE TABLE public.projection_checkpoint (
    name text NOT NULL,
    incarnation text NOT NULL,
    snapshot pg_snapshot NOT NULL,
    batch bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    life integer DEFAULT 1 NOT NULL,
    system_identifier bigint,
    timeline text,
    needs_rebuild boolean DEFAULT false NOT NULL,
    unread_from xid8 DEFAULT '0'::xid8 NOT NULL,
    unread_since timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    snapshot_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT projection_checkpoint_name_check CHECK ((name = 'listing'::text))
);
CREATE TABLE public.scheduled_runs (
    job text NOT NULL,
    ran_at timestamp with time zone NOT NULL,
    took interval NOT NULL,
    outcome text NOT NULL,
    found jsonb,
    CONSTRAINT scheduled_runs_outcome_check CHECK ((outcome = ANY (ARRAY['done'::text, 'failed'::text])))
);
CREATE TABLE public.schema_migrations (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE VIEW public.shelf AS
 SELECT s.code AS site,
    p.code AS "position",
    p.ordinal
   FROM (public.positions p
     JOIN public.sites s USING (site_id));
CREATE VIEW public.site_list AS
 SELECT code AS site,
    name,
    address,
    phone,
    opening_hours,
    version
   FROM public.sites;
CREATE VIEW public.staff_list AS
 SELECT staff_id,
    username,
    full_name,
    role,
    active,
    version,
    created_at
   FROM public.staff;
CREATE VIEW public.staff_sessions AS
 SELECT staff_id,
    username,
    full_name,
    role,
    session_generation
   FROM public.staff
  WHERE active;
CREATE VIEW public.tariff_list AS
 SELECT tariff_id,
    valid_from,
    lead(valid_from) OVER (ORDER BY valid_from) AS valid_until,
    base_fee_normal,
    base_fee_extra_sized,
    daily_storage
   FROM public.tariffs;
CREATE TABLE public.unfinished_changes (
    xid xid8 NOT NULL,
    part integer NOT NULL,
    package_ids uuid[] NOT NULL,
    customer_ids uuid[] NOT NULL
);
CREATE TABLE public.verifications (
    name text NOT NULL,
    verified_at timestamp with time zone NOT NULL,
    took interval NOT NULL,
    differences bigint NOT NULL,
    CONSTRAINT verifications_name_check CHECK ((name = 'listing'::text))
);
CREATE TABLE public.view_refreshes (
    view text NOT NULL,
    refreshed_at timestamp with time zone NOT NULL,
    took interval NOT NULL
);
ALTER TABLE ONLY public.change_log ATTACH PARTITION public.change_log_other DEFAULT;
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_digest_key UNIQUE (digest);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (key_id);
ALTER TABLE ONLY public.batch_changes
    ADD CONSTRAINT batch_changes_pkey PRIMARY KEY (batch);
ALTER TABLE ONLY public.change_log
    ADD CONSTRAINT change_log_pkey PRIMARY KEY ("position", logged_at);
ALTER TABLE ONLY public.change_log_other
    ADD CONSTRAINT change_log_other_pkey PRIMARY KEY ("position", logged_at);
ALTER TABLE ONLY public.charges
    ADD CONSTRAINT charges_pkey PRIMARY KEY (charge_id);
ALTER TABLE ONLY public.charges
    ADD CONSTRAINT charges_reversed_once UNIQUE (reverses);
ALTER TABLE ONLY public.consents
    ADD CONSTRAINT consents_pkey PRIMARY KEY (consent_id);
ALTER TABLE ONLY public.customer_listing
    ADD CONSTRAINT customer_listing_pkey PRIMARY KEY (customer_id);
ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_phone_key UNIQUE (phone);
ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (customer_id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (actor, method, path, key);
ALTER TABLE ONLY public.package_counts
    ADD CONSTRAINT package_counts_pkey PRIMARY KEY (site, status);
ALTER TABLE ONLY public.package_listing
    ADD CONSTRAINT package_listing_pkey PRIMARY KEY (package_id);
ALTER TABLE ONLY public.package_photos
    ADD CONSTRAINT package_photos_object_key UNIQUE (object_key);
ALTER TABLE ONLY public.package_photos
    ADD CONSTRAINT package_photos_pkey PRIMARY KEY (photo_id);
ALTER TABLE ONLY public.package_search
    ADD CONSTRAINT package_search_pkey PRIMARY KEY (package_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_occupancy_key UNIQUE (package_id, position_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_pkey PRIMARY KEY (package_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_position_key UNIQUE (position_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_tracking_code_key UNIQUE (tracking_code);
ALTER TABLE ONLY public.page_generations
    ADD CONSTRAINT page_generations_pkey PRIMARY KEY (scope);
ALTER TABLE ONLY public.parked_changes
    ADD CONSTRAINT parked_changes_pkey PRIMARY KEY (kind, key, xid);
ALTER TABLE ONLY public.payment_listing
    ADD CONSTRAINT payment_listing_pkey PRIMARY KEY (payment_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_pkey PRIMARY KEY (payment_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_reversed_once UNIQUE (reverses);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_code_key UNIQUE (site_id, code);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_occupancy_key UNIQUE (position_id, package_id);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_ordinal_key UNIQUE (site_id, ordinal);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_package_key UNIQUE (package_id);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_pkey PRIMARY KEY (position_id);
ALTER TABLE ONLY public.projection_checkpoint
    ADD CONSTRAINT projection_checkpoint_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.scheduled_runs
    ADD CONSTRAINT scheduled_runs_pkey PRIMARY KEY (job);
ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.sites
    ADD CONSTRAINT sites_code_key UNIQUE (code);
ALTER TABLE ONLY public.sites
    ADD CONSTRAINT sites_pkey PRIMARY KEY (site_id);
ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_pkey PRIMARY KEY (staff_id);
ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_username_key UNIQUE (username);
ALTER TABLE ONLY public.tariffs
    ADD CONSTRAINT tariffs_pkey PRIMARY KEY (tariff_id);
ALTER TABLE ONLY public.tariffs
    ADD CONSTRAINT tariffs_valid_from_key UNIQUE (valid_from);
ALTER TABLE ONLY public.unfinished_changes
    ADD CONSTRAINT unfinished_changes_pkey PRIMARY KEY (xid, part);
ALTER TABLE ONLY public.verifications
    ADD CONSTRAINT verifications_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.view_refreshes
    ADD CONSTRAINT view_refreshes_pkey PRIMARY KEY (view);
CREATE INDEX change_log_customer ON ONLY public.change_log USING btree (customer_id) WHERE ((customer_id IS NOT NULL) AND (package_id IS NULL));
CREATE INDEX change_log_other_customer_id_idx ON public.change_log_other USING btree (customer_id) WHERE ((customer_id IS NOT NULL) AND (package_id IS NULL));
CREATE INDEX change_log_package ON ONLY public.change_log USING btree (package_id, "position") WHERE (package_id IS NOT NULL);
CREATE INDEX change_log_other_package_id_position_idx ON public.change_log_other USING btree (package_id, "position") WHERE (package_id IS NOT NULL);
CREATE INDEX change_log_xid ON ONLY public.change_log USING btree (xid);
CREATE INDEX change_log_other_xid_idx ON public.change_log_other USING btree (xid);
CREATE INDEX charges_package ON public.charges USING btree (package_id);
CREATE INDEX consents_customer ON public.consents USING btree (customer_id);
CREATE INDEX customer_listing_name ON public.customer_listing USING btree (name, customer_id);
CREATE INDEX customer_listing_phone ON public.customer_listing USING btree (phone) WHERE (phone IS NOT NULL);
CREATE INDEX customer_listing_text ON public.customer_listing USING gin (text public.gin_trgm_ops) WITH (gin_pending_list_limit='16384');
CREATE UNIQUE INDEX daily_summary_key ON public.daily_summary USING btree (day, site, method, staff_id);
CREATE INDEX idempotency_keys_age ON public.idempotency_keys USING btree (created_at);
CREATE UNIQUE INDEX package_fees_key ON public.package_fees USING btree (package_id);
CREATE INDEX package_fees_next ON public.package_fees USING btree (next_fee_at);
CREATE INDEX package_listing_announced ON public.package_listing USING btree (announced_at, package_id) INCLUDE (received_at);
CREATE INDEX package_listing_codes ON public.package_listing USING gin (other_code_keys) WITH (fastupdate=off) WHERE (other_code_keys <> '{}'::text[]);
CREATE INDEX package_listing_customer ON public.package_listing USING btree (customer_id, announced_at, package_id);
CREATE INDEX package_listing_days ON public.package_listing USING btree (received_at, package_id) INCLUDE (announced_at, site) WHERE (status = 'RECEIVED'::text);
CREATE INDEX package_listing_guide ON public.package_listing USING btree (guide_key);
CREATE INDEX package_listing_owed ON public.package_listing USING btree (base_fee, daily_storage, received_at, package_id) INCLUDE (announced_at, site) WHERE (status = 'RECEIVED'::text);
CREATE INDEX package_listing_position ON public.package_listing USING btree (public.code_key("position"), ((' '::text || lower("position"))), "position", package_id) WHERE ("position" IS NOT NULL);
CREATE INDEX package_listing_received ON public.package_listing USING btree (received_at, package_id) INCLUDE (announced_at, status, site, storage_days) WHERE (received_at IS NOT NULL);
CREATE INDEX package_listing_site ON public.package_listing USING btree (site, status, announced_at, package_id) INCLUDE (received_at, storage_days);
CREATE INDEX package_listing_status ON public.package_listing USING btree (status, announced_at, package_id) INCLUDE (received_at, storage_days);
CREATE INDEX package_listing_tracking_code ON public.package_listing USING btree (tracking_code);
CREATE INDEX package_photos_package ON public.package_photos USING btree (package_id);
CREATE INDEX package_search_announced ON public.package_search USING btree (announced_at, package_id);
CREATE INDEX package_search_text ON public.package_search USING gin (text public.gin_trgm_ops) WITH (gin_pending_list_limit='16384');
CREATE UNIQUE INDEX packages_active_guide_key ON public.packages USING btree (guide_key) WHERE (status <> 'CANCELLED'::text);
CREATE INDEX packages_announcements ON public.packages USING btree (announced_at) WHERE (status = 'ANNOUNCED'::text);
CREATE INDEX packages_customer ON public.packages USING btree (customer_id);
CREATE INDEX packages_in_storage ON public.packages USING btree (received_at) WHERE (status = 'RECEIVED'::text);
CREATE INDEX payment_listing_at ON public.payment_listing USING btree (at);
CREATE INDEX payment_listing_package ON public.payment_listing USING btree (package_id);
CREATE INDEX payments_at ON public.payments USING btree (at);
CREATE INDEX payments_package ON public.payments USING btree (package_id);
CREATE INDEX positions_free ON public.positions USING btree (site_id, ordinal) WHERE (package_id IS NULL);
ALTER INDEX public.change_log_customer ATTACH PARTITION public.change_log_other_customer_id_idx;
ALTER INDEX public.change_log_package ATTACH PARTITION public.change_log_other_package_id_position_idx;
ALTER INDEX public.change_log_pkey ATTACH PARTITION public.change_log_other_pkey;
ALTER INDEX public.change_log_xid ATTACH PARTITION public.change_log_other_xid_idx;
CREATE TRIGGER api_key_changed AFTER DELETE OR UPDATE OR TRUNCATE ON public.api_keys FOR EACH STATEMENT EXECUTE FUNCTION public.tell_of_staff();
CREATE TRIGGER change_log_append_only BEFORE DELETE OR TRUNCATE ON public.change_log FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER change_log_append_only BEFORE TRUNCATE ON public.change_log_other FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER change_log_erasure BEFORE UPDATE ON public.change_log FOR EACH ROW EXECUTE FUNCTION public.allow_erasure_only();
CREATE TRIGGER change_log_rows_append_only BEFORE DELETE ON public.change_log FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER charges_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.charges FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER payments_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.payments FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
CREATE TRIGGER staff_changed AFTER DELETE OR UPDATE OR TRUNCATE ON public.staff FOR EACH STATEMENT EXECUTE FUNCTION public.tell_of_staff();
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES public.staff(staff_id);
ALTER TABLE ONLY public.charges
    ADD CONSTRAINT charges_package_id_fkey FOREIGN KEY (package_id) REFERENCES public.packages(package_id);
ALTER TABLE ONLY public.charges
    ADD CONSTRAINT charges_reverses_fkey FOREIGN KEY (reverses) REFERENCES public.charges(charge_id);
ALTER TABLE ONLY public.charges
    ADD CONSTRAINT charges_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES public.staff(staff_id);
ALTER TABLE ONLY public.consents
    ADD CONSTRAINT consents_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(customer_id);
ALTER TABLE ONLY public.consents
    ADD CONSTRAINT consents_package_id_fkey FOREIGN KEY (package_id) REFERENCES public.packages(package_id);
ALTER TABLE ONLY public.package_photos
    ADD CONSTRAINT package_photos_package_id_fkey FOREIGN KEY (package_id) REFERENCES public.packages(package_id);
ALTER TABLE ONLY public.package_photos
    ADD CONSTRAINT package_photos_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES public.staff(staff_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(customer_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.sites(site_id);
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_stand_on_their_position FOREIGN KEY (position_id, package_id) REFERENCES public.positions(position_id, package_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.packages
    ADD CONSTRAINT packages_tariff_id_fkey FOREIGN KEY (tariff_id) REFERENCES public.tariffs(tariff_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_package_id_fkey FOREIGN KEY (package_id) REFERENCES public.packages(package_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_reverses_fkey FOREIGN KEY (reverses) REFERENCES public.payments(payment_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.sites(site_id);
ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES public.staff(staff_id);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_hold_their_package FOREIGN KEY (package_id, position_id) REFERENCES public.packages(package_id, position_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_site_id_fkey FOREIGN KEY (site_id) REFERENCES public.sites(site_id);
