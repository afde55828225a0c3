"""What the monitor can't measure it calls unknown, and what is beyond its threshold it says."""

import io
import json
import math
from collections.abc import Callable

import pytest
from rich.console import Console

from db.monitoring.findings import Thresholds
from db.monitoring.report import Report, make_report, problems
from db.monitoring.service import describe
from db.monitoring.table import show, to_json
from infra.settings import Settings

WELL: Report = {
    "machine": {"disk_percent": 40.0, "memory_percent": 20.0},
    "endpoints": [{"endpoint": "/api/v1/packages", "status": 200, "ms": 3.0}],
    "pools": [{"name": "queries", "waiting": 0}],
    "cache": {"hit_rate": 0.9, "looks": 1000, "redis_up": 1.0},
    "database": {"connections": 10, "max_connections": 100},
    "jobs": [{"job": "analyze", "outcome": "done", "found": None}],
    "projection": {"warnings": {}},
    "verification": {"differences": 0},
    "old_transactions": [],
}

BEYOND: dict[str, Callable[[Report], object]] = {
    "disk: 91 % are in use": lambda report: report.update(machine={"disk_percent": 91.0, "memory_percent": 0.0}),
    "memory: 96 % are in use": lambda report: report.update(machine={"disk_percent": 0.0, "memory_percent": 96.0}),
    "/x took 1001 ms": lambda report: report.update(endpoints=[{"endpoint": "/x", "status": 200, "ms": 1001.0}]),
    "/x answers 503": lambda report: report.update(endpoints=[{"endpoint": "/x", "status": 503, "ms": 1.0}]),
    "/x can't be timed: gone": lambda report: report.update(
        endpoints=[{"endpoint": "/x", "status": None, "ms": None, "unknown": "gone"}]
    ),
    "cache: 79 % of the pages come from it": lambda report: report.update(
        cache={"hit_rate": 0.79, "looks": 100, "redis_up": 1.0}
    ),
    "cache: Redis can't be reached": lambda report: report.update(
        cache={"hit_rate": 0.1, "looks": 99, "redis_up": 0.0}
    ),
    "pool queries: 2 requests wait for a connection": lambda report: report.update(
        pools=[{"name": "queries", "waiting": 2}]
    ),
    "the service can't be asked: gone": lambda report: report.update(service={"unknown": "gone"}),
    "the database can't be asked: gone": lambda report: report.update(database={"unknown": "gone"}),
    "database: 91 of 100 connections are in use": lambda report: report.update(
        database={"connections": 91, "max_connections": 100}
    ),
    "job analyze failed: Why": lambda report: report.update(
        jobs=[{"job": "analyze", "outcome": "failed", "found": "Why"}]
    ),
    "projection: being set up": lambda report: report.update(projection={"unknown": "being set up"}),
    "parked: 2 of them": lambda report: report.update(projection={"warnings": {"parked": "2 of them"}}),
    "transaction of a report (pid 7) open for 80 s": lambda report: report.update(
        old_transactions=[{"application_name": "a report", "pid": 7, "seconds": 80.0}]
    ),
}


@pytest.mark.parametrize("said", BEYOND)
def test_what_is_beyond_its_threshold_is_said(said: str) -> None:
    """And nothing else is, of what is well."""
    report = dict(WELL)
    assert problems(report, Thresholds()) == []
    BEYOND[said](report)
    assert problems(report, Thresholds()) == [said]


@pytest.mark.anyio
async def test_what_can_not_be_measured_is_unknown(settings: Settings) -> None:
    """No service runs here, nobody is on the staff, and this server doesn't count statements: each says so itself."""
    report = await make_report(settings.model_copy(update={"port": 1}))
    assert report["slow_statements"] == {"unknown": 'pg_stat_statements must be loaded via "shared_preload_libraries"'}
    assert isinstance(report["service"], dict)
    assert "refused" in report["service"]["unknown"]
    assert isinstance(report["endpoints"], list)
    assert report["endpoints"][-1] == {
        "endpoint": "/api/v1/summary",
        "status": None,
        "ms": None,
        "unknown": "nobody is on the staff",
    }
    assert isinstance(report["tables"], list)
    assert isinstance(report["bloat"], list)
    assert len(report["bloat"]) == 10, "the largest"
    assert report["verification"] == {"unknown": "it has not run yet"}


@pytest.mark.anyio
async def test_without_a_database_the_rest_is_told(settings: Settings) -> None:
    """The machine is measured all the same, and the monitor says what it can't reach."""
    report = await make_report(settings.model_copy(update={"port": 1, "database_url": "postgresql://127.0.0.1:1/x"}))
    said = problems(report, Thresholds(disk_percent=100, memory_percent=100))
    assert any(sentence.startswith("the database can't be asked: ") for sentence in said)
    assert report["machine"]


def test_routes_are_summed_over_their_answers() -> None:
    """Failures of ours are counted among them; the one that took most of the time comes first."""
    name = "paqueteria_http_request_duration_seconds"
    told = {}
    for route, status, count, seconds in (("/a", "200", 3, 0.3), ("/a", "503", 1, 0.1), ("/b", "404", 1, 2.0)):
        labels = frozenset({"method": "GET", "route": route, "status": status}.items())
        told[f"{name}_count", labels], told[f"{name}_sum", labels] = float(count), seconds
    assert describe(told)["routes"] == [
        {"route": "GET /b", "requests": 1, "failed": 0, "seconds": 2.0, "mean_ms": 2000.0},
        {"route": "GET /a", "requests": 4, "failed": 1, "seconds": 0.4, "mean_ms": 100.0},
    ]


def test_a_program_gets_json_and_a_person_a_table() -> None:
    """An age that is infinite is null, since JSON has no word for it; what is unknown says why in either."""
    report: Report = {"views": [{"view": "fees", "age_seconds": math.inf}], "bloat": {"unknown": "not allowed"}}
    assert json.loads(to_json(report, ["late"])) == {
        "problems": ["late"],
        "views": [{"view": "fees", "age_seconds": None}],
        "bloat": {"unknown": "not allowed"},
    }
    told = io.StringIO()
    show(Console(file=told, width=100), report, ["late"])
    assert "unknown: not allowed" in told.getvalue()
    assert told.getvalue().endswith("late\n")


def test_what_a_row_is_about_is_read_whole_on_a_narrow_terminal() -> None:
    """Four tables called `packag…` tell nothing; a statement is too long for that, and goes over several lines."""
    name = "package_listing_by_announcement_index"
    figures = {f"column_{number}": 1234.5 for number in range(8)}
    report: Report = {
        "tables": [{"table": name, **figures}],
        "slow_statements": [{"statement": "word " * 20, "calls": 1200, "mean_ms": 1.5, "total_seconds": 1.8}],
    }
    told = io.StringIO()
    show(Console(file=told, width=80), report, [])
    assert name in told.getvalue()
    assert told.getvalue().count("word") == 20
