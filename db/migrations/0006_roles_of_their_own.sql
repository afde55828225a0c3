-- Processes work as roles that own next to nothing (db/roles.py says which). The few things that need an owner are
-- functions that do just that and no more, as whoever made the schema.

-- The scheduler adds the log's months.
ALTER FUNCTION add_change_log_month(date) SECURITY DEFINER SET search_path = public, pg_temp;
REVOKE EXECUTE ON FUNCTION add_change_log_month(date) FROM PUBLIC;

-- After a restore the leading projector begins the log's next life.
CREATE FUNCTION begin_change_log_life(life integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE change_log ALTER COLUMN life SET DEFAULT %s', life);
END $$;
REVOKE EXECUTE ON FUNCTION begin_change_log_life(integer) FROM PUBLIC;

-- Whose transaction has been open for long, without what anybody's statements say.
CREATE FUNCTION old_transactions(seconds float8)
    RETURNS TABLE (pid integer, application_name text, age float8, state text, since timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8, state, xact_start
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND xact_start <= clock_timestamp() - make_interval(secs => seconds)
  AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')
ORDER BY xact_start
$$;

-- Keys of machines, each of a member of staff and with no more rights than theirs; what is kept is a digest.
CREATE TABLE api_keys (
    key_id uuid PRIMARY KEY DEFAULT uuidv7(),
    staff_id uuid NOT NULL REFERENCES staff,
    role text NOT NULL CHECK (role IN ('ADMIN', 'OPERATOR', 'VIEWER')),
    digest bytea NOT NULL CONSTRAINT api_keys_digest_key UNIQUE CHECK (length(digest) = 32),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE TRIGGER api_key_changed AFTER UPDATE OR DELETE OR TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_staff();

-- Rights end with the key's role or with the person's, whichever is less: as text, ADMIN < OPERATOR < VIEWER.
CREATE VIEW api_key_holders AS
SELECT k.digest, s.staff_id, s.username, s.full_name, greatest(k.role, s.role) AS role
FROM api_keys AS k JOIN staff AS s USING (staff_id)
WHERE k.revoked_at IS NULL AND s.active;
