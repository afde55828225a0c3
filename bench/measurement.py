"""What a measurement is: a name, a size, and a function that gives figures."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench.results import Findings
from bench.shops import Bench, Report

Measure = Callable[[Bench], Awaitable[Findings]]
Variant = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured, at its full size; `seconds` is how long each part of it lasts."""

    name: str
    title: str
    what: str
    measure: Measure
    packages: int = 100_000
    seconds: float = 10
    rounds: int = 5


async def in_turn(variants: Mapping[str, Variant], rounds: int, report: Report) -> dict[str, list[float]]:
    """Measure one variant after the other, A B A B…, so that what changes meanwhile changes for all of them."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    what = f"rounds, {len(variants)} variants in turn"
    report(what, 0, rounds)
    for done in range(1, rounds + 1):
        for name, variant in variants.items():
            measured[name].append(await variant())
        report(what, done, rounds)
    return measured
