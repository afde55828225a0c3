-- no transaction: parcels are many
-- Words within a range of dates: the parcels of those dates are read from here, and only they are looked at for words.
DROP INDEX CONCURRENTLY IF EXISTS package_search_announced;
CREATE INDEX CONCURRENTLY package_search_announced ON package_search (announced_at, package_id);
-- It depends on nothing but rules that come with the server; so a planner that knows the word knows how common it is.
ALTER FUNCTION search_pattern(text) IMMUTABLE;
