-- What projections need to be trusted for years: a log in months, a life number that no restore confuses, and a place
-- for what was read and isn't finished.

-- The log becomes a partitioned table. Rows that are there already stay where they are, as the partition of all months
-- so far; without any, nothing is kept.
ALTER TABLE change_log RENAME TO change_log_before;
ALTER TABLE change_log_before ALTER COLUMN position DROP IDENTITY;
DROP TRIGGER change_log_erasure ON change_log_before;
DROP TRIGGER change_log_append_only ON change_log_before;
ALTER TABLE change_log_before DROP CONSTRAINT change_log_pkey;
ALTER INDEX change_log_xid RENAME TO change_log_before_xid;
ALTER INDEX change_log_package RENAME TO change_log_before_package;
ALTER INDEX change_log_customer RENAME TO change_log_before_customer;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'change_log_before'::regclass LOOP
        EXECUTE format('ALTER TABLE change_log_before RENAME CONSTRAINT %I TO %I', name,
                       replace(name, 'change_log', 'change_log_before'));
    END LOOP;
END $$;
-- Which life of the cluster wrote a row: transaction ids of one mean nothing in the next. The default is raised by a
-- restore's renewal, so that writers need not look it up.
ALTER TABLE change_log_before ADD COLUMN life integer DEFAULT 1 NOT NULL;
-- When a row was written, by the server's own clock: what the months go by. `at` is the command's, and may be long ago.
ALTER TABLE change_log_before ADD COLUMN logged_at timestamptz DEFAULT now() NOT NULL;

CREATE TABLE change_log (
    position bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    life integer DEFAULT 1 NOT NULL,
    package_id uuid,
    customer_id uuid,
    type text NOT NULL,
    actor uuid,
    version integer,
    data jsonb DEFAULT '{}' NOT NULL,
    request_id text,
    at timestamptz NOT NULL,
    logged_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (position, logged_at)
) PARTITION BY RANGE (logged_at);
CREATE INDEX change_log_xid ON change_log (xid);
CREATE INDEX change_log_package ON change_log (package_id, position) WHERE package_id IS NOT NULL;
CREATE INDEX change_log_customer ON change_log (customer_id) WHERE customer_id IS NOT NULL AND package_id IS NULL;

CREATE OR REPLACE VIEW package_history AS
SELECT g.position, g.package_id, g.type, g.at, g.actor, w.full_name AS actor_name, g.version, g.data
FROM change_log AS g LEFT JOIN staff AS w ON w.staff_id = g.actor
WHERE g.package_id IS NOT NULL;

-- What no month was made for: nothing is ever refused for want of a partition.
CREATE TABLE change_log_other PARTITION OF change_log DEFAULT;

DO $$
DECLARE last_position bigint;
BEGIN
    SELECT max(position) INTO last_position FROM change_log_before;
    IF last_position IS NULL THEN
        DROP TABLE change_log_before;
        RETURN;
    END IF;
    EXECUTE format('ALTER TABLE change_log ATTACH PARTITION change_log_before FOR VALUES FROM (MINVALUE) TO (%L)',
                   (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
    PERFORM setval(pg_get_serial_sequence('change_log', 'position'), last_position);
END $$;

CREATE OR REPLACE FUNCTION allow_erasure_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.data = jsonb_set(OLD.data, '{person}', '{}', false)
       AND (NEW.position, NEW.xid, NEW.life, NEW.package_id, NEW.customer_id, NEW.type, NEW.actor, NEW.version,
            NEW.request_id, NEW.at, NEW.logged_at) IS NOT DISTINCT FROM
           (OLD.position, OLD.xid, OLD.life, OLD.package_id, OLD.customer_id, OLD.type, OLD.actor, OLD.version,
            OLD.request_id, OLD.at, OLD.logged_at)
    THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'change_log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Triggers for each row are every partition's; the one for a statement refuses even where there is no row.
CREATE TRIGGER change_log_erasure BEFORE UPDATE ON change_log FOR EACH ROW EXECUTE FUNCTION allow_erasure_only();
CREATE TRIGGER change_log_rows_append_only BEFORE DELETE ON change_log FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER change_log_append_only BEFORE DELETE OR TRUNCATE ON change_log EXECUTE FUNCTION refuse_change();
CREATE TRIGGER change_log_append_only BEFORE TRUNCATE ON change_log_other EXECUTE FUNCTION refuse_change();

-- Make a month's partition (UTC), and tell whether there was something to do. Attached, and not made as one, so that
-- writers go on meanwhile. A month that stands elsewhere already, in what was before or among what no month was made
-- for, stays there.
CREATE FUNCTION add_change_log_month(month date) RETURNS boolean LANGUAGE plpgsql AS $$
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

-- Which cluster the checkpoint speaks of. Another system, or another timeline of the same, is another life: tokens of
-- the old one are refused, and the read models are rebuilt. `unread_from`: no transaction below it is still unread,
-- whatever is unfinished, nor written before `unread_since`; a batch begins to look there. `snapshot_at`: whatever the
-- snapshot's xmax leaves out was begun later.
ALTER TABLE projection_checkpoint
    ADD COLUMN life integer DEFAULT 1 NOT NULL,
    ADD COLUMN system_identifier bigint,
    ADD COLUMN timeline text,
    ADD COLUMN needs_rebuild boolean DEFAULT false NOT NULL,
    ADD COLUMN unread_from xid8 DEFAULT '0' NOT NULL,
    ADD COLUMN unread_since timestamptz DEFAULT '-infinity' NOT NULL,
    ADD COLUMN snapshot_at timestamptz DEFAULT '-infinity' NOT NULL;
UPDATE projection_checkpoint SET unread_from = pg_snapshot_xmin(snapshot);

-- Changes that were read and whose keys are too many for one batch: the rest, in parts. The change stays hidden in the
-- checkpoint's snapshot until its last part is in.
CREATE TABLE unfinished_changes (
    xid xid8 NOT NULL,
    part integer NOT NULL,
    package_ids uuid[] NOT NULL,
    customer_ids uuid[] NOT NULL,
    PRIMARY KEY (xid, part)
);

-- Keys whose row can't be derived, with each change that named them, in order. They hold up nobody else, and their
-- changes stay hidden in the checkpoint's snapshot.
CREATE TABLE parked_changes (
    kind text NOT NULL CHECK (kind IN ('package', 'customer')),
    key uuid NOT NULL,
    xid xid8 NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (kind, key, xid)
);

-- What the last proof that both sides are equal found.
CREATE TABLE verifications (
    name text PRIMARY KEY CHECK (name = 'listing'),
    verified_at timestamptz NOT NULL,
    took interval NOT NULL,
    differences bigint NOT NULL
);
