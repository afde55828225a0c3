-- Processes that remember who somebody is must hear at once that it is no longer so, from whoever changed it. A notice
-- within the transaction can't be lost between its commit and a later signal; that such transactions then commit one
-- after the other is no matter for changes of staff, which are few.
CREATE FUNCTION tell_of_staff() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('paqueteria_staff', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER staff_changed AFTER UPDATE OR DELETE OR TRUNCATE ON staff
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_staff();
