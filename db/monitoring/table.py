"""A report as people read it, and as programs do."""

import json
import math
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from db.monitoring.findings import Row, Section, is_known
from db.monitoring.report import Report

MOST_LINES = 12
"""Rows of one section that a person is shown; a program gets all of them."""

LONGEST = 120
"""Characters of a value, for a person too."""


def to_json(report: Report, problems: list[str]) -> str:
    """Give one line; what isn't known, or has no number, is null or says why."""
    return json.dumps(_plain({"problems": problems, **report}), ensure_ascii=False)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Make JSON of it; an infinite age is one that nobody knows."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def show(console: Console, report: Report, problems: list[str]) -> None:
    """Print a table for each section, and last what is wrong."""
    for name, section in report.items():
        console.print(f"\n[bold]{name.replace('_', ' ')}[/bold]")
        if not is_known(section) or not section:
            reason = section["unknown"] if isinstance(section, dict) and section else ""
            console.print(f"  unknown: {reason}" if reason else "  none", markup=False)
        else:
            console.print(_table(section))
    console.print()
    for problem in problems or ["Nothing is beyond its threshold."]:
        console.print(problem, style="red" if problems else "green", markup=False)


def _table(section: Section) -> Table:
    if isinstance(section, dict):
        section = [{"what": key.replace("_", " "), "": _told(key, value)} for key, value in section.items()]
    columns = list(dict.fromkeys(column for row in section for column in row))
    table = Table(box=None, pad_edge=True)
    for number, column in enumerate(columns):  # what a row is about is read whole, however narrow the terminal
        table.add_column(column.replace("_", " "), no_wrap=number == 0 and column != "statement", overflow="fold")
    for row in section[:MOST_LINES]:
        table.add_row(*(escape(_cell(row, column)) for column in columns))
    if len(section) > MOST_LINES:
        table.add_row(f"… and {len(section) - MOST_LINES} more")
    return table


def _cell(row: Row, column: str) -> str:
    return _told(column, row.get(column))


def _told(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("bytes"):
            return decimal(int(value))
        return f"{value:,.10g}" if isinstance(value, int) or value.is_integer() else f"{value:,.3f}"
    text = f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
