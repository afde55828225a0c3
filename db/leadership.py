"""Who projects: the process that holds one advisory lock, and how anybody else can tell that somebody does."""

LEAD = "SELECT pg_try_advisory_lock(hashtextextended('paqueteria.project', 0))"
"""Take the lead for the session, if it is free."""

IS_LED = """EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint << 32 | objid::bigint = hashtextextended('paqueteria.project', 0))"""
"""An expression: whether some session of this database leads."""
