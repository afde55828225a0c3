"""The figures that `/metrics` tells, named and scaled by Prometheus convention."""

from prometheus_client import Counter, Gauge, Histogram

REQUEST_SECONDS = Histogram(
    "paqueteria_http_request_duration_seconds",
    "Time from the request's first byte to the answer's last",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
COMMANDS = Counter("paqueteria_commands_total", "Commands by name and outcome", ["command", "outcome"])
IDEMPOTENT_REPLAYS = Counter("paqueteria_idempotent_replays_total", "Answers given again for a known Idempotency-Key")
HOT_ANSWERS = Counter(
    "paqueteria_http_hot_answers_total",
    "Answers from the process's memory; the request durations leave them out",
    ["route", "status"],
)
CACHE_READS = Counter("paqueteria_page_cache_reads_total", "Pages by where they came from", ["outcome"])
CACHE_ERRORS = Counter("paqueteria_page_cache_errors_total", "Calls to Redis that failed or took too long")
PROJECTED_CHANGES = Counter("paqueteria_projected_changes_total", "Log rows that the projector has read")
PROJECTION_BATCH_SECONDS = Histogram(
    "paqueteria_projection_batch_duration_seconds",
    "Time of one batch, from reading the log to the commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
COMMIT_TO_VISIBLE_SECONDS = Histogram(
    "paqueteria_projection_commit_to_visible_seconds",
    "Time from the instant a change names to the commit that shows it in the listing",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
PROJECTION_LAG = Gauge(
    "paqueteria_projection_lag_changes", "Committed log rows that the read models don't hold in full, by the log's end"
)
PROJECTION_LAG_SECONDS = Gauge("paqueteria_projection_lag_seconds", "Age of the oldest of those log rows")
PROJECTION_PARKED = Gauge("paqueteria_projection_parked_keys", "Packages and customers whose rows can't be derived")
PROJECTION_LED = Gauge("paqueteria_projection_led", "1 while any process at all projects")
PROJECTION_NEEDS_REBUILD = Gauge(
    "paqueteria_projection_needs_rebuild", "1 while the read models are of another life of the cluster"
)
PROJECTION_LEADER = Gauge("paqueteria_projection_leader", "1 in the process that projects, 0 in a standby")
VIEW_REFRESH_SECONDS = Histogram(
    "paqueteria_view_refresh_duration_seconds", "Time of one REFRESH CONCURRENTLY", ["view"]
)
VIEW_AGE_SECONDS = Gauge(
    "paqueteria_view_age_seconds", "Time since a materialized view's last refresh; infinite without one", ["view"]
)
OLD_TRANSACTION_SECONDS = Gauge(
    "paqueteria_old_transaction_seconds", "How long a session has held a transaction open", ["pid", "application"]
)
HEALTH_MEASURED_AT = Gauge(
    "paqueteria_health_measured_timestamp_seconds", "When this process last measured what the gauges about it tell"
)
JOBS = Counter(
    "paqueteria_scheduled_jobs_not_done_total",
    "Scheduled runs that failed, were missed or overlapped",
    ["job", "outcome"],
)
VERIFY_DIFFERENCES = Gauge("paqueteria_verify_differences", "Rows in which the read side was not what it should be")
VERIFIED_AT = Gauge("paqueteria_verify_last_run_timestamp_seconds", "When both sides were last compared, in Unix time")
