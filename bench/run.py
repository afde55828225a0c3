"""What `manage.py bench` does: measure, write down, and show."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from bench import report
from bench.machine import describe
from bench.measurement import Measurement
from bench.programs import ROOT
from bench.registry import chosen
from bench.results import Result
from bench.shops import Bench, Shops, open_shops
from infra import cli

RESULTS = ROOT / "docs" / "performance"
TRIED = ROOT / ".data" / "performance"
"""Where figures go that aren't from a full-size run: they say nothing of the bars."""


BUSY = 10.0
"""Percent: a machine that others use more than this before a measurement gives no figures worth keeping."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is asked for instead of each measurement's full size."""

    packages: int | None = None
    seconds: float | None = None
    rounds: int | None = None

    @property
    def are_full(self) -> bool:
        """Tell whether nothing was asked for."""
        return (self.packages, self.seconds, self.rounds) == (None, None, None)


async def run(names: list[str], sizes: Sizes, output: Path | None = None, kept: Path | None = None) -> None:
    """Measure what is named, and write into `output`; `kept` is a folder whose shops are there the next time."""
    measurements = chosen(names)
    folder = output or (RESULTS if sizes.are_full else TRIED)
    results = []
    with open_shops(kept) as shops:
        for index, measurement in enumerate(measurements, 1):
            cli.console.rule(f"{measurement.title} ({index} of {len(measurements)})")
            result = await measure(shops, measurement, sizes)
            report.write(folder, result)
            results.append(result)
    cli.console.print(_table(results))
    for result in results:
        if result.machine.busy_before > BUSY:
            share = f"{result.machine.busy_before:.0f} %"
            cli.console.print(
                f"[red]{result.name}: the machine was {share} busy with something else; measure it again[/]"
            )
    cli.console.print(f"Written into {folder}")


async def measure(shops: Shops, measurement: Measurement, sizes: Sizes) -> Result:
    """Take one measurement, with the machine described as it was before."""
    machine = describe(shops.postgres.dsn(), shops.valkey.url)
    packages = sizes.packages or measurement.packages
    seconds, rounds = sizes.seconds or measurement.seconds, sizes.rounds or measurement.rounds
    started = time.monotonic()
    with cli.progress() as progress:
        findings = await measurement.measure(Bench(shops, packages, seconds, rounds, progress))
    return Result(
        name=measurement.name,
        title=measurement.title,
        what=measurement.what,
        packages=packages,
        seconds=seconds,
        rounds=rounds,
        took_seconds=round(time.monotonic() - started, 1),
        machine=machine,
        findings=findings,
    )


def _table(results: Sequence[Result]) -> Table:
    table = Table("measurement", "figure", "value", "bar", "aim", "")
    for result in results:
        for index, figure in enumerate(result.findings.figures):
            verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[figure.is_met]
            name = "" if index else result.name
            table.add_row(name, figure.name, figure.measured, figure.bar, figure.aimed_at, verdict)
        for note in result.findings.notes:
            table.add_row("", f"note: {note}", "", "", "", "")
        table.add_section()
    return table
