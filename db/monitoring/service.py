"""What the running service tells and how long it takes to answer, asked from outside."""

import http.client
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from db import cache_health
from db.monitoring.findings import Row, Section, rows, unknown
from db.pool_figures import read_pools
from db.pools import Connection
from infra.auth import Session, encode_session
from infra.exposition import Samples
from infra.settings import Settings

PATIENCE = 10.0
"""Seconds after which an endpoint is taken for one that doesn't answer."""

PUBLIC = ("/health/live", "/health/ready", "/api/v1/sites", "/api/v1/tariffs")
OF_STAFF = (
    "/api/v1/packages",
    "/api/v1/packages?status=RECEIVED&sort=owed",
    "/api/v1/packages?q=ana",
    "/api/v1/lookup?q=300",
    "/api/v1/customers?q=ana",
    "/api/v1/sites/PRINCIPAL/positions",
    "/api/v1/summary",
)

SOMEBODY = "SELECT staff_id, session_generation FROM staff WHERE active ORDER BY role DESC, staff_id LIMIT 1"

DURATIONS = "paqueteria_http_request_duration_seconds"


async def sign_in(conn: Connection, settings: Settings, now: datetime) -> dict[str, str]:
    """Speak for whoever of the staff may do least, so as to ask what they may read; nothing where there is nobody."""
    found = await rows(conn, SOMEBODY)
    if not found:
        return {}
    session = Session(found[0]["staff_id"], found[0]["session_generation"])
    return {"Authorization": f"Bearer {encode_session(session, settings.signing_key(), now)}"}


def time_endpoints(settings: Settings, headers: dict[str, str]) -> list[Row]:
    """Ask each endpoint once, past the caches; with nobody to speak for, those of staff are unknown."""
    asked = [_time(settings, path, headers) for path in PUBLIC]
    reason = unknown("nobody is on the staff")
    return asked + [
        _time(settings, path, headers) if headers else {"endpoint": path, "status": None, "ms": None, **reason}
        for path in OF_STAFF
    ]


def _time(settings: Settings, path: str, headers: dict[str, str]) -> Row:
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=PATIENCE)
    started = time.perf_counter()
    try:
        connection.request("GET", path, headers=headers | {"Cache-Control": "no-store"})
        answer = connection.getresponse()
        size = len(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return {"endpoint": path, "status": None, "ms": None, **unknown(repr(error))}
    finally:
        connection.close()
    return {
        "endpoint": path,
        "status": answer.status,
        "ms": round((time.perf_counter() - started) * 1000, 1),
        "bytes": size,
    }


def read_metrics(settings: Settings) -> Samples:
    """Read `/metrics` of the service; raises OSError or HTTPException where it doesn't answer."""
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def describe(told: Samples) -> dict[str, Section]:
    """Give what the service says of its routes, pools, caches and processes."""
    return {
        "routes": _routes(told),
        "pools": [asdict(pool) for pool in read_pools(told)],
        "cache": {
            "hit_rate": cache_health.hit_rate(told),
            "looks": cache_health.counted(told),
            "l1_pages": _value(told, "page_cache_l1_pages"),
            "l1_bytes": _value(told, "page_cache_l1_bytes"),
            "l1_evictions": _value(told, "page_cache_l1_evictions_total"),
            "redis_up": _value(told, "redis_up"),
            "redis_memory_bytes": _value(told, "redis_memory_bytes"),
            "redis_memory_limit_bytes": _value(told, "redis_memory_limit_bytes"),
            "redis_keys": _value(told, "redis_keys"),
            "redis_evicted": _value(told, "redis_evicted_keys_total"),
        },
        "processes": [
            {
                "role": role,
                "processes": _value(told, "processes", role=role),
                "memory_bytes": _value(told, "process_memory_bytes", role=role),
                "cpu_seconds": _value(told, "process_cpu_seconds_total", role=role),
            }
            for role in sorted(_labels(told, "paqueteria_processes", "role"))
        ],
    }


def _value(told: Samples, name: str, **labels: str) -> float | None:
    return told.get((f"paqueteria_{name}", frozenset(labels.items())))


def _labels(told: Samples, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for told_name, labels in told if told_name == name}


def _routes(told: Samples) -> list[Row]:
    """Sum up what each route has answered since the service was started, the one that took most time first."""
    found: dict[tuple[str, str], Row] = {}
    for (name, labels), value in told.items():
        if name not in (f"{DURATIONS}_count", f"{DURATIONS}_sum"):
            continue
        of: dict[str, Any] = dict(labels)
        row = found.setdefault((of["method"], of["route"]), {"requests": 0.0, "failed": 0.0, "seconds": 0.0})
        if name.endswith("_sum"):
            row["seconds"] += value
            continue
        row["requests"] += value
        row["failed"] += value if of["status"].startswith("5") else 0
    return [
        {"route": f"{method} {route}", **row, "mean_ms": round(1000 * row["seconds"] / row["requests"], 1)}
        for (method, route), row in sorted(found.items(), key=lambda item: -item[1]["seconds"])
        if row["requests"]
    ]
