-- commands.add_positions.FIND_TAKEN
SELECT p.code FROM positions AS p JOIN sites AS s USING (site_id)
WHERE s.code = $1 AND p.code = ANY($2) ORDER BY p.ordinal LIMIT 1;

-- commands.add_positions.INSERT
INSERT INTO positions (site_id, code, ordinal)
SELECT shelf.site_id, wanted.code, shelf.last + wanted.number
FROM (SELECT s.site_id, coalesce(max(p.ordinal), -1) AS last
      FROM sites AS s LEFT JOIN positions AS p USING (site_id) WHERE s.code = $1 GROUP BY s.site_id) AS shelf,
    unnest($2::text[]) WITH ORDINALITY AS wanted (code, number);

-- commands.add_positions.RAISE_VERSION
UPDATE sites SET version = version + 1 WHERE code = $1;

-- commands.add_site.INSERT
WITH added AS (
    INSERT INTO sites (code, name, address, phone, opening_hours, created_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (code) DO NOTHING
    RETURNING site_id, code AS site, name, address, phone, opening_hours, version
), shelf AS (
    INSERT INTO positions (site_id, code, ordinal)
    SELECT site_id, lpad(n::text, 2, '0'), n FROM added, generate_series(0, 99) AS n
)
SELECT site, name, address, phone, opening_hours, version FROM added;

-- commands.add_staff.INSERT
INSERT INTO staff (username, full_name, role, password_hash, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (username) DO NOTHING
RETURNING staff_id, username, full_name, role, active, version, created_at;

-- commands.announce_package.FIND_SITE
SELECT site_id FROM sites WHERE code = $1;

-- commands.announce_package.FIND_ACTIVE
SELECT package_id FROM packages WHERE guide_key = replace($1, '-', '') AND status <> 'CANCELLED';

-- commands.announce_package.TARIFF_IN_FORCE
SELECT tariff_id, base_fee_normal FROM tariffs WHERE valid_from <= $1 ORDER BY valid_from DESC LIMIT 1;

-- commands.announce_package.INSERT
INSERT INTO packages (guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id, carrier, status,
    tariff_id, announced_at)
VALUES ($1, $2, $3, $4, $5, $6,
    $7, 'ANNOUNCED', $8, $9)
RETURNING package_id;

-- commands.cancel_package.UPDATE
UPDATE packages SET status = 'CANCELLED', cancelled_at = $1, cancellation_reason = $2, position_id = NULL,
    observations = coalesce($3, observations), version = version + 1
WHERE package_id = $4;

-- commands.change_customer.LOCK
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at
FROM customers WHERE customer_id = $1 FOR UPDATE;

-- commands.change_customer.FIND_PHONE
SELECT FROM customers WHERE phone = $1 AND customer_id <> $2;

-- commands.change_customer.UPDATE
UPDATE customers SET name = $1, phone = $2, email = $3, document = $4,
    building = $5, tower = $6, apartment = $7, notes = $8, version = $9
WHERE customer_id = $10;

-- commands.change_site.LOCK
SELECT code AS site, name, address, phone, opening_hours, version FROM sites WHERE code = $1 FOR NO KEY UPDATE;

-- commands.change_site.UPDATE
UPDATE sites SET name = $1, address = $2, phone = $3, opening_hours = $4,
    version = $5
WHERE code = $6;

-- commands.change_staff.LOCK_ADMINS
SELECT staff_id FROM staff WHERE role = 'ADMIN' AND active ORDER BY staff_id FOR UPDATE;

-- commands.change_staff.LOCK
SELECT staff_id, username, full_name, role, active, version, created_at
FROM staff WHERE staff_id = $1 FOR UPDATE;

-- commands.change_staff.UPDATE
UPDATE staff SET full_name = $1, role = $2, active = $3, version = $4,
    password_hash = coalesce($5, password_hash),
    session_generation = session_generation + $6::integer
WHERE staff_id = $7;

-- commands.charges.PRICE
SELECT l.base_fee, fee.storage_days, fee.storage_fee, fee.total
FROM package_listing_source AS l
CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $1) AS fee
WHERE l.package_id = $2;

-- commands.charges.FREEZE
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, staff_id, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- commands.charges.REVERSE
INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, reverses, staff_id, at)
SELECT package_id, -base_fee, -storage_days, -storage_fee, -total, -due, charge_id, $1, $2
FROM charges AS c
WHERE package_id = $3 AND reverses IS NULL
  AND NOT EXISTS (SELECT FROM charges AS r WHERE r.reverses = c.charge_id);

-- commands.correct_package.FIND_ACTIVE
SELECT package_id FROM packages WHERE guide_key = replace($1, '-', '') AND status <> 'CANCELLED';

-- commands.correct_package.UPDATE
UPDATE packages SET guide_number = $1, other_codes = $2, carrier = $3,
    observations = $4, recipient_name = $5, customer_id = $6,
    package_type = $7, condition = $8, version = version + 1
WHERE package_id = $9;

-- commands.correct_package.PHONE_OF
SELECT phone FROM customers WHERE customer_id = $1;

-- commands.customers.FIND
SELECT phone, customer_id FROM customers WHERE phone = ANY($1);

-- commands.customers.ADD
INSERT INTO customers (customer_id, name, phone, created_at)
SELECT coalesce(customer_id, uuidv7()), name, phone, $1
FROM jsonb_to_recordset($2) AS person (customer_id uuid, name text, phone text)
ORDER BY phone
ON CONFLICT (phone) DO NOTHING
RETURNING phone, customer_id;

-- commands.customers.ADD_CONSENTS
INSERT INTO consents (customer_id, package_id, policy_version, channel, at)
SELECT customer_id, package_id, $1, $2, $3
FROM unnest($4::uuid[], $5::uuid[]) AS given (customer_id, package_id);

-- commands.deliver_package.PAY
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, collected_by, staff_id, at)
VALUES ($1, $2, $3, $4, $5, $6, $7,
    $8, $9);

-- commands.deliver_package.UPDATE
UPDATE packages SET status = 'DELIVERED', delivered_at = $1, position_id = NULL, version = version + 1
WHERE package_id = $2;

-- commands.lapse_announcements.FIND
SELECT package_id FROM packages
WHERE status = 'ANNOUNCED' AND announced_at < $1
ORDER BY announced_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED;

-- commands.lapse_announcements.EXPIRE
UPDATE packages SET status = 'CANCELLED', cancelled_at = $1, cancellation_reason = 'EXPIRED',
    version = version + 1
WHERE package_id = ANY($2)
RETURNING package_id, version;

-- commands.packages.LOCK
WITH seen AS MATERIALIZED (SELECT version FROM packages WHERE package_id = $1)
SELECT p.package_id, p.version, seen.version AS version_seen, p.status, p.guide_number, p.guide_key, p.other_codes,
       p.carrier, p.observations,
       p.recipient_name, p.customer_id, p.package_type, p.condition, p.site_id,
       s.code AS site, p.position_id, (SELECT code FROM positions WHERE position_id = p.position_id) AS position,
       p.tariff_id, p.announced_at, p.received_at, p.delivered_at
FROM packages AS p CROSS JOIN seen JOIN sites AS s USING (site_id)
WHERE p.package_id = $1
FOR NO KEY UPDATE OF p;

-- commands.packages.DOCUMENTS
SELECT l.package_id, json_build_object(
    'package_id', l.package_id,
    'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
    'guide_number', l.guide_number, 'status', l.status, 'site', l.site, 'position', l.position,
    'carrier', l.carrier, 'other_codes', l.other_codes, 'package_type', l.package_type, 'condition', l.condition,
    'recipient_name', l.recipient_name,
    'customer', json_build_object('customer_id', l.customer_id, 'name', l.customer_name, 'phone', l.customer_phone),
    'announced_at', instant(l.announced_at), 'received_at', instant(l.received_at),
    'delivered_at', instant(l.delivered_at), 'cancelled_at', instant(l.cancelled_at),
    'base_fee', l.base_fee,
    'storage_days', coalesce(l.storage_days, fee.storage_days),
    'storage_fee', coalesce(l.storage_fee, fee.storage_fee),
    'total', coalesce(l.total, fee.total),
    'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
    'paid', l.paid,
    'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
    'version', l.version)::text FROM package_listing_source AS l CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $1) AS fee
WHERE l.package_id = ANY($2);

-- commands.positions.ASKED
SELECT p.site_id, p.code, p.position_id, p.package_id
FROM unnest($1::uuid[], $2::text[]) AS wanted (site_id, code)
JOIN positions AS p ON p.site_id = wanted.site_id AND p.code = wanted.code
ORDER BY p.position_id FOR UPDATE OF p;

-- commands.positions.LOWEST_FREE
SELECT position_id, code FROM positions
WHERE site_id = $1 AND package_id IS NULL AND position_id <> ALL($2)
ORDER BY ordinal LIMIT $3 FOR UPDATE SKIP LOCKED;

-- commands.positions.LAST_FREE
SELECT position_id, code FROM positions
WHERE site_id = $1 AND package_id IS NULL AND position_id <> ALL($2)
ORDER BY ordinal LIMIT $3 FOR UPDATE;

-- commands.positions.TAKE
UPDATE positions SET package_id = taken.package_id
FROM unnest($1::uuid[], $2::uuid[]) AS taken (position_id, package_id)
WHERE positions.position_id = taken.position_id;

-- commands.positions.FREE
UPDATE positions SET package_id = NULL WHERE package_id = $1;

-- commands.receive_by_guide.FIND
WITH active AS MATERIALIZED (
    SELECT package_id, version, guide_key, status, site_id, customer_id, announced_at, observations
    FROM packages WHERE guide_key = ANY($1) AND status <> 'CANCELLED'
    ORDER BY guide_key FOR NO KEY UPDATE)
SELECT asked.guide_key, uuidv7() AS new_id, s.site_id AS site_there, c.customer_id AS customer_known,
       (SELECT tariff_id FROM tariffs WHERE valid_from <= $2 ORDER BY valid_from DESC LIMIT 1) AS tariff_id,
       active.package_id, active.version, active.status, active.site_id, active.customer_id, active.announced_at,
       active.observations
FROM unnest($1::text[], $3::text[], $4::text[]) WITH ORDINALITY
     AS asked (guide_key, site, phone, n)
LEFT JOIN active USING (guide_key)
LEFT JOIN sites AS s ON s.code = asked.site
LEFT JOIN customers AS c ON c.phone = asked.phone
ORDER BY asked.n;

-- commands.receive_by_guide.STORE
WITH taken AS (
UPDATE positions SET package_id = taken.package_id
FROM unnest($1::uuid[], $2::uuid[]) AS taken (position_id, package_id)
WHERE positions.position_id = taken.position_id
),
added AS (
    INSERT INTO packages (package_id, guide_number, other_codes, tracking_code, customer_id, recipient_name, site_id,
        carrier, package_type, condition, status, position_id, tariff_id, observations, announced_at, received_at)
    SELECT package_id, guide_number, coalesce(other_codes, '{}'), tracking_code, customer_id, customer_name, site_id,
        carrier, package_type, condition, 'RECEIVED', position_id, tariff_id, observations, $3, $3
    FROM jsonb_to_recordset($4) AS parcel (package_id uuid, guide_number text, other_codes text[],
        tracking_code text, customer_id uuid, customer_name text, site_id uuid, carrier text, package_type text,
        condition text, position_id uuid, tariff_id uuid, observations text)
    ORDER BY replace(guide_number, '-', '')),
received AS (
    UPDATE packages AS p SET status = 'RECEIVED', received_at = greatest($3, p.announced_at),
        site_id = parcel.site_id, package_type = parcel.package_type, condition = parcel.condition,
        position_id = parcel.position_id, other_codes = coalesce(parcel.other_codes, p.other_codes),
        carrier = coalesce(parcel.carrier, p.carrier), observations = coalesce(parcel.observations, p.observations),
        version = p.version + 1
    FROM jsonb_to_recordset($5) AS parcel (package_id uuid, site_id uuid, package_type text, condition text,
        position_id uuid, other_codes text[], carrier text, observations text)
    WHERE p.package_id = parcel.package_id)

INSERT INTO change_log (package_id, customer_id, type, actor, version, data, request_id, at)
SELECT package_id, customer_id, type, actor, version, data, request_id, at
FROM jsonb_to_recordset($6) AS change (package_id uuid, customer_id uuid, type text, actor uuid,
    version integer, data jsonb, request_id text, at timestamptz);

-- commands.receive_package.UPDATE
UPDATE packages SET status = 'RECEIVED', received_at = $1, package_type = $2,
    condition = $3, position_id = $4, observations = coalesce($5, observations),
    version = version + 1
WHERE package_id = $6
RETURNING (SELECT code FROM positions AS place WHERE place.position_id = packages.position_id);

-- commands.relocate_package.UPDATE
UPDATE packages SET position_id = $1, version = version + 1 WHERE package_id = $2;

-- commands.revert_delivery.FIND_PAYMENT
SELECT payment_id, staff_id, at, amount FROM payments AS y
WHERE package_id = $1 AND reverses IS NULL
  AND NOT EXISTS (SELECT FROM payments AS r WHERE r.reverses = y.payment_id);

-- commands.revert_delivery.REVERSE_PAYMENT
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, collected_by, reverses, staff_id, at)
SELECT package_id, site_id, method, -amount, -due, $1, collected_by, payment_id, $2, $3
FROM payments WHERE payment_id = $4;

-- commands.revert_delivery.UPDATE
UPDATE packages SET status = 'RECEIVED', delivered_at = NULL, position_id = $1, version = version + 1
WHERE package_id = $2
RETURNING (SELECT code FROM positions AS place WHERE place.position_id = packages.position_id);

-- commands.seed.ONE_AT_A_TIME
SELECT pg_try_advisory_lock(hashtextextended('paqueteria.seed', 0));

-- commands.seed.STAFF
INSERT INTO staff (username, full_name, role, password_hash, active)
VALUES ('seed', 'Datos de muestra', 'OPERATOR', '!', false)
ON CONFLICT (username) DO UPDATE SET full_name = excluded.full_name
RETURNING staff_id;

-- commands.seed.SITE
INSERT INTO sites (code, name, address, opening_hours) VALUES ($1, $2, $3, $4)
ON CONFLICT (code) DO UPDATE SET code = excluded.code
RETURNING site_id;

-- commands.seed.FREE_POSITIONS
SELECT count(*) FROM positions WHERE site_id = $1 AND package_id IS NULL;

-- commands.seed.ADD_POSITIONS
INSERT INTO positions (site_id, code, ordinal)
SELECT $1, chr(65 + (n / 6500) % 26) || chr(65 + n / 250 % 26) || '-' || lpad((n % 250 + 1)::text, 3, '0'),
       (SELECT coalesce(max(ordinal), -1) FROM positions WHERE site_id = $1) + n - $2::int + 1
FROM generate_series($2::int, $3::int) AS n;

-- commands.seed.TAKE_POSITIONS
WITH free AS (
    SELECT position_id FROM positions
    WHERE site_id = $1 AND package_id IS NULL AND ordinal % $2 = $3
    ORDER BY ordinal LIMIT cardinality($4::uuid[]) FOR UPDATE SKIP LOCKED)
UPDATE positions AS p SET package_id = t.package_id
FROM (SELECT position_id, row_number() OVER () AS n FROM free) AS f
JOIN unnest($4::uuid[]) WITH ORDINALITY AS t (package_id, n) USING (n)
WHERE p.position_id = f.position_id
RETURNING replace(p.package_id::text, '-', ''), p.position_id::text;

-- commands.seed.CHARGE_AND_PAY
WITH gone AS (
    SELECT p.package_id, p.site_id, p.status, coalesce(p.delivered_at, p.cancelled_at) AS at, b.base_fee,
           fee.storage_days, fee.storage_fee, fee.total, t.method, t.is_waived
    FROM unnest($1::uuid[], $2::text[], $3::boolean[])
        AS t (package_id, method, is_waived)
    JOIN packages AS p USING (package_id)
    JOIN tariffs AS f USING (tariff_id)
    CROSS JOIN LATERAL base_fee(p.package_type, f.base_fee_normal, f.base_fee_extra_sized) AS b (base_fee)
    CROSS JOIN LATERAL package_fee(
        b.base_fee, f.daily_storage, p.received_at, coalesce(p.delivered_at, p.cancelled_at)) AS fee),
charged AS (
    INSERT INTO charges (package_id, base_fee, storage_days, storage_fee, total, due, staff_id, at)
    SELECT package_id, base_fee, storage_days, storage_fee, total, CASE status WHEN 'DELIVERED' THEN total ELSE 0 END,
           $4, at FROM gone)
INSERT INTO payments (package_id, site_id, method, amount, due, amount_reason, staff_id, at)
SELECT package_id, site_id, method, CASE WHEN is_waived THEN base_fee ELSE total END, total,
       CASE WHEN is_waived AND storage_fee > 0 THEN 'Cliente frecuente' END, $4, at
FROM gone WHERE status = 'DELIVERED';

-- commands.seed.TAKEN_PHONES
SELECT phone FROM customers WHERE phone = ANY($1);

-- commands.seed.TAKEN_CODES
SELECT tracking_code FROM packages WHERE tracking_code = ANY($1);

-- commands.seed.TAKEN_GUIDES
SELECT guide_key FROM packages WHERE guide_key = ANY($1) AND status <> 'CANCELLED';

-- commands.seed.IS_SHOWN
SELECT pg_visible_in_snapshot($1::text::xid8, snapshot), EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint << 32 | objid::bigint = hashtextextended('paqueteria.project', 0))
FROM projection_checkpoint WHERE name = 'listing';

-- commands.set_tariff.INSERT
INSERT INTO tariffs (valid_from, base_fee_normal, base_fee_extra_sized, daily_storage, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (valid_from) DO NOTHING
RETURNING tariff_id;

-- commands.sign_in.FIND
SELECT staff_id, session_generation, password_hash FROM staff WHERE username = $1 AND active;

-- commands.transaction.CLAIM
INSERT INTO idempotency_keys AS kept (actor, method, path, key, request_hash, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (actor, method, path, key) DO UPDATE
    SET request_hash = excluded.request_hash, status = NULL, headers = NULL, body = NULL,
        created_at = excluded.created_at
    WHERE kept.created_at <= $7
RETURNING true;

-- commands.transaction.FIND_KEPT
SELECT request_hash, status, headers, body FROM idempotency_keys
WHERE actor = $1 AND method = $2 AND path = $3 AND key = $4;

-- commands.transaction.KEEP
UPDATE idempotency_keys SET status = $1, headers = $2, body = $3
WHERE actor = $4 AND method = $5 AND path = $6 AND key = $7;

-- commands.transaction.FORGET
DELETE FROM idempotency_keys WHERE (actor, method, path, key) IN (
    SELECT actor, method, path, key FROM idempotency_keys
    WHERE created_at <= $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED);

-- db.change_log.APPEND
INSERT INTO change_log (package_id, customer_id, type, actor, version, data, request_id, at)
SELECT package_id, customer_id, type, actor, version, data, request_id, at
FROM jsonb_to_recordset($1) AS change (package_id uuid, customer_id uuid, type text, actor uuid,
    version integer, data jsonb, request_id text, at timestamptz);

-- db.change_log.ADD_MONTHS
SELECT add_change_log_month(
    (date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC') + n * interval '1 month')::date)
FROM generate_series(0, $2) AS n;

-- db.consistency.READ_CHECKPOINT
SELECT incarnation, batch, snapshot::text FROM projection_checkpoint WHERE name = 'listing';

-- db.leadership.LEAD
SELECT pg_try_advisory_lock(hashtextextended('paqueteria.project', 0));

-- db.migrate.ONE_AT_A_TIME
SELECT pg_advisory_lock(hashtextextended('paqueteria.migrate', 0));

-- db.migrate.THIS_AND_NEXT_MONTH
SELECT add_change_log_month((date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month')::date)
FROM generate_series(0, 1) AS n;

-- db.projection_health.SESSION
SELECT set_config('statement_timeout', '5s', false), set_config('lock_timeout', '2s', false);

-- db.projection_health.UNREAD
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM projection_checkpoint
                  WHERE name = 'listing')
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND logged_at >= (SELECT unread_since - interval '1 day' FROM projection_checkpoint WHERE name = 'listing')
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
      AND xid NOT IN (SELECT xid FROM parked_changes UNION SELECT xid FROM unfinished_changes)
    ORDER BY xid
    LIMIT $1) AS counted;

-- db.projection_health.UNFINISHED
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid = ANY (ARRAY(SELECT DISTINCT xid FROM unfinished_changes))
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
    ORDER BY xid
    LIMIT $1) AS counted;

-- db.projection_health.VIEWS
SELECT coalesce(array_agg(m.matviewname::text ORDER BY m.matviewname), '{}') AS names,
       array_agg(r.refreshed_at ORDER BY m.matviewname) AS refreshed,
       array_agg(extract(epoch FROM r.took)::float8 ORDER BY m.matviewname) AS took
FROM pg_matviews AS m LEFT JOIN view_refreshes AS r ON r.view = m.matviewname
WHERE m.schemaname = 'public';

-- db.projection_health.MEASURE
SELECT c.incarnation, c.batch, c.at,
       c.needs_rebuild OR pg_snapshot_xmax(c.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
           OR coalesce(c.system_identifier <> (SELECT system_identifier FROM pg_control_system()), false),
       unread.changes, unfinished.changes, least(unread.since, unfinished.since),
       (SELECT count(*) FROM (SELECT DISTINCT kind, key FROM parked_changes) AS keys),
       EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint << 32 | objid::bigint = hashtextextended('paqueteria.project', 0)),
       v.verified_at, v.differences, views.names, views.refreshed, views.took
FROM projection_checkpoint AS c
CROSS JOIN (
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM projection_checkpoint
                  WHERE name = 'listing')
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND logged_at >= (SELECT unread_since - interval '1 day' FROM projection_checkpoint WHERE name = 'listing')
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
      AND xid NOT IN (SELECT xid FROM parked_changes UNION SELECT xid FROM unfinished_changes)
    ORDER BY xid
    LIMIT $1) AS counted
) AS unread CROSS JOIN (
SELECT count(*) AS changes, min(at) AS since FROM (
    SELECT at FROM change_log
    WHERE xid = ANY (ARRAY(SELECT DISTINCT xid FROM unfinished_changes))
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
    ORDER BY xid
    LIMIT $1) AS counted
) AS unfinished CROSS JOIN (
SELECT coalesce(array_agg(m.matviewname::text ORDER BY m.matviewname), '{}') AS names,
       array_agg(r.refreshed_at ORDER BY m.matviewname) AS refreshed,
       array_agg(extract(epoch FROM r.took)::float8 ORDER BY m.matviewname) AS took
FROM pg_matviews AS m LEFT JOIN view_refreshes AS r ON r.view = m.matviewname
WHERE m.schemaname = 'public'
) AS views
LEFT JOIN verifications AS v ON v.name = c.name
WHERE c.name = 'listing';

-- db.projection_health.FIND_OLD_TRANSACTIONS
SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8, state, xact_start
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND xact_start <= clock_timestamp() - make_interval(secs => $1)
  AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')
ORDER BY xact_start;

-- db.staff_sessions.FIND
SELECT staff_id, username, full_name, role FROM staff_sessions
WHERE staff_id = $1 AND session_generation = $2;

-- projections.changes.READ_CHANGES
SELECT xid::text::bigint, count(*), max(at),
       coalesce(array_agg(DISTINCT package_id) FILTER (WHERE package_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL AND package_id IS NULL), '{}'),
       bool_or(package_id IS NULL AND customer_id IS NULL)
FROM
 (
    SELECT xid, package_id, customer_id, at FROM change_log
    WHERE logged_at >= $1
      AND xid >= (SELECT unread_from FROM projection_checkpoint WHERE name = 'listing')
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM projection_checkpoint WHERE name = 'listing'))
      AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
      AND xid <> ALL ($2::text[]::xid8[])
    ORDER BY xid
    LIMIT $3) AS unread
GROUP BY xid ORDER BY xid;

-- projections.changes.READ_ONE
SELECT xid::text::bigint, count(*), max(at),
       coalesce(array_agg(DISTINCT package_id) FILTER (WHERE package_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT customer_id) FILTER (WHERE customer_id IS NOT NULL AND package_id IS NULL), '{}'),
       bool_or(package_id IS NULL AND customer_id IS NULL)
FROM
 change_log
WHERE logged_at >= $1 AND xid = $2::text::xid8
  AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing')
GROUP BY xid;

-- projections.changes.PACKAGES_OF_CUSTOMERS
SELECT customer_id, package_id FROM packages WHERE customer_id = ANY($1);

-- projections.changes.NEXT_PART
SELECT xid::text::bigint, part, package_ids, customer_ids FROM unfinished_changes ORDER BY xid, part LIMIT 1;

-- projections.changes.KEEP_PARTS
INSERT INTO unfinished_changes (xid, part, package_ids, customer_ids)
SELECT $1::text::xid8, (number - 1) / $2, coalesce(array_agg(key) FILTER (WHERE is_package), '{}'),
       coalesce(array_agg(key) FILTER (WHERE NOT is_package), '{}')
FROM unnest($3::uuid[], $4::boolean[]) WITH ORDINALITY AS k (key, is_package, number)
GROUP BY 2;

-- projections.changes.FORGET_PART
DELETE FROM unfinished_changes WHERE xid = $1::text::xid8 AND part = $2;

-- projections.derivation.DERIVE
WITH 
upserted AS (
    INSERT INTO package_listing AS l (
        package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site,
        position, carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone,
        observations, cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee,
        daily_storage, storage_days, storage_fee, total, paid)
    SELECT
        package_id, version, tracking_code, guide_number, guide_key, other_codes, other_code_keys, status, site,
        position, carrier, package_type, condition, recipient_name, customer_id, customer_name, customer_phone,
        observations, cancellation_reason, announced_at, received_at, delivered_at, cancelled_at, base_fee,
        daily_storage, storage_days, storage_fee, total, paid
    FROM package_listing_source WHERE package_id = ANY($1::uuid[])
    ON CONFLICT (package_id) DO UPDATE SET
        version = excluded.version, tracking_code = excluded.tracking_code, guide_number = excluded.guide_number,
        guide_key = excluded.guide_key, other_codes = excluded.other_codes, other_code_keys = excluded.other_code_keys,
        status = excluded.status, site = excluded.site, position = excluded.position, carrier = excluded.carrier,
        package_type = excluded.package_type, condition = excluded.condition, recipient_name = excluded.recipient_name,
        customer_id = excluded.customer_id, customer_name = excluded.customer_name,
        customer_phone = excluded.customer_phone, observations = excluded.observations,
        cancellation_reason = excluded.cancellation_reason, announced_at = excluded.announced_at,
        received_at = excluded.received_at, delivered_at = excluded.delivered_at, cancelled_at = excluded.cancelled_at,
        base_fee = excluded.base_fee, daily_storage = excluded.daily_storage, storage_days = excluded.storage_days,
        storage_fee = excluded.storage_fee, total = excluded.total, paid = excluded.paid
    RETURNING OLD.site AS old_site, OLD.status AS old_status, OLD.customer_id AS old_customer_id,
        NEW.site, NEW.status, NEW.customer_id, NEW.package_id, NEW.version),
deleted AS (  -- no command deletes, but a hand may have
    DELETE FROM package_listing AS l
    WHERE package_id = ANY($1::uuid[])
      AND NOT EXISTS (SELECT FROM packages AS p WHERE p.package_id = l.package_id)
    RETURNING site, status, customer_id, NULL, NULL, NULL::uuid, package_id, NULL::integer),
moved AS (SELECT * FROM upserted UNION ALL SELECT * FROM deleted)
, 
words AS (
    INSERT INTO package_search (package_id, announced_at, text)
    SELECT package_id, announced_at, text FROM package_search_source AS s
    WHERE package_id = ANY($1::uuid[])
      AND NOT EXISTS (SELECT FROM package_search AS l WHERE l.package_id = s.package_id AND l.text = s.text)
    ON CONFLICT (package_id) DO UPDATE SET text = excluded.text),
words_of_none AS (
    DELETE FROM package_search AS l
    WHERE package_id = ANY($1::uuid[])
      AND NOT EXISTS (SELECT FROM packages AS p WHERE p.package_id = l.package_id))
, 
money AS (
    INSERT INTO payment_listing (
        payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal)
    SELECT payment_id, package_id, site, staff_id, method, amount, due, amount_reason, collected_by, at, is_reversal
    FROM payment_listing_source WHERE package_id = ANY($1::uuid[])
    ON CONFLICT (payment_id) DO NOTHING)
, 
counts AS (
    MERGE INTO package_counts AS c
    USING (
        SELECT site, status, sum(difference) AS difference
        FROM (SELECT site, status, 1 FROM moved WHERE site IS NOT NULL
              UNION ALL SELECT old_site, old_status, -1 FROM moved WHERE old_site IS NOT NULL)
            AS d (site, status, difference)
        GROUP BY site, status HAVING sum(difference) <> 0) AS d
    ON c.site = d.site AND c.status = d.status
    WHEN MATCHED THEN UPDATE SET count = c.count + d.difference
    WHEN NOT MATCHED THEN INSERT (site, status, count) VALUES (d.site, d.status, d.difference))
,
     
customers_changed AS (
    INSERT INTO customer_listing (
        customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text)
    SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at, text
    FROM customer_listing_source AS s
    WHERE customer_id = ANY(
            $2::uuid[] || ARRAY(SELECT customer_id FROM moved WHERE customer_id IS NOT NULL))
      AND NOT EXISTS (
        SELECT FROM customer_listing AS l WHERE l.customer_id = s.customer_id
        AND (l.version, l.name, l.phone, l.email, l.document, l.building, l.tower, l.apartment, l.notes, l.text)
            IS NOT DISTINCT FROM
            (s.version, s.name, s.phone, s.email, s.document, s.building, s.tower, s.apartment, s.notes, s.text))
    ON CONFLICT (customer_id) DO UPDATE SET
        version = excluded.version, name = excluded.name, phone = excluded.phone, email = excluded.email,
        document = excluded.document, building = excluded.building, tower = excluded.tower,
        apartment = excluded.apartment, notes = excluded.notes, text = excluded.text
    RETURNING customer_id)

SELECT ARRAY(
SELECT 'all' AS scope FROM moved
UNION SELECT 'status:' || status FROM moved WHERE status IS NOT NULL
UNION SELECT 'status:' || old_status FROM moved WHERE old_status IS NOT NULL
UNION SELECT 'customer:' || customer_id FROM moved WHERE status IS NOT NULL
UNION SELECT 'customer:' || old_customer_id FROM moved WHERE old_status IS NOT NULL
UNION SELECT 'customers' FROM customers_changed
UNION SELECT 'customer:' || customer_id FROM customers_changed
), (
SELECT string_agg(jsonb_build_object('package_id', package_id, 'status', status, 'version', version)::text, ',')
FROM moved WHERE status IS NOT NULL
);

-- projections.incarnation.READ_IDENTITY
SELECT c.life, c.system_identifier, c.timeline, s.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8)
FROM projection_checkpoint AS c, pg_control_system() AS s WHERE c.name = 'listing';

-- projections.incarnation.RECORD
UPDATE projection_checkpoint SET system_identifier = $1, timeline = $2
WHERE name = 'listing';

-- projections.incarnation.RENEW
UPDATE projection_checkpoint SET life = $1, incarnation = $2, snapshot = pg_current_snapshot(),
    unread_from = pg_snapshot_xmin(pg_current_snapshot()), batch = batch + 1, at = $3, needs_rebuild = true,
    system_identifier = $4, timeline = $5
WHERE name = 'listing';

-- projections.incarnation.NEEDS_REBUILD
SELECT needs_rebuild FROM projection_checkpoint WHERE name = 'listing';

-- projections.lanes.LANE
SELECT set_config('work_mem', '128MB', false), set_config('maintenance_work_mem', '256MB', false),
       set_config('enable_nestloop', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       set_config('max_parallel_maintenance_workers', '0', false);

-- projections.parking.PARK
INSERT INTO parked_changes (kind, key, xid, reason, at)
SELECT $1, key, $2::text::xid8, reason, $3
FROM unnest($4::uuid[], $5::text[]) AS parked (key, reason)
ON CONFLICT (kind, key, xid) DO UPDATE SET reason = excluded.reason;

-- projections.parking.UNPARK
DELETE FROM parked_changes WHERE kind = $1 AND key = ANY($2);

-- projections.parking.LIST
SELECT kind, key, (array_agg(reason ORDER BY xid DESC))[1], min(at), count(*)
FROM parked_changes GROUP BY kind, key ORDER BY min(at), key;

-- projections.parking.RETRY
WITH tried AS (DELETE FROM parked_changes RETURNING kind, key, xid)
INSERT INTO unfinished_changes (xid, part, package_ids, customer_ids)
SELECT xid, coalesce((SELECT max(u.part) FROM unfinished_changes AS u WHERE u.xid = t.xid), 0) + 1,
       coalesce(array_agg(key) FILTER (WHERE kind = 'package'), '{}'),
       coalesce(array_agg(key) FILTER (WHERE kind = 'customer'), '{}')
FROM tried AS t GROUP BY xid;

-- projections.process.LEAD
SELECT pg_try_advisory_lock(hashtextextended('paqueteria.project', 0));

-- projections.projector.SESSION
SELECT set_config('idle_in_transaction_session_timeout', '5s', false), set_config('lock_timeout', '10s', false);

-- projections.projector.PLANS
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false);

-- projections.projector.READ_CHECKPOINT
SELECT batch, snapshot::text, pg_current_snapshot()::text,
       greatest(unread_since - interval '1 day', '2000-01-01T00:00:00Z'),
       
ARRAY(SELECT xid::text::bigint FROM unfinished_changes), ARRAY(SELECT xid::text::bigint FROM parked_changes)

FROM projection_checkpoint WHERE name = 'listing';

-- projections.projector.READ_PARKED
SELECT DISTINCT kind, key FROM parked_changes;

-- projections.projector.READ_MADE_AT
SELECT max(at) FROM change_log WHERE xid = $1::text::xid8;

-- projections.projector.MOVE_CHECKPOINT
WITH 
generations AS (
    INSERT INTO page_generations (scope, batch)
    SELECT scope, $1 FROM unnest($2::text[]) AS scope
    ON CONFLICT (scope) DO UPDATE SET batch = excluded.batch)
, 
noted AS (
    INSERT INTO batch_changes (batch, packages, at)
    SELECT $1, $3::jsonb, $4 WHERE $3::jsonb <> '[]')

UPDATE projection_checkpoint SET snapshot = $5::pg_snapshot, batch = $1, at = $4,
    unread_from = $6::text::xid8,
    unread_since = CASE WHEN $6::text::xid8 >= pg_snapshot_xmax(snapshot) THEN snapshot_at
                        ELSE unread_since END,
    snapshot_at = CASE WHEN $7 THEN now() ELSE snapshot_at END
WHERE name = 'listing' AND batch = $8;

-- projections.rebuild.PACKAGES_OF_CUSTOMERS
SELECT customer_id, package_id FROM packages WHERE customer_id = ANY($1);

-- projections.rebuild.ONE_AT_A_TIME
SELECT pg_try_advisory_lock(hashtextextended('paqueteria.rebuild', 0));

-- projections.rebuild.CHANGED_SINCE
SELECT package_id, customer_id FROM change_log
WHERE xid >= pg_snapshot_xmin($1::pg_snapshot) AND xid < pg_snapshot_xmax(pg_current_snapshot())
  AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)
  AND life = (SELECT life FROM projection_checkpoint WHERE name = 'listing');

-- projections.rebuild.NEXT_BATCH
UPDATE projection_checkpoint SET batch = batch + 1, at = $1 WHERE name = 'listing' RETURNING batch;

-- projections.rebuild.PARKED_SINCE
SELECT kind, key, min(at) FROM parked_changes GROUP BY kind, key;

-- projections.rebuild.FORGET_PARKED
DELETE FROM parked_changes AS k
WHERE (k.kind, k.key) NOT IN (SELECT kind, key FROM unnest($1::text[], $2::uuid[]) AS left_out (kind, key))
   OR NOT EXISTS (SELECT FROM change_log AS g JOIN projection_checkpoint AS c ON c.life = g.life WHERE g.xid = k.xid);

-- projections.rebuild.READ_HIDDEN
SELECT pg_current_snapshot()::text, coalesce(array_agg(DISTINCT xid::text::bigint) FILTER (WHERE xid > '0'), '{}')
FROM parked_changes;

-- projections.rebuild.MOVE_WHOLE
UPDATE projection_checkpoint SET snapshot = $1::pg_snapshot, needs_rebuild = false,
    unread_from = pg_snapshot_xmin(pg_current_snapshot())
WHERE name = 'listing';

-- projections.refresh.TAKE_TURN
SELECT pg_try_advisory_xact_lock(hashtextextended('paqueteria.refresh', 0));

-- projections.refresh.SET_CLOCK
SELECT set_config('paqueteria.now', $1, true), set_config('statement_timeout', '0', true);

-- projections.refresh.RECORD
INSERT INTO view_refreshes (view, refreshed_at, took) VALUES ($1, $2, clock_timestamp() - now())
ON CONFLICT (view) DO UPDATE SET refreshed_at = excluded.refreshed_at, took = excluded.took
RETURNING extract(epoch FROM took)::float8;

-- projections.shadows.COLUMNS
SELECT t.attname, s.attname IS NOT NULL, t.attnotnull AND NOT t.atthasdef
FROM pg_attribute AS t
LEFT JOIN pg_attribute AS s
    ON s.attrelid = $1::regclass AND s.attname = t.attname AND s.attnum > 0 AND NOT s.attisdropped
WHERE t.attrelid = $2::regclass AND t.attnum > 0 AND NOT t.attisdropped
ORDER BY t.attnum;

-- projections.shadows.INDEXES
SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisprimary
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = $1::regclass
ORDER BY i.indisprimary DESC, c.relname;

-- projections.verify.NEXT_BATCH
UPDATE projection_checkpoint SET batch = batch + 1, at = $1 WHERE name = 'listing' RETURNING batch;

-- projections.verify.ON_THE_WAY
WITH here AS (SELECT life, snapshot, unread_from FROM projection_checkpoint WHERE name = 'listing'),
unread AS (
    SELECT package_id, customer_id FROM change_log
    WHERE xid >= (SELECT greatest(unread_from, pg_snapshot_xmin(snapshot)) FROM here)
      AND xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND NOT pg_visible_in_snapshot(xid, (SELECT snapshot FROM here)) AND life = (SELECT life FROM here)
      AND xid NOT IN (SELECT xid FROM parked_changes)),
packages_on_the_way AS (
    SELECT package_id FROM unread WHERE package_id IS NOT NULL
    UNION SELECT unnest(package_ids) FROM unfinished_changes
    UNION SELECT p.package_id FROM packages AS p
        JOIN unread AS u ON u.customer_id = p.customer_id AND u.package_id IS NULL),
customers_on_the_way AS (
    SELECT customer_id FROM unread WHERE customer_id IS NOT NULL
    UNION SELECT unnest(customer_ids) FROM unfinished_changes
    UNION SELECT p.customer_id FROM packages AS p JOIN packages_on_the_way USING (package_id))
SELECT ARRAY(TABLE packages_on_the_way), ARRAY(TABLE customers_on_the_way);

-- projections.verify.PARKED
SELECT kind, key, 'parked since ' || instant(min(at)) || ': ' || (array_agg(reason ORDER BY xid DESC))[1]
FROM parked_changes GROUP BY kind, key ORDER BY kind, key;

-- projections.verify.EXPECTED_LISTING
WITH charged AS (
    SELECT package_id, sum(storage_days) AS days, sum(storage_fee) AS storage, sum(total) AS total
    FROM charges WHERE package_id BETWEEN $1 AND $2 GROUP BY package_id),
received AS (
    SELECT package_id, sum(amount) AS amount
    FROM payments WHERE package_id BETWEEN $1 AND $2 GROUP BY package_id)
SELECT k.package_id, k.version, k.tracking_code, k.guide_number, replace(k.guide_number, '-', '') AS guide_key,
       k.other_codes, CASE WHEN cardinality(k.other_codes) = 0 THEN k.other_codes ELSE
           ARRAY(SELECT replace(replace(upper(c), ' ', ''), '-', '') FROM unnest(k.other_codes)
               WITH ORDINALITY AS o (c, n) ORDER BY n) END AS other_code_keys,
       k.status, sites.code AS site, CASE WHEN k.status = 'RECEIVED' THEN taken.code END AS position, k.carrier,
       k.package_type, k.condition, k.recipient_name, k.customer_id, customers.name AS customer_name,
       customers.phone AS customer_phone, k.observations, k.cancellation_reason, k.announced_at, k.received_at,
       k.delivered_at, k.cancelled_at, priced.base_fee, tariffs.daily_storage,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.days END::integer AS storage_days,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN 0
            WHEN k.status <> 'RECEIVED' THEN charged.storage END::bigint AS storage_fee,
       CASE WHEN k.status = 'ANNOUNCED' OR k.received_at IS NULL THEN priced.base_fee
            WHEN k.status <> 'RECEIVED' THEN charged.total END::bigint AS total,
       coalesce(received.amount, 0)::bigint AS paid
FROM packages AS k
JOIN tariffs ON tariffs.tariff_id = k.tariff_id
CROSS JOIN LATERAL (SELECT CASE WHEN k.package_type = 'EXTRA_SIZED' THEN tariffs.base_fee_extra_sized
                                WHEN k.package_type = 'NORMAL' OR k.package_type IS NULL THEN tariffs.base_fee_normal
                                END AS base_fee) AS priced
JOIN sites ON sites.site_id = k.site_id
JOIN customers ON customers.customer_id = k.customer_id
LEFT JOIN positions AS taken ON taken.package_id = k.package_id
LEFT JOIN charged ON charged.package_id = k.package_id
LEFT JOIN received ON received.package_id = k.package_id
WHERE k.package_id BETWEEN $1 AND $2;

-- projections.verify.EXPECTED_SEARCH
SELECT k.package_id, k.announced_at, lower(unaccent(
    ' ' || c.name
    || CASE WHEN k.recipient_name <> c.name THEN ' ' || k.recipient_name ELSE '' END
    || CASE WHEN c.phone IS NULL THEN '' ELSE ' ' || c.phone END
    || ' ' || k.guide_number
    || CASE WHEN position('-' IN k.guide_number) > 0 THEN ' ' || replace(k.guide_number, '-', '') ELSE '' END
    || ' ' || k.tracking_code
    || ' ' || overlay(k.tracking_code PLACING '-' FROM 5 FOR 0)
    || CASE WHEN cardinality(k.other_codes) = 0 THEN '' ELSE ' ' || array_to_string(k.other_codes, ' ') END)) AS text
FROM packages AS k JOIN customers AS c ON c.customer_id = k.customer_id
WHERE k.package_id BETWEEN $1 AND $2;

-- projections.verify.EXPECTED_CUSTOMERS
SELECT customer_id, version, name, phone, email, document, building, tower, apartment, notes, created_at,
       lower(unaccent(' ' || name
           || coalesce(' ' || phone, '') || coalesce(' ' || email, '') || coalesce(' ' || document, '')
           || coalesce(' ' || building, '') || coalesce(' ' || tower, '') || coalesce(' ' || apartment, ''))) AS text
FROM customers WHERE customer_id BETWEEN $1 AND $2;

-- projections.verify.EXPECTED_PAYMENTS
SELECT payment_id, package_id, (SELECT code FROM sites WHERE sites.site_id = payments.site_id) AS site, staff_id,
       method, amount, due, amount_reason, collected_by, at, reverses IS NOT NULL AS is_reversal
FROM payments WHERE payment_id BETWEEN $1 AND $2;

-- projections.verify.EXPECTED_COUNTS
SELECT (SELECT code FROM sites WHERE sites.site_id = packages.site_id) || ' ' || status AS place, count(*) AS count
FROM packages GROUP BY site_id, status;

-- projections.verify.NOTE_OUTCOME
INSERT INTO verifications (name, verified_at, took, differences)
VALUES ('listing', $1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET verified_at = excluded.verified_at, took = excluded.took, differences = excluded.differences;

-- projections.verify.UNFINISHED
SELECT snapshot::text, ARRAY(
    SELECT xid::text::bigint FROM parked_changes UNION SELECT xid::text::bigint FROM unfinished_changes)
FROM projection_checkpoint WHERE name = 'listing';

-- projections.verify.PARKED_XIDS
SELECT DISTINCT xid::text::bigint FROM parked_changes;

-- projections.verify.SHOW_AGAIN
UPDATE projection_checkpoint SET snapshot = $1::pg_snapshot WHERE name = 'listing';

-- projections.word_indexes.SORT_IN
SELECT sum(gin_clean_pending_list(i.indexrelid))
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
WHERE m.amname = 'gin' AND i.indrelid IN (to_regclass('package_search'), to_regclass('customer_listing'));

-- queries.get_customer.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object(
    'customer_id', c.customer_id, 'name', c.name, 'phone', c.phone, 'email', c.email, 'document', c.document,
    'building', c.building, 'tower', c.tower, 'apartment', c.apartment, 'notes', c.notes,
    'created_at', instant(c.created_at), 'version', c.version,
    'by_status', (
        SELECT json_build_object(
            'ANNOUNCED', count(*) FILTER (WHERE l.status = 'ANNOUNCED'),
            'RECEIVED', count(*) FILTER (WHERE l.status = 'RECEIVED'),
            'DELIVERED', count(*) FILTER (WHERE l.status = 'DELIVERED'),
            'CANCELLED', count(*) FILTER (WHERE l.status = 'CANCELLED'))
        FROM package_listing AS l WHERE l.customer_id = c.customer_id))::text AS body, NULL::timestamptz AS expires_at, NULL AS etag
FROM customer_listing AS c WHERE c.customer_id = $2
) AS page ON true
WHERE c.name = 'listing';

-- queries.get_package.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT (left(json_build_object(
    'package_id', l.package_id,
    'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
    'guide_number', l.guide_number, 'status', l.status, 'site', l.site, 'position', l.position,
    'carrier', l.carrier, 'other_codes', l.other_codes, 'package_type', l.package_type, 'condition', l.condition,
    'recipient_name', l.recipient_name,
    'customer', json_build_object('customer_id', l.customer_id, 'name', l.customer_name, 'phone', l.customer_phone),
    'announced_at', instant(l.announced_at), 'received_at', instant(l.received_at),
    'delivered_at', instant(l.delivered_at), 'cancelled_at', instant(l.cancelled_at),
    'base_fee', l.base_fee,
    'storage_days', coalesce(l.storage_days, fee.storage_days),
    'storage_fee', coalesce(l.storage_fee, fee.storage_fee),
    'total', coalesce(l.total, fee.total),
    'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
    'paid', l.paid,
    'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
    'version', l.version)::text, -1) || ', ' || substr(json_build_object(
    'observations', l.observations, 'cancellation_reason', l.cancellation_reason,
    'payments', coalesce((
        SELECT json_agg(json_build_object(
            'payment_id', y.payment_id, 'site', y.site, 'method', y.method, 'amount', y.amount, 'due', y.due,
            'amount_reason', y.amount_reason, 'collected_by', y.collected_by, 'staff_id', y.staff_id,
            'at', instant(y.at)) ORDER BY y.at, y.payment_id)
        FROM payment_listing AS y WHERE y.package_id = l.package_id), '[]'),
    'photos', coalesce((
        SELECT json_agg(json_build_object(
            'photo_id', f.photo_id, 'media_type', f.media_type, 'bytes', f.bytes, 'at', instant(f.at))
            ORDER BY f.at, f.photo_id)
        FROM package_photos AS f WHERE f.package_id = l.package_id), '[]'))::text, 2))::json::text AS body,
       CASE l.status WHEN 'RECEIVED' THEN fee.next_fee_at END AS expires_at,
       '"' || l.version || '.' || coalesce(l.storage_days, fee.storage_days)
           || coalesce('.' || nullif(c.version, 1), '') || '"' AS etag
FROM package_listing AS l LEFT JOIN customer_listing AS c ON c.customer_id = l.customer_id CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $2) AS fee
WHERE l.package_id = $3
) AS page ON true
WHERE c.name = 'listing';

-- queries.list_positions.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object('items', coalesce((
           SELECT json_agg(json_build_object('code', s."position",
               'package', CASE WHEN l.package_id IS NOT NULL THEN json_build_object(
    'package_id', l.package_id,
    'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
    'guide_number', l.guide_number, 'status', l.status, 'site', l.site, 'position', l.position,
    'carrier', l.carrier, 'other_codes', l.other_codes, 'package_type', l.package_type, 'condition', l.condition,
    'recipient_name', l.recipient_name,
    'customer', json_build_object('customer_id', l.customer_id, 'name', l.customer_name, 'phone', l.customer_phone),
    'announced_at', instant(l.announced_at), 'received_at', instant(l.received_at),
    'delivered_at', instant(l.delivered_at), 'cancelled_at', instant(l.cancelled_at),
    'base_fee', l.base_fee,
    'storage_days', coalesce(l.storage_days, fee.storage_days),
    'storage_fee', coalesce(l.storage_fee, fee.storage_fee),
    'total', coalesce(l.total, fee.total),
    'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
    'paid', l.paid,
    'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
    'version', l.version) END) ORDER BY s.ordinal)
           FROM shelf AS s
           LEFT JOIN package_listing AS l
               ON l.status = 'RECEIVED' AND l.site = s.site AND l."position" = s."position"
           CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $2) AS fee
           WHERE s.site = t.site), '[]'))::text AS body,
       (SELECT min(fee.next_fee_at) FROM package_listing AS l CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $2) AS fee
        WHERE l.status = 'RECEIVED' AND l.site = t.site) AS expires_at,
       NULL AS etag
FROM site_list AS t WHERE t.site = $3
) AS page ON true
WHERE c.name = 'listing';

-- queries.list_sites.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'site', s.site, 'name', s.name, 'address', s.address, 'phone', s.phone, 'opening_hours', s.opening_hours,
           'version', s.version) ORDER BY s.site), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM site_list AS s
) AS page ON true
WHERE c.name = 'listing';

-- queries.list_staff.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'staff_id', w.staff_id, 'username', w.username, 'full_name', w.full_name, 'role', w.role,
           'active', w.active, 'version', w.version, 'created_at', instant(w.created_at))
           ORDER BY w.username), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM staff_list AS w
) AS page ON true
WHERE c.name = 'listing';

-- queries.list_tariffs.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'tariff_id', t.tariff_id, 'valid_from', instant(t.valid_from), 'valid_until', instant(t.valid_until),
           'base_fees', json_build_object('NORMAL', t.base_fee_normal, 'EXTRA_SIZED', t.base_fee_extra_sized),
           'daily_storage', t.daily_storage) ORDER BY t.valid_from), '[]'))::text AS body,
       min(t.valid_from) FILTER (WHERE t.valid_from > $2) - interval '1 microsecond' AS expires_at, NULL AS etag
FROM tariff_list AS t WHERE t.valid_until IS NULL OR t.valid_until > $2
) AS page ON true
WHERE c.name = 'listing';

-- queries.lookup_packages.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
WITH found AS (
    SELECT l.*, 1 AS preference, 'tracking_code' AS matched_by FROM package_listing AS l
    WHERE l.tracking_code = code_key($2)
    UNION ALL
    SELECT l.*, 2, 'guide_number' FROM package_listing AS l WHERE l.guide_key = code_key($2)
    UNION ALL
    SELECT l.*, 3, 'other_code' FROM package_listing AS l WHERE l.other_code_keys @> ARRAY[code_key($2)]
    UNION ALL
    SELECT l.*, 4, 'phone' FROM package_listing AS l WHERE l.customer_phone = $3
    UNION ALL
    SELECT l.*, 5, 'position' FROM package_listing AS l
    WHERE l."position" IS NOT NULL AND code_key(l."position") = code_key($2)
), best AS (
    SELECT DISTINCT ON (f.package_id) f.* FROM found AS f ORDER BY f.package_id, f.preference
), shown AS (
    SELECT b.*, CASE b.status WHEN 'RECEIVED' THEN 0 WHEN 'ANNOUNCED' THEN 1 ELSE 2 END AS place FROM best AS b
    ORDER BY place, b.announced_at DESC, b.package_id DESC LIMIT $4
)
SELECT json_build_object('items', coalesce(
           json_agg((left(json_build_object(
    'package_id', l.package_id,
    'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
    'guide_number', l.guide_number, 'status', l.status, 'site', l.site, 'position', l.position,
    'carrier', l.carrier, 'other_codes', l.other_codes, 'package_type', l.package_type, 'condition', l.condition,
    'recipient_name', l.recipient_name,
    'customer', json_build_object('customer_id', l.customer_id, 'name', l.customer_name, 'phone', l.customer_phone),
    'announced_at', instant(l.announced_at), 'received_at', instant(l.received_at),
    'delivered_at', instant(l.delivered_at), 'cancelled_at', instant(l.cancelled_at),
    'base_fee', l.base_fee,
    'storage_days', coalesce(l.storage_days, fee.storage_days),
    'storage_fee', coalesce(l.storage_fee, fee.storage_fee),
    'total', coalesce(l.total, fee.total),
    'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
    'paid', l.paid,
    'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
    'version', l.version)::text, -1) || ', ' || substr(json_build_object('matched_by', l.matched_by)::text, 2))::json ORDER BY l.place, l.announced_at DESC, l.package_id DESC), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM shown AS l CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $5) AS fee
) AS page ON true
WHERE c.name = 'listing';

-- queries.package_fee.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object(
           'at', instant($2),
           'lines', CASE WHEN l.received_at IS NULL THEN json_build_array(line.base)
                ELSE json_build_array(line.base, line.storage) END,
           'total', coalesce(l.total, fee.total),
           'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
           'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END)::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_listing AS l CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $2) AS fee CROSS JOIN LATERAL (SELECT
    json_build_object('label', 'Tarifa base', 'quantity', 1, 'unit_amount', l.base_fee, 'amount', l.base_fee) AS base,
    json_build_object('label', 'Días de bodegaje después de las primeras 24 horas',
        'quantity', coalesce(l.storage_days, fee.storage_days), 'unit_amount', l.daily_storage,
        'amount', coalesce(l.storage_fee, fee.storage_fee)) AS storage) AS line
WHERE l.package_id = $3
) AS page ON true
WHERE c.name = 'listing';

-- queries.package_history.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object('items', coalesce((
           SELECT json_agg(json_build_object(
               'type', h.type, 'at', instant(h.at),
               'actor', CASE WHEN h.actor IS NOT NULL
                   THEN json_build_object('staff_id', h.actor, 'name', h.actor_name) END,
               'version', h.version, 'data', h.data) ORDER BY h.position)
           FROM package_history AS h WHERE h.package_id = l.package_id), '[]'))::text AS body,
       NULL::timestamptz AS expires_at, NULL AS etag
FROM package_listing AS l WHERE l.package_id = $2
) AS page ON true
WHERE c.name = 'listing';

-- queries.track_package.SELECT
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest($1::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN (
SELECT json_build_object(
           'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4), 'status', l.status,
           'timeline', (
               SELECT json_agg(json_build_object('status', step.status, 'at', instant(step.at)) ORDER BY step.n)
               FROM (VALUES (1, 'ANNOUNCED', l.announced_at), (2, 'RECEIVED', l.received_at),
                            (3, 'DELIVERED', l.delivered_at), (4, 'CANCELLED', l.cancelled_at)) AS step (n, status, at)
               WHERE step.at IS NOT NULL),
           'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
           'lines', CASE WHEN l.received_at IS NULL THEN json_build_array(line.base)
                ELSE json_build_array(line.base, line.storage) END, 'total', coalesce(l.total, fee.total),
           'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
           'next_due', CASE l.status WHEN 'RECEIVED' THEN (
               SELECT later.total FROM package_fee(l.base_fee, l.daily_storage, l.received_at,
                   fee.next_fee_at + interval '1 microsecond') AS later) END,
           'site', l.site,
           'customer', json_build_object(
               'name', (SELECT string_agg(left(part.word, 1) || '***', ' ' ORDER BY part.n)
                        FROM regexp_split_to_table(btrim(l.customer_name), '\s+') WITH ORDINALITY AS part (word, n)),
               'phone', repeat('*', 8) || right(l.customer_phone, 2)))::text AS body,
       CASE l.status WHEN 'RECEIVED' THEN fee.next_fee_at END AS expires_at,
       NULL AS etag
FROM package_listing AS l CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, $2) AS fee CROSS JOIN LATERAL (SELECT
    json_build_object('label', 'Tarifa base', 'quantity', 1, 'unit_amount', l.base_fee, 'amount', l.base_fee) AS base,
    json_build_object('label', 'Días de bodegaje después de las primeras 24 horas',
        'quantity', coalesce(l.storage_days, fee.storage_days), 'unit_amount', l.daily_storage,
        'amount', coalesce(l.storage_fee, fee.storage_fee)) AS storage) AS line
WHERE l.tracking_code = $3
) AS page ON true
WHERE c.name = 'listing';

-- queries.updates.SELECT
SELECT b.batch, json_build_object('batch', b.batch, 'packages', b.packages)::text
FROM batch_changes AS b WHERE b.batch > $1 AND b.batch <= $2 ORDER BY b.batch LIMIT 1000;
