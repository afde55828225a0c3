"""How long until a change shows: under a steady load, and beside a change of ten thousand rows."""

import asyncio
import os
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.http import Client
from bench.measurement import Measurement
from bench.observer import observing
from bench.processors import accounting
from bench.programs import projecting, served, serving
from bench.results import Figure, Findings, Plot, distribution, percentile
from bench.shops import Bench
from bench.traffic import sign_in, write
from db.pools import connect
from infra.errors import ConfigurationError
from infra.settings import Settings
from projections.rebuild import rebuild

RATE = 200.0
WARM_UP = 5.0
HISTOGRAM = "paqueteria_projection_commit_to_visible_seconds"
PROMISED = 0.02

FAN_OUT = 10_000
RATE_BESIDE = 100.0
RECOVERY = 5.0
"""Seconds between two changes of the large customer."""

GIVE_PACKAGES = """
WITH customer AS (INSERT INTO customers (name) VALUES ('Cliente Grande') RETURNING customer_id),
taken AS (SELECT package_id FROM packages WHERE status = 'DELIVERED' ORDER BY package_id LIMIT %(count)s)
UPDATE packages AS p SET customer_id = c.customer_id FROM customer AS c, taken AS t WHERE p.package_id = t.package_id
RETURNING c.customer_id::text
"""

COUNT_SHOWN = "SELECT count(*) FROM package_listing WHERE customer_id = %(id)s AND customer_name = %(name)s"


async def commit_to_visible(bench: Bench) -> Findings:
    """Write at RATE, and compare the server's commit instants with when an observer saw the changes."""
    async with bench.open() as settings:
        token = await sign_in(settings)
        async with projecting(settings) as projector, served(settings, "commands") as server:
            api = server.settings
            await write(api, token, RATE, WARM_UP)
            parties = {
                "the write API": server.process.pid,
                "the projector": projector.process.pid,
                **bench.shops.servers,
                "the load generator": os.getpid(),
            }
            async with observing(settings) as observer:
                bench.report(f"{RATE:.0f} commands a second", 0, 1)
                with accounting(parties) as usage:
                    sent = await write(api, token, RATE, bench.seconds)
                await asyncio.sleep(1)
                delays = list((await observer.delays(settings)).values())
                bench.report(f"{RATE:.0f} commands a second", 1, 1)
    buckets = read_buckets(projector.metrics)
    rate = len(sent.at) / (max(sent.at) - min(sent.at))
    return Findings(
        figures=[
            Figure(name="commit to visible, p99", value=percentile(delays, 99), unit="ms", at_most=20),
            Figure(name="commit to visible, p50", value=percentile(delays, 50), unit="ms"),
            Figure(name="commit to visible, longest", value=max(delays), unit="ms"),
            Figure(name="the metric's p99, from a change's instant", value=quantile(buckets, 0.99) * 1000, unit="ms"),
            Figure(name="the metric's share within 20 ms", value=100 * share_within(buckets, PROMISED), unit="%"),
            Figure(name="commands sent", value=rate, unit="/s", at_least=0.98 * RATE),
            Figure(name="commands that failed", value=len(sent.faults), at_most=0),
            Figure(
                name="accepted commands that never showed",
                value=len(sent.at) - len(sent.faults) - len(delays),
                at_most=0,
            ),
            Figure(name="a command's answer, p99", value=percentile(sent.took, 99), unit="ms"),
            *usage.figures(len(sent.at), "a command"),
        ],
        plots=[
            Plot(
                title="From commit to visible",
                x_label="ms",
                y_label="% of commands",
                series=[distribution(f"{len(delays)} commands at {RATE:.0f}/s", delays)],
                x_scale="log",
            )
        ],
        notes=sent.faults[:3],
    )


def read_buckets(metrics: Path) -> list[tuple[float, float]]:
    """Read the histogram's bounds in seconds, each with how many didn't exceed it."""
    families = text_string_to_metric_families(metrics.read_text())
    samples = (sample for family in families if family.name == HISTOGRAM for sample in family.samples)
    return [(float(s.labels["le"]), s.value) for s in samples if s.name == f"{HISTOGRAM}_bucket"]


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """Estimate as Prometheus does: by a straight line within the bucket where the share is reached."""
    wanted = share * buckets[-1][1]
    below, fewer = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > fewer:
            return below if bound == float("inf") else below + (bound - below) * (wanted - fewer) / (count - fewer)
        below, fewer = bound, count
    return below


def share_within(buckets: list[tuple[float, float]], seconds: float) -> float:
    """Tell the share of what didn't take longer; `seconds` is one of the bounds."""
    total = buckets[-1][1]
    return dict(buckets)[seconds] / total if total else 0.0


async def fan_out(bench: Bench) -> Findings:
    """Change a customer of many packages again and again, while others' commands go on."""
    async with bench.open() as settings:
        token = await sign_in(settings)
        customer_id = await _make_large_customer(settings)
        spans: list[tuple[float, float]] = []
        async with projecting(settings), serving(settings, "commands") as api:
            await write(api, token, RATE_BESIDE, WARM_UP)
            async with observing(settings) as observer, asyncio.TaskGroup() as group:
                seconds = bench.rounds * (RECOVERY + bench.seconds)
                writing = group.create_task(write(api, token, RATE_BESIDE, seconds))
                for number in range(bench.rounds):
                    bench.report("changes of 10,000 rows", number, bench.rounds)
                    await asyncio.sleep(RECOVERY)
                    spans.append(await _change_and_wait(api, token, customer_id, f"Cliente Grande {number}"))
                bench.report("changes of 10,000 rows", bench.rounds, bench.rounds)
                sent = await writing
                await asyncio.sleep(1)
                delays = await observer.delays(settings, without=("CustomerChanged",))
            committed_at = {xid: (observer.visible_at(xid) or 0) - delay / 1000 for xid, delay in delays.items()}
    beside = [d for xid, d in delays.items() if any(begun <= committed_at[xid] < end for begun, end in spans)]
    calm = [d for xid, d in delays.items() if not any(begun <= committed_at[xid] < end for begun, end in spans)]
    took = [end - begun for begun, end in spans]
    return Findings(
        figures=[
            Figure(
                name="others' commit to visible meanwhile, p99", value=percentile(beside, 99), unit="ms", at_most=100
            ),
            Figure(name="others' commit to visible meanwhile, p50", value=percentile(beside, 50), unit="ms"),
            Figure(name="others' commit to visible otherwise, p99", value=percentile(calm, 99), unit="ms"),
            Figure(name="until all 10,000 rows show", value=percentile(took, 50), unit="s", rounds=took),
            Figure(name="others' commands meanwhile", value=len(beside)),
            Figure(name="commands that failed", value=len(sent.faults), at_most=0),
        ],
        plots=[
            Plot(
                title="Others' commit to visible, beside a change of 10,000 rows",
                x_label="ms",
                y_label="% of commands",
                series=[distribution("meanwhile", beside), distribution("otherwise", calm)],
                x_scale="log",
            )
        ],
        notes=sent.faults[:3],
    )


async def _make_large_customer(settings: Settings) -> str:
    async with await connect(settings.postgres_dsn, "bench") as conn:
        rows = await (await conn.execute(GIVE_PACKAGES, {"count": FAN_OUT})).fetchall()
    if len(rows) < FAN_OUT:
        raise ConfigurationError(f"The shop has only {len(rows)} packages for a customer of {FAN_OUT}")
    await rebuild(settings)
    return str(rows[0][0])


async def _change_and_wait(api: Settings, token: str, customer_id: str, name: str) -> tuple[float, float]:
    """Give the instants at which the change was sent and at which its last row showed."""
    async with Client(api, token) as client, await connect(api.postgres_dsn, "bench") as conn:
        begun = time.time()
        answer = await client.request("PATCH", f"/customers/{customer_id}", {"name": name})
        if not answer.is_good:
            raise ConfigurationError(f"The customer could not be changed: {answer.status}")
        shown = 0
        while shown < FAN_OUT:
            await asyncio.sleep(0.02)
            row = await (await conn.execute(COUNT_SHOWN, {"id": customer_id, "name": name})).fetchone()
            shown = int(row[0]) if row else 0
        return begun, time.time()


MEASUREMENTS = (
    Measurement(
        "commit-to-visible",
        "From commit to visible",
        "200 commands a second (parcels' whole lives) through the write API in a process of its own, the projector in"
        " another. For each command, the time from the server's own commit timestamp until an observer, listening as a"
        " waiting reader does, has read a checkpoint that includes it.",
        commit_to_visible,
        seconds=60,
    ),
    Measurement(
        "fan-out",
        "Others, while one change makes 10,000 rows dirty",
        "A customer with 10,000 packages is renamed, again and again, while 100 other commands a second go on.",
        fan_out,
        seconds=5,
    ),
)
