"""Results on paper: one JSON file a measurement, its plots as SVG, and one Markdown page of all there are."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogFormatter, MaxNLocator
from pydantic import ValidationError

from bench.results import Figure, Plot, Result, number
from infra.errors import ConfigurationError

MARKS = {True: "met", False: "**missed**", None: ""}

HEAD = """# Performance

Written by `make bench`, from the files in `results/`; don't edit it. `make bench ARGS="NAME …"` measures again what is
named, and leaves the rest as it is. Where something is compared, it was measured in turn in one run; a figure of
several rounds is their median unless it says otherwise. Absolute figures are this machine's, and mean little elsewhere.
Where a rate is measured, wrk (Debian: `apt-get install wrk`) sends the requests, from the same machine. Peers are small
applications in `bench/peers/`, served by one uvicorn worker as the product is, and asked for the same.
"""


def write(folder: Path, result: Result) -> None:
    """Write a measurement's files, in place of those from before, and the page anew."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{result.name}.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for index, plot in enumerate(result.findings.plots, 1):
        draw(plot, results / plot_name(result, index))
    (folder / "README.md").write_text(page(read(folder)), encoding="utf-8")


def page(results: Sequence[Result]) -> str:
    """Write the page of all results."""
    return "\n".join([HEAD, *map(section, results)])


def read(folder: Path) -> list[Result]:
    """Read what has been written down, in the order of the names. A file of another shape is a ConfigurationError."""
    return [_read(path) for path in sorted((folder / "results").glob("*.json"))]


def _read(path: Path) -> Result:
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ConfigurationError(f"{path} is not a result as they are written now: remove it") from None


def plot_name(result: Result, index: int) -> str:
    """Name a plot's file."""
    return f"{result.name}.svg" if index == 1 else f"{result.name}-{index}.svg"


def draw(plot: Plot, path: Path) -> None:
    """Draw a plot; the same figures give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "paqueteria", "svg.fonttype": "none", "font.size": 9, "axes.grid": True}):
        canvas = Canvas(figsize=(6.4, 3.2), layout="constrained")
        axes = canvas.subplots()
        for series in plot.series:
            axes.plot(series.x, series.y, "o" if plot.style == "dots" else "-", label=series.label, markersize=4)
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label, xscale=plot.x_scale)
        if plot.style == "dots":
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if plot.x_scale == "log":
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.legend()
        canvas.savefig(path, format="svg", metadata={"Date": None})


def section(result: Result) -> str:
    """Write a measurement's part of the page."""
    rows = [_row(figure) for figure in result.findings.figures]
    plots = [
        f"![{plot.title}](results/{plot_name(result, index)})" for index, plot in enumerate(result.findings.plots, 1)
    ]
    notes = [f"- {note}" for note in result.findings.notes]
    machine = result.machine
    size = f"{result.packages:,} packages, {result.rounds} rounds, {result.seconds:g} s a part"
    where = (
        f"{machine.started_at}, took {result.took_seconds:.0f} s: {machine.processor},"
        f" {machine.cores} cores, {machine.memory_gib} GiB, {machine.kernel}, {machine.python}, PostgreSQL"
        f" {machine.postgresql}, Valkey {machine.valkey}; {machine.busy_before:.0f} % busy with something else before"
    )
    table = ["| figure | value | bar | aim | | rounds |", "|---|---|---|---|---|---|", *rows]
    parts = [f"## {result.title}", f"`{result.name}`: {result.what}", "\n".join(table), *plots]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join([*parts, f"<sub>{size}. {where}.</sub>", ""])


def _row(figure: Figure) -> str:
    rounds = " ".join(map(number, figure.rounds[:20]))
    cells = [figure.name, figure.measured, figure.bar, figure.aimed_at, MARKS[figure.is_met], rounds]
    return f"| {' | '.join(cells)} |"
