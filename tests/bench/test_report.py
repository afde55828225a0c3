"""What was measured is written down whole, and each measurement alone."""

import math
from pathlib import Path

import pytest

from bench import report
from bench.registry import ALL
from bench.results import Figure, Findings, Machine, Plot, Result, by_round, distribution, number, percentile
from infra.errors import ConfigurationError

MACHINE = Machine(
    processor="A processor",
    cores=2,
    memory_gib=8,
    kernel="Linux 6",
    python="CPython 3.11",
    postgresql="18.1",
    valkey="9.0",
    started_at="2026-11-24T15:00:00+00:00",
    busy_before=1.5,
)


def result_of(name: str, value: float) -> Result:
    figures = [
        Figure(name="a time", value=value, unit="ms", at_most=20, aim=10, rounds=[value, 3]),
        Figure(name="a rate", value=1234.5, unit="/s", at_least=2000),
        Figure(name="a count", value=math.nan),
    ]
    plots = [
        Plot(title="Rounds", x_label="round", y_label="ms", series=[by_round("A", [1, 2, 3])], style="dots"),
        Plot(title="All", x_label="ms", y_label="%", series=[distribution("A", [1, 2, 3])], x_scale="log"),
    ]
    return Result(
        name=name,
        title=f"Title of {name}",
        what="What it is.",
        packages=1000,
        seconds=1,
        rounds=2,
        took_seconds=3,
        machine=MACHINE,
        findings=Findings(figures=figures, plots=plots, notes=["a note"]),
    )


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    report.write(tmp_path, result_of("one", 5))
    (read,) = report.read(tmp_path)
    assert read.model_dump(exclude={"findings"}) == result_of("one", 5).model_dump(exclude={"findings"})
    assert read.findings.figures[:2] == result_of("one", 5).findings.figures[:2]
    assert math.isnan(read.findings.figures[2].value)


def test_the_page_has_every_measurement_there_is(tmp_path: Path) -> None:
    """One that is measured again alone takes its own place, and leaves the others theirs."""
    report.write(tmp_path, result_of("one", 50))
    report.write(tmp_path, result_of("two", 5))
    report.write(tmp_path, result_of("one", 6))
    page = (tmp_path / "README.md").read_text()
    assert page.index("Title of one") < page.index("Title of two")
    assert "| a time | 6 ms | ≤ 20 ms | 10 ms | met | 6 3 |" in page
    assert "| a rate | 1,234 /s | ≥ 2,000 /s |  | **missed** |  |" in page
    assert "50 ms" not in page
    assert "A processor, 2 cores" in page
    assert "- a note" in page


def test_a_file_of_another_shape_is_named(tmp_path: Path) -> None:
    """A result of an earlier version says which file is to go, instead of a page that lacks it."""
    report.write(tmp_path, result_of("one", 5))
    (tmp_path / "results" / "old.json").write_text('{"name": "old"}')
    with pytest.raises(ConfigurationError, match="not a result as they are written now"):
        report.read(tmp_path)


def test_plots_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    """Figures that stay leave no trace in a diff."""
    report.write(tmp_path / "a", result_of("one", 5))
    report.write(tmp_path / "b", result_of("one", 5))
    for name in ("one.svg", "one-2.svg"):
        drawn = (tmp_path / "a" / "results" / name).read_bytes()
        assert drawn.startswith(b"<?xml")
        assert drawn == (tmp_path / "b" / "results" / name).read_bytes()
        assert f"results/{name}" in (tmp_path / "a" / "README.md").read_text()


def test_what_is_written_down_in_the_repository_can_be_read() -> None:
    """Each result belongs to a measurement, and the page is the one that the results make."""
    folder = Path("docs/performance")
    results = report.read(folder)
    assert {result.name for result in results} <= ALL.keys()
    assert (folder / "README.md").read_text() == report.page(results)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_figures_are_written_with_the_digits_that_count() -> None:
    written = [number(value) for value in (0, 7, 0.01234, 1.234, 56.78, 345.6, 12345.6)]
    assert written == ["0", "7", "0.0123", "1.23", "56.8", "346", "12,346"]
