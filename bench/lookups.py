"""What a scanner finds: by each kind of code, beside the bare statement."""

from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

from bench.measurement import Measurement, Variant, in_turn
from bench.reading import Readers, reading_peer, reading_shop
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench
from db.pools import connect
from infra.settings import Settings

EACH = 500
"""Codes of each kind, asked for in turn."""

KINDS = {
    "code": "tracking_code",
    "guide": "guide_number",
    "phone": "customer_phone",
    "position": '"position"',
}

SAMPLE = """
SELECT {column} FROM package_listing WHERE {column} IS NOT NULL ORDER BY md5(package_id::text) LIMIT %(count)s
"""


async def addresses(settings: Settings, kind: str) -> list[str]:
    """Choose codes of a kind all over the shop, and write the addresses that look them up."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        statement = SAMPLE.format(column=KINDS[kind]).encode()
        rows = await (await conn.execute(statement, {"count": EACH})).fetchall()
    return [f"/lookup?q={quote(code)}" for (code,) in rows]


async def lookup(bench: Bench) -> Findings:
    """Look codes up, each kind in turn, through the service and by the statement alone."""
    async with AsyncExitStack() as stack:
        readers = await stack.enter_async_context(reading_shop(bench))
        asked = {kind: await addresses(readers.settings, kind) for kind in KINDS}
        every = [path for paths in asked.values() for path in paths]
        peer = await stack.enter_async_context(reading_peer(readers.settings, "one_statement", addresses=every))
        variants: dict[str, Variant] = {}
        for kind, paths in asked.items():
            variants[f"by {kind}"] = partial(_rate, readers, paths, bench.seconds)
            variants[f"by {kind}, one bare statement"] = partial(_rate, peer, paths, bench.seconds)
        rates = await in_turn(variants, bench.rounds, bench.report)
    ratios = [
        ratio(
            f"lookup by {kind} over one bare statement",
            rates[f"by {kind}"],
            rates[f"by {kind}, one bare statement"],
            at_least=0.6,
            aim=0.8,
        )
        for kind in KINDS
    ]
    return Findings(
        figures=[*ratios, *(median(name, values, "/s") for name, values in rates.items())],
        plots=[rounds_plot("Lookups", "answers a second", rates)],
    )


async def _rate(readers: Readers, paths: list[str], seconds: float) -> float:
    return (await readers.drive(paths, seconds)).rate


MEASUREMENTS = (
    Measurement(
        "lookup",
        "Lookups",
        "Parcels by their code, guide, customer's phone and position, 500 different ones of each; and by a bare ASGI"
        " application that passes on the same prepared statement's JSON. One worker each, 16 connections.",
        lookup,
        seconds=5,
    ),
)
