"""What the monitor found: each section is what was measured, or why that can't be known. No figure is made up."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from db.pools import Connection

Row = dict[str, Any]
Section = Row | list[Row]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Beyond which a figure is a problem."""

    slow_ms: float = 1000.0
    hit_rate: float = 0.8
    disk_percent: float = 90.0
    memory_percent: float = 95.0
    connections_percent: float = 90.0


def unknown(reason: object) -> Row:
    """Say that something can't be measured, and why, in one line."""
    return {"unknown": (str(reason).strip().splitlines() or [type(reason).__name__])[0]}


def is_known(section: Section) -> bool:
    """Tell whether a section was measured."""
    return not (isinstance(section, dict) and "unknown" in section)


async def rows(conn: Connection, statement: str) -> list[Row]:
    """Give the rows of a statement by name."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(statement.encode())).fetchall()


async def ask(conn: Connection, statement: str) -> Section:
    """Give the rows, or why the server doesn't tell: it lacks an extension, or doesn't let us."""
    try:
        return await rows(conn, statement)
    except psycopg.Error as error:
        return unknown(error)
