-- How each scheduled job's last run went, whoever led then.
CREATE TABLE scheduled_runs (
    job text PRIMARY KEY,
    ran_at timestamptz NOT NULL,
    took interval NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('done', 'failed')),
    found jsonb
);

-- Statistics are their owner's to take; the scheduler needn't be the owner.
CREATE FUNCTION analyze_table(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('ANALYZE %I', name);
END $$;

-- Which statements take the time, and how much of a table is air: in a schema of their own, into which the processes'
-- roles don't see. A server that lacks them, or doesn't let us have them, serves as well: the monitor says then that it
-- can't know.
CREATE SCHEMA monitoring;

DO $$
DECLARE
    extension text;
BEGIN
    FOREACH extension IN ARRAY ARRAY['pg_stat_statements', 'pgstattuple'] LOOP
        BEGIN
            EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA monitoring', extension);
        EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
            RAISE NOTICE 'without the extension %', extension;
        END;
    END LOOP;
END $$;
