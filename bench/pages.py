"""A page of the listing: hot, cold, and deep, each beside what else could answer it."""

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

from bench.http import PAST_CACHES
from bench.measurement import Measurement, in_turn
from bench.reading import LISTING, Readers, keep_page, reading_peer, reading_shop
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench

DEEP = 10_000
"""The page that is turned to, one after the other."""

ROWS = 9
"""Rows of a page there, so that a shop of 100,000 packages has it."""

STEP = 100
"""Rows of the pages that are turned over on the way."""


async def rate(readers: Readers, path: str, seconds: float, headers: Mapping[str, str] | None = None) -> float:
    """Give the answers a second to one question."""
    return (await readers.drive([path], seconds, headers)).rate


async def hot_page(bench: Bench) -> Findings:
    """Ask for one page again and again."""
    async with AsyncExitStack() as stack:
        readers = await stack.enter_async_context(reading_shop(bench))
        etag = (await readers.get(LISTING)).headers["etag"]
        page = str(await keep_page(readers, LISTING))
        peers = {
            "bare bytes": await stack.enter_async_context(reading_peer(readers.settings, "constant", page=page)),
            "one Redis GET": await stack.enter_async_context(reading_peer(readers.settings, "one_get", page=page)),
            "the design of today, cached": await stack.enter_async_context(
                reading_peer(readers.settings, "present_design")
            ),
        }
        variants = {
            "the hot page": partial(rate, readers, LISTING, bench.seconds),
            "304": partial(rate, readers, LISTING, bench.seconds, {"If-None-Match": etag}),
            **{name: partial(rate, peer, LISTING, bench.seconds) for name, peer in peers.items()},
        }
        rates = await in_turn(variants, bench.rounds, bench.report)
        source = (await readers.get(LISTING)).headers["x-cache"]
    hot, unchanged, bare, get, today = rates.values()
    return Findings(
        figures=[
            ratio("hot page over bare bytes", hot, bare, at_least=0.7, aim=0.85),
            ratio("hot page over the design of today, cached", hot, today, at_least=60, aim=90),
            ratio("304 over bare bytes", unchanged, bare, at_least=0.7, aim=1),
            ratio("hot page over one Redis GET", hot, get),
            ratio("bare bytes over the design of today, cached", bare, today),
            *(median(name, values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot("The hot page", "answers a second", rates)],
        notes=[
            f"The page came from {source}.",
            "How far bare bytes are from the design of today is about how far any page can be.",
        ],
    )


async def cold_page(bench: Bench) -> Findings:
    """Have the same page computed again and again."""
    async with AsyncExitStack() as stack:
        readers = await stack.enter_async_context(reading_shop(bench))
        statement = await stack.enter_async_context(
            reading_peer(readers.settings, "one_statement", addresses=[f"/api/v1{LISTING}"])
        )
        today = await stack.enter_async_context(reading_peer(readers.settings, "present_design"))
        variants = {
            "the cold page": partial(rate, readers, LISTING, bench.seconds, PAST_CACHES),
            "one bare statement": partial(rate, statement, LISTING, bench.seconds),
            "the design of today, uncached": partial(rate, today, LISTING, bench.seconds, PAST_CACHES),
            "the design of today, loading every row": partial(_once, today, "/every-package"),
        }
        rates = await in_turn(variants, bench.rounds, bench.report)
    cold, bare, page, every = rates.values()
    return Findings(
        figures=[
            ratio("cold page over one bare statement", cold, bare, at_least=0.6, aim=0.8),
            ratio("cold page over the design of today, uncached", cold, page, at_least=20, aim=30),
            ratio("cold page over the design of today, loading every row", cold, every),
            *(median(name, values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot("The cold page", "answers a second", rates)],
    )


async def _once(readers: Readers, path: str) -> float:
    """Give the answers a second of what takes seconds for one."""
    started = time.perf_counter()
    await readers.get(path)
    return 1 / (time.perf_counter() - started)


async def deep_page(bench: Bench) -> Findings:
    """Turn to a late page once, and ask for it and for the first one in turn."""
    async with reading_shop(bench) as readers:
        deep = min(DEEP, bench.packages // ROWS)
        cursor = await _turn_to(readers, deep, bench)
        paths = {
            "page 1": f"{LISTING}?limit={ROWS}",
            f"page {deep:,}": f"{LISTING}?limit={ROWS}&cursor={quote(cursor)}",
        }
        variants = {name: partial(rate, readers, path, bench.seconds, PAST_CACHES) for name, path in paths.items()}
        rates = await in_turn(variants, bench.rounds, bench.report)
    first, late = rates.values()
    return Findings(
        figures=[
            ratio(f"cost of page {deep:,} over page 1", first, late, at_most=1.5, aim=1.1),
            *(median(name, values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot("A page by its cursor", "answers a second", rates)],
    )


async def _turn_to(readers: Readers, page: int, bench: Bench) -> str:
    """Follow the cursors to the page of this number, and give its cursor."""
    cursor, behind, ahead = "", 0, (page - 1) * ROWS
    while behind < ahead:
        step = min(STEP, ahead - behind)
        after = f"&cursor={quote(cursor)}" if cursor else ""
        cursor = (await readers.get(f"{LISTING}?limit={step}{after}", PAST_CACHES)).json()["next_cursor"]
        behind += step
        bench.report(f"rows on the way to page {page:,}", behind, ahead)
    return cursor


MEASUREMENTS = (
    Measurement(
        "hot-page",
        "The hot page",
        "The newest 50 parcels, asked for again and again by somebody who is signed in, with and without the ETag; the"
        " same bytes by a bare ASGI application from memory, and by one through a Redis GET; the same rows by the"
        " design of today from its cache (FastAPI, 30 s in Redis). One worker each, 16 connections.",
        hot_page,
    ),
    Measurement(
        "cold-page",
        "The cold page",
        "The newest 50 parcels, computed anew each time; by a bare ASGI application that passes on the same prepared"
        " statement's JSON; by the design of today past its cache (SQLAlchemy, OFFSET and LIMIT, priced in Python), and"
        " as it was before, loading and pricing every row (one request a round). One worker each, 16 connections.",
        cold_page,
    ),
    Measurement(
        "deep-page",
        "The 10,000th page",
        "Pages of 9 rows, the first one and the 10,000th by its cursor, computed anew each time. 16 connections.",
        deep_page,
    ),
)
