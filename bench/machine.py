"""The machine that figures are from, described."""

import os
import platform
from pathlib import Path

import psutil
import psycopg
from redis import Redis

from bench.results import Machine
from infra.clock import system_clock


def describe(dsn: str, redis_url: str) -> Machine:
    """Describe this machine and the servers that run on it."""
    with psycopg.connect(dsn) as conn, Redis.from_url(redis_url) as redis:
        return Machine(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            kernel=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            postgresql=conn.info.parameter_status("server_version") or "unknown",
            valkey=str(redis.info("server").get("valkey_version", "unknown")),
            started_at=system_clock().isoformat(timespec="seconds"),
            busy_before=psutil.cpu_percent(interval=1),
        )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
