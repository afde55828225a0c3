-- Whoever only reads has no business with what the planner knows: the scheduler calls this, and owners may.
REVOKE EXECUTE ON FUNCTION analyze_table(text) FROM PUBLIC;
