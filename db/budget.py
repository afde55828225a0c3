"""Whether the connections that all processes may open fit into what PostgreSQL allows."""

import psycopg

from infra.errors import ConfigurationError
from infra.settings import Settings

POOLS = 2
LISTENERS = 4
"""The change signal, the checkpoint's watcher, the health watch, and with standbys that of their lag."""

PROJECTOR = 11
"""Connections of the projector, its standby and its jobs, and of one command line beside them."""


def check_budget(settings: Settings, workers: int) -> None:
    """Refuse a start that could run out of connections under load. Raises ConfigurationError."""
    wanted = workers * (POOLS * settings.pool_max + LISTENERS) + PROJECTOR
    with psycopg.connect(settings.postgres_dsn, connect_timeout=5) as conn:
        row = conn.execute(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        ).fetchone()
    allowed = row[0] if row else 0
    if wanted > allowed:
        raise ConfigurationError(
            f"{workers} workers with POOL_MAX {settings.pool_max} may open {wanted} connections, and PostgreSQL"
            f" allows {allowed}: lower WORKERS or POOL_MAX, or raise max_connections"
        )
