"""The whole service at one moment, and what of it is a problem."""

import asyncio
import http.client
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import psycopg

from db.monitoring import database, service
from db.monitoring.findings import Row, Section, Thresholds, is_known, unknown
from db.pools import Connection, connect
from db.projection_health import measure, old_transactions, warnings
from infra.errors import Unavailable
from infra.machine import measure_machine
from infra.settings import Settings

SESSION = "SELECT set_config('statement_timeout', '20s', false), set_config('search_path', 'public, monitoring', false)"

ENOUGH_LOOKS = 100
"""Looks at the caches before a low share of hits says anything."""

Report = dict[str, Section]


async def make_report(settings: Settings) -> Report:
    """Measure everything that can be measured now."""
    machine = asyncio.create_task(asyncio.to_thread(measure_machine, settings.data_dir))
    headers: dict[str, str] = {}
    try:
        async with await connect(settings.postgres_dsn, "monitor") as conn:
            await conn.execute(SESSION)
            headers = await service.sign_in(conn, settings, datetime.now(UTC))
            told = await database.describe(conn) | await _projection(conn, settings)
    except (psycopg.Error, OSError) as error:
        told = {"database": unknown(error)}
    return {
        "machine": await machine,
        "endpoints": await asyncio.to_thread(service.time_endpoints, settings, headers),
        **await asyncio.to_thread(_service, settings),
        **told,
    }


def _service(settings: Settings) -> dict[str, Section]:
    try:
        return service.describe(service.read_metrics(settings))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"service": unknown(repr(error))}


async def _projection(conn: Connection, settings: Settings) -> dict[str, Section]:
    now = datetime.now(UTC)
    try:
        health = await measure(conn, now)
    except Unavailable as error:
        return {"projection": unknown(error)}
    old: list[Row] = [asdict(one) for one in await old_transactions(conn)]
    projection: dict[str, Any] = asdict(health) | {
        "lag_changes": health.lag,
        "warnings": warnings(health, settings.fees_refresh_seconds),
    }
    views = [{"view": name, **view} for name, view in projection.pop("views").items()]
    verification = projection.pop("verification") or unknown("it has not run yet")
    return {"projection": projection, "views": views, "verification": verification, "old_transactions": old}


def problems(report: Report, thresholds: Thresholds) -> list[str]:
    """Say what is beyond its threshold, a sentence each; what can't be known of service or database is one too."""
    said = [
        *_of_machine(report, thresholds),
        *_of_endpoints(report, thresholds),
        *_of_service(report, thresholds),
        *_of_database(report, thresholds),
        *_of_projection(report),
    ]
    return list(dict.fromkeys(said))


def _of_machine(report: Report, most: Thresholds) -> Iterator[str]:
    machine = _row(report, "machine")
    for name, limit in (("disk", most.disk_percent), ("memory", most.memory_percent)):
        if machine[f"{name}_percent"] > limit:
            yield f"{name}: {machine[f'{name}_percent']:.0f} % are in use"


def _of_endpoints(report: Report, most: Thresholds) -> Iterator[str]:
    for row in _rows(report, "endpoints"):
        if row["status"] is None:
            yield f"{row['endpoint']} can't be timed: {row['unknown']}"
        elif row["status"] >= http.client.BAD_REQUEST:
            yield f"{row['endpoint']} answers {row['status']}"
        elif row["ms"] > most.slow_ms:
            yield f"{row['endpoint']} took {row['ms']:.0f} ms"


def _of_service(report: Report, least: Thresholds) -> Iterator[str]:
    if "service" in report:
        yield f"the service can't be asked: {_row(report, 'service')['unknown']}"
        return
    hit_rate = _row(report, "cache")["hit_rate"]
    if hit_rate is not None and hit_rate < least.hit_rate and _row(report, "cache")["looks"] >= ENOUGH_LOOKS:
        yield f"cache: {100 * hit_rate:.0f} % of the pages come from it"
    if not _row(report, "cache")["redis_up"]:
        yield "cache: Redis can't be reached"
    for pool in _rows(report, "pools"):
        if pool["waiting"]:
            yield f"pool {pool['name']}: {pool['waiting']} requests wait for a connection"


def _of_database(report: Report, most: Thresholds) -> Iterator[str]:
    database = report["database"]
    if not is_known(database):
        yield f"the database can't be asked: {_row(report, 'database')['unknown']}"
        return
    used = _row(report, "database")
    if 100 * used["connections"] > most.connections_percent * used["max_connections"]:
        yield f"database: {used['connections']} of {used['max_connections']} connections are in use"
    for job in _rows(report, "jobs"):
        if job["outcome"] == "failed":
            yield f"job {job['job']} failed: {job['found']}"


def _of_projection(report: Report) -> Iterator[str]:
    if not is_known(report.get("projection", {})):
        yield f"projection: {_row(report, 'projection')['unknown']}"
    for name, sentence in _row(report, "projection").get("warnings", {}).items():
        yield f"{name}: {sentence}"
    for old in _rows(report, "old_transactions"):
        yield f"transaction of {old['application_name']} (pid {old['pid']}) open for {old['seconds']:.0f} s"


def _row(report: Report, name: str) -> Row:
    section = report.get(name, {})
    return section if isinstance(section, dict) else {}


def _rows(report: Report, name: str) -> list[Row]:
    section = report.get(name, [])
    return section if isinstance(section, list) else []
