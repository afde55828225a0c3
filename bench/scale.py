"""What grows with the shop and with the workers: cost, throughput, memory."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

import psutil

from bench.http import PAST_CACHES
from bench.load import Load
from bench.lookups import addresses
from bench.measurement import Measurement, Variant, in_turn
from bench.pages import rate
from bench.programs import projecting, served
from bench.reading import LISTING, Readers, reading_shop
from bench.results import Figure, Findings, Plot, Series, median, ratio
from bench.shops import Bench
from bench.traffic import sign_in
from db.pools import connect

WORKERS = (1, 2, 4)

CUSTOMERS = "SELECT customer_id::text FROM customer_listing ORDER BY md5(customer_id::text) LIMIT 3000"

MIB = 2**20


async def cost_by_size(bench: Bench) -> Findings:
    """Ask for the same cold answers in shops of a hundredth, a tenth and the whole size."""
    sizes = [bench.packages // 100, bench.packages // 10, bench.packages]
    loads: dict[str, dict[int, list[Load]]] = {}
    async with AsyncExitStack() as stack:
        shops = {size: await stack.enter_async_context(reading_shop(bench, size)) for size in sizes}
        for _ in bench.each_round("rounds, a shop after the other"):
            for size, readers in shops.items():
                for name, paths in (await _asked(readers)).items():
                    load = await readers.drive(paths, bench.seconds, PAST_CACHES)
                    loads.setdefault(name, {}).setdefault(size, []).append(load)
    cold = {size: [load.p99 for load in of_size] for size, of_size in loads["cold page"].items()}
    small, _, large = sizes
    growth = (
        ratio(
            f"{name}: cost at {large:,} packages over {small:,}",
            [1 / load.rate for load in by_size[large]],
            [1 / load.rate for load in by_size[small]],
        )
        for name, by_size in loads.items()
    )
    named = f"cold page, p99, {large:,} packages over {small:,}"
    return Findings(
        figures=[
            ratio(named, cold[large], cold[small], at_most=1.5, aim=1.1),
            *growth,
            *(
                median(f"{name}, {size:,} packages", [load.rate for load in of_size], "/s")
                for name, by_size in loads.items()
                for size, of_size in by_size.items()
            ),
        ],
        plots=[
            Plot(
                title="Cost as the shop grows",
                x_label="packages",
                y_label="ms an answer, 16 at a time",
                series=[_by_size(name, by_size) for name, by_size in loads.items()],
                x_scale="log",
            )
        ],
    )


def _by_size(name: str, by_size: dict[int, list[Load]]) -> Series:
    costs = [median(name, [1000 / load.rate for load in loads], "ms").value for loads in by_size.values()]
    return Series(label=name, x=[float(size) for size in by_size], y=costs)


async def _asked(readers: Readers) -> dict[str, Sequence[str]]:
    return {
        "cold page": [LISTING],
        "in storage by what is owed": [f"{LISTING}?status=RECEIVED&sort=owed"],
        "lookup by guide": await addresses(readers.settings, "guide"),
        "search for a common word": [f"{LISTING}?q=garcia"],
    }


async def by_workers(bench: Bench) -> Findings:
    """Serve one shop by one, two and four workers, and ask each for hot and for cold pages in turn."""
    async with bench.open() as settings, AsyncExitStack() as stack:
        token = await sign_in(settings)
        await stack.enter_async_context(projecting(settings))
        variants: dict[str, Variant] = {}
        for workers in WORKERS:
            server = await stack.enter_async_context(served(settings, "queries", workers))
            readers = Readers(server.settings, token)
            variants[f"hot page, {workers} workers"] = partial(rate, readers, LISTING, bench.seconds)
            variants[f"cold page, {workers} workers"] = partial(rate, readers, LISTING, bench.seconds, PAST_CACHES)
        rates = await in_turn(variants, bench.rounds, bench.report)
    kinds = ("hot page", "cold page")
    ratios = [
        ratio(f"{kind}: {workers} workers over one", rates[f"{kind}, {workers} workers"], rates[f"{kind}, 1 workers"])
        for kind in kinds
        for workers in WORKERS[1:]
    ]
    figures = [median(name, values, "/s") for name, values in rates.items()]
    series = [
        Series(
            label=kind,
            x=[float(workers) for workers in WORKERS],
            y=[median(kind, rates[f"{kind}, {workers} workers"], "/s").value for workers in WORKERS],
        )
        for kind in kinds
    ]
    plot = Plot(title="Throughput by workers", x_label="workers", y_label="answers a second", series=series)
    return Findings(figures=[*ratios, *figures], plots=[plot])


async def memory(bench: Bench) -> Findings:
    """Let one worker answer all kinds of questions, and look at what it holds afterwards."""
    async with bench.open() as settings:
        token = await sign_in(settings)
        async with await connect(settings.postgres_dsn, "bench") as conn:
            customers = [customer_id for (customer_id,) in await (await conn.execute(CUSTOMERS)).fetchall()]
        async with projecting(settings), served(settings, "all") as server:
            readers, worker = Readers(server.settings, token), psutil.Process(server.process.pid)
            at_first = worker.memory_info().rss / MIB
            paths = [
                *(f"{LISTING}?customer_id={customer_id}" for customer_id in customers),
                *(f"{LISTING}?sort={sort}&limit={limit}" for sort in ("newest", "oldest") for limit in range(1, 101)),
                *(f"{LISTING}?sort={sort}&limit={limit}" for sort in ("owed", "days") for limit in range(1, 101)),
                *(f"{LISTING}?q={quote(words)}" for words in ("garcia", "maria", "xiques", "3001", "lo")),
                *await addresses(settings, "guide"),
                *await addresses(settings, "phone"),
            ]
            held = []
            for _ in bench.each_round(f"rounds of {len(paths)} questions"):
                await readers.drive(paths, bench.seconds)
                held.append(worker.memory_info().rss / MIB)
    most = Figure(name="memory of one worker, the most of it", value=max(held), unit="MiB", rounds=held)
    return Findings(
        figures=[
            most.model_copy(update={"at_most": 150, "aim": 100}),
            Figure(name="memory of one worker at first", value=at_first, unit="MiB"),
            Figure(name="different questions", value=len(paths)),
        ]
    )


MEASUREMENTS = (
    Measurement(
        "cost-by-size",
        "Cost as the shop grows",
        "The same cold answers in shops of 10,000, 100,000 and 1,000,000 packages. One worker each, 16 connections.",
        cost_by_size,
        packages=1_000_000,
        seconds=3,
    ),
    Measurement(
        "workers",
        "Workers",
        "Hot and cold pages by one, two and four workers on the same two cores, which the load generator and the"
        " servers share with them. 16 connections.",
        by_workers,
    ),
    Measurement(
        "memory",
        "Memory of one worker",
        "One worker serves both APIs in a shop of 1,000,000 packages, and is asked for some 4,000 different pages and"
        " lookups, again and again by 16 connections: its resident memory after each round.",
        memory,
        packages=1_000_000,
    ),
)
