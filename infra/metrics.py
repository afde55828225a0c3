"""The figures that `/metrics` tells, named and scaled by Prometheus convention.

What a process counts or holds is added up over the processes of a service; what is `Measured` is of the state that they
share, and each process tells it as it measured it last.
"""

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily

from infra.exposition import Measured

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
BYTES = tuple(float(256 * 4**step) for step in range(9))
"""From 256 bytes to 16 MiB."""

REQUEST = ["method", "route", "status"]

REQUEST_SECONDS = Histogram(
    "paqueteria_http_request_duration_seconds",
    "Time from the request's first byte to the answer's last",
    REQUEST,
    buckets=SECONDS,
)
REQUEST_BYTES = Histogram(
    "paqueteria_http_request_size_bytes", "What was read of the request's body", REQUEST, buckets=BYTES
)
RESPONSE_BYTES = Histogram("paqueteria_http_response_size_bytes", "The answer's body", REQUEST, buckets=BYTES)
HOT_ANSWERS = Counter(
    "paqueteria_http_hot_answers_total",
    "Answers from the process's memory; the histograms of requests leave them out",
    ["route", "status"],
)
HOT_ANSWER_BYTES = Counter("paqueteria_http_hot_answer_bytes_total", "Bodies of those answers", ["route"])
COMMANDS = Counter("paqueteria_commands_total", "Commands by name and outcome", ["command", "outcome"])
IDEMPOTENT_REPLAYS = Counter("paqueteria_idempotent_replays_total", "Answers given again for a known Idempotency-Key")

CACHE_READS = Counter(
    "paqueteria_page_cache_reads_total",
    "Looks for a page by level, L1 in the process and L2 in Redis: hit, miss, stale, bypass (no-store), untrusted",
    ["level", "outcome"],
)
CACHE_ERRORS = Counter("paqueteria_page_cache_errors_total", "Calls to Redis that failed or took too long")
CACHE_FILL_SECONDS = Histogram(
    "paqueteria_page_cache_fill_duration_seconds", "Time to compute a page and to store it", buckets=SECONDS
)
CACHE_PAGES = Gauge("paqueteria_page_cache_l1_pages", "Pages in the processes' memory", multiprocess_mode="livesum")
CACHE_BYTES = Gauge(
    "paqueteria_page_cache_l1_bytes", "What these pages take, more or less", multiprocess_mode="livesum"
)
CACHE_EVICTIONS = Counter(
    "paqueteria_page_cache_l1_evictions_total", "Pages that were dropped from memory to make room for others"
)
REDIS_UP = Measured("paqueteria_redis_up", "1 while Redis answers this process")
REDIS_BYTES = Measured("paqueteria_redis_memory_bytes", "What Redis holds in memory")
REDIS_MOST_BYTES = Measured("paqueteria_redis_memory_limit_bytes", "What it may hold; 0 is no limit")
REDIS_KEYS = Measured("paqueteria_redis_keys", "Keys of the database that pages are in")
REDIS_EVICTIONS = Measured(
    "paqueteria_redis_evicted_keys", "Keys that Redis has dropped to make room", family=CounterMetricFamily
)

POOL = ["pool"]
POOL_SIZE = Gauge("paqueteria_pool_connections", "Open connections", POOL, multiprocess_mode="livesum")
POOL_MOST = Gauge("paqueteria_pool_max_connections", "How many may be open", POOL, multiprocess_mode="livesum")
POOL_LEAST = Gauge("paqueteria_pool_min_connections", "How many are kept open", POOL, multiprocess_mode="livesum")
POOL_AVAILABLE = Gauge(
    "paqueteria_pool_available_connections", "Open connections that nobody uses", POOL, multiprocess_mode="livesum"
)
POOL_WAITING = Gauge(
    "paqueteria_pool_waiting_requests", "Requests that wait for a connection", POOL, multiprocess_mode="livesum"
)
POOL_REQUESTS = Counter("paqueteria_pool_requests_total", "Requests for a connection", POOL)
POOL_WAIT_SECONDS = Counter("paqueteria_pool_wait_seconds_total", "Time that requests waited for one", POOL)
POOL_TIMEOUTS = Counter("paqueteria_pool_timeouts_total", "Requests that got none in time", POOL)
POOL_CONNECTION_ERRORS = Counter(
    "paqueteria_pool_connection_errors_total", "Connections that could not be made, or broke", POOL
)

PROJECTED_CHANGES = Counter("paqueteria_projected_changes_total", "Log rows that the projector has read")
PROJECTION_BATCH_SECONDS = Histogram(
    "paqueteria_projection_batch_duration_seconds",
    "Time of one batch, from reading the log to the commit",
    buckets=SECONDS,
)
PROJECTION_BATCH_CHANGES = Histogram(
    "paqueteria_projection_batch_changes", "Log rows that one batch reads", buckets=(0, 1, 2, 5, 10, 50, 100, 500, 5000)
)
COMMIT_TO_VISIBLE_SECONDS = Histogram(
    "paqueteria_projection_commit_to_visible_seconds",
    "Time from the instant a change names to the commit that shows it in the listing",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
PROJECTION_LAG = Measured(
    "paqueteria_projection_lag_changes", "Committed log rows that the read models don't hold in full, by the log's end"
)
PROJECTION_LAG_SECONDS = Measured("paqueteria_projection_lag_seconds", "Age of the oldest of those log rows")
PROJECTION_PARKED = Measured("paqueteria_projection_parked_keys", "Packages and customers whose rows can't be derived")
PROJECTION_LED = Measured("paqueteria_projection_led", "1 while any process at all projects")
PROJECTION_NEEDS_REBUILD = Measured(
    "paqueteria_projection_needs_rebuild", "1 while the read models are of another life of the cluster"
)
PROJECTION_LEADER = Gauge(
    "paqueteria_projection_leader", "1 in the process that projects, 0 in a standby", multiprocess_mode="livesum"
)
VIEW_REFRESH_SECONDS = Histogram(
    "paqueteria_view_refresh_duration_seconds", "Time of one REFRESH CONCURRENTLY", ["view"]
)
VIEW_AGE_SECONDS = Measured(
    "paqueteria_view_age_seconds", "Time since a materialized view's last refresh; infinite without one", ["view"]
)
FEES_OUTDATED = Gauge(
    "paqueteria_fees_outdated_rows",
    "Parcels in storage whose fee in the view was missing or past before its last refresh; pages price what they show",
    multiprocess_mode="livemostrecent",
)
OLD_TRANSACTION_SECONDS = Measured(
    "paqueteria_old_transaction_seconds", "How long a session has held a transaction open", ["pid", "application"]
)
REPLICA_LAG_SECONDS = Measured(
    "paqueteria_replica_lag_seconds", "For how long a standby has lacked something that the primary has", ["replica"]
)
REPLICA_UP = Measured("paqueteria_replica_up", "1 while the standby answers this process", ["replica"])
HEALTH_MEASURED_AT = Measured(
    "paqueteria_health_measured_timestamp_seconds", "When this process last measured what the gauges about it tell"
)
JOBS = Counter(
    "paqueteria_scheduled_jobs_not_done_total",
    "Scheduled runs that failed, were missed or overlapped",
    ["job", "outcome"],
)
VERIFY_DIFFERENCES = Measured("paqueteria_verify_differences", "Rows in which the read side was not what it should be")
VERIFIED_AT = Measured(
    "paqueteria_verify_last_run_timestamp_seconds", "When both sides were last compared, in Unix time"
)

PACKAGES = Measured("paqueteria_packages", "Parcels by status, as the read models count them", ["status"])
POSITIONS = Measured("paqueteria_positions", "Places on the shelf by site, free and taken", ["site", "state"])
INCOME_TODAY = Measured("paqueteria_income_today_pesos", "What was paid today in Bogota, by method", ["method"])

PROCESSES = Gauge(
    "paqueteria_processes", "Processes of the service by what they do", ["role"], multiprocess_mode="livesum"
)
PROCESS_BYTES = Gauge(
    "paqueteria_process_memory_bytes", "What they hold of the machine's memory", ["role"], multiprocess_mode="livesum"
)
PROCESS_CPU_SECONDS = Counter("paqueteria_process_cpu_seconds_total", "Time that they have computed", ["role"])
