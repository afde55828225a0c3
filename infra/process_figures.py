"""What a process takes of its machine, told while it runs."""

import asyncio

import psutil

from infra import metrics

EVERY = 1.0
"""Seconds between two looks."""


async def report(role: str) -> None:
    """Keep the figures of this process true, until cancelled."""
    process = psutil.Process()
    computed = 0.0
    metrics.PROCESSES.labels(role).set(1)
    while True:
        with process.oneshot():
            times = process.cpu_times()
            metrics.PROCESS_BYTES.labels(role).set(process.memory_info().rss)
        metrics.PROCESS_CPU_SECONDS.labels(role).inc(times.user + times.system - computed)
        computed = times.user + times.system
        await asyncio.sleep(EVERY)
