-- no transaction: parcels are many
-- An order's index also holds what else is asked for: rows that a filter leaves out are passed by in the index, and
-- never read. All of these are written whenever a status is, so that a column more costs room alone. The positions' also
-- holds them as words are sought in them: folded anew for every search, 50,000 took most of its time.
DROP INDEX CONCURRENTLY IF EXISTS package_listing_announced_covering;
CREATE INDEX CONCURRENTLY package_listing_announced_covering ON package_listing
    (announced_at, package_id) INCLUDE (received_at);
DROP INDEX CONCURRENTLY IF EXISTS package_listing_announced;
ALTER INDEX package_listing_announced_covering RENAME TO package_listing_announced;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_status_covering;
CREATE INDEX CONCURRENTLY package_listing_status_covering ON package_listing
    (status, announced_at, package_id) INCLUDE (received_at, storage_days);
DROP INDEX CONCURRENTLY IF EXISTS package_listing_status;
ALTER INDEX package_listing_status_covering RENAME TO package_listing_status;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_site_covering;
CREATE INDEX CONCURRENTLY package_listing_site_covering ON package_listing
    (site, status, announced_at, package_id) INCLUDE (received_at, storage_days);
DROP INDEX CONCURRENTLY IF EXISTS package_listing_site;
ALTER INDEX package_listing_site_covering RENAME TO package_listing_site;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_received_covering;
CREATE INDEX CONCURRENTLY package_listing_received_covering ON package_listing
    (received_at, package_id) INCLUDE (announced_at, status, site, storage_days)
    WHERE received_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_received;
ALTER INDEX package_listing_received_covering RENAME TO package_listing_received;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_days_covering;
CREATE INDEX CONCURRENTLY package_listing_days_covering ON package_listing
    (received_at, package_id) INCLUDE (announced_at, site) WHERE status = 'RECEIVED';
DROP INDEX CONCURRENTLY IF EXISTS package_listing_days;
ALTER INDEX package_listing_days_covering RENAME TO package_listing_days;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_owed_covering;
CREATE INDEX CONCURRENTLY package_listing_owed_covering ON package_listing
    (base_fee, daily_storage, received_at, package_id) INCLUDE (announced_at, site)
    WHERE status = 'RECEIVED';
DROP INDEX CONCURRENTLY IF EXISTS package_listing_owed;
ALTER INDEX package_listing_owed_covering RENAME TO package_listing_owed;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_position_covering;
CREATE INDEX CONCURRENTLY package_listing_position_covering ON package_listing
    (code_key("position"), (' ' || lower("position")), "position", package_id)
    WHERE "position" IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS package_listing_position;
ALTER INDEX package_listing_position_covering RENAME TO package_listing_position;
