"""`GET /api/v1/packages.csv` and `.xlsx`: all that the listing's filters match, a chunk of rows at a time."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query as Parameters
from fastapi.responses import StreamingResponse

from infra.auth import Role, allow
from infra.clock import BOGOTA, TheClock
from infra.http import problems
from infra.routing import router
from queries.list_packages import PackageFilters, fetch
from queries.pages import Edge, TheEdge
from queries.workbook import Workbook

export = router("packages")

CHUNK = 500
"""Rows of one statement: few enough that others who are being served meanwhile don't notice."""

COLUMNS = (
    "tracking_code",
    "guide_number",
    "status",
    "site",
    "position",
    "carrier",
    "package_type",
    "condition",
    "recipient_name",
    "customer_name",
    "customer_phone",
    "announced_at",
    "received_at",
    "delivered_at",
    "cancelled_at",
    "base_fee",
    "storage_days",
    "storage_fee",
    "total",
    "due",
    "paid",
    "other_codes",
    "package_id",
)

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

Cell = str | int | datetime | None


async def _items(edge: Edge, filters: PackageFilters, now: datetime) -> AsyncIterator[list[Any]]:
    """Read the listing past the cache, a chunk after another by its cursor."""
    cursor: str | None = None
    while True:
        query = replace(fetch(filters, now, edge.signing_key, CHUNK, cursor), scopes=())
        page, _ = await edge.page(query)
        found = json.loads(page.body)
        yield found["items"]
        cursor = found["next_cursor"]
        if cursor is None:
            return


def _columns(filters: PackageFilters) -> tuple[str, ...]:
    return (*COLUMNS, "income") if filters.is_by_payment else COLUMNS


def _cells(columns: Sequence[str], item: dict[str, Any]) -> Iterator[Cell]:
    """Give a parcel's cells: instants by Bogota's clock, as the shop's people read them."""
    flat = item | {
        "customer_name": item["customer"]["name"],
        "customer_phone": item["customer"]["phone"],
        "other_codes": " ".join(item["other_codes"]) or None,
    }
    for column in columns:
        value = flat[column]
        is_instant = column.endswith("_at") and value is not None
        yield datetime.fromisoformat(value).astimezone(BOGOTA).replace(tzinfo=None) if is_instant else value


def _as_text(column: str, value: Cell) -> str:
    """Write a cell of a CSV; text that a spreadsheet would compute is marked as text, but for a phone's `+`."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) and column != "customer_phone" else text


def _lines(rows: Iterable[Iterable[str]]) -> str:
    sink = io.StringIO()
    csv.writer(sink).writerows(rows)
    return sink.getvalue()


async def _csv(columns: Sequence[str], chunks: AsyncIterator[list[Any]]) -> AsyncIterator[str]:
    yield "\ufeff" + _lines([columns])  # by this mark a spreadsheet knows that it is UTF-8
    async for items in chunks:
        yield _lines([map(_as_text, columns, _cells(columns, item)) for item in items])


async def _xlsx(columns: Sequence[str], chunks: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
    workbook = Workbook("Paquetes", columns)
    async for items in chunks:
        yield workbook.rows(list(_cells(columns, item)) for item in items)
    yield workbook.end()


async def _begun(chunks: AsyncIterator[list[Any]]) -> AsyncIterator[list[Any]]:
    """Read the first chunk before the answer begins, so that what is refused still has its status."""
    first = await anext(chunks)

    async def again() -> AsyncIterator[list[Any]]:
        yield first
        async for items in chunks:
            yield items

    return again()


def _documented(media_type: str, format_: str | None) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", **({"format": format_} if format_ else {})}
    return {200: {"content": {media_type: {"schema": schema}}}, **problems(401, 403)}


def _attachment(now: datetime, ending: str) -> dict[str, str]:
    name = f"paquetes-{now.astimezone(BOGOTA):%Y-%m-%d-%H%M}.{ending}"
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}


@export.get("/packages.csv", response_class=StreamingResponse, responses=_documented("text/csv", None))
@allow(Role.VIEWER)
async def export_csv(
    filters: Annotated[PackageFilters, Parameters()], edge: TheEdge, clock: TheClock
) -> StreamingResponse:
    """Export all that matches as CSV, with a heading; instants by Bogota's clock, money in pesos."""
    now = clock()
    chunks = await _begun(_items(edge, filters, now))
    return StreamingResponse(_csv(_columns(filters), chunks), headers=_attachment(now, "csv"), media_type="text/csv")


@export.get("/packages.xlsx", response_class=StreamingResponse, responses=_documented(XLSX, "binary"))
@allow(Role.VIEWER)
async def export_xlsx(
    filters: Annotated[PackageFilters, Parameters()], edge: TheEdge, clock: TheClock
) -> StreamingResponse:
    """Export all that matches as a workbook, with a heading; more than a sheet holds goes on in another."""
    now = clock()
    chunks = await _begun(_items(edge, filters, now))
    return StreamingResponse(_xlsx(_columns(filters), chunks), headers=_attachment(now, "xlsx"), media_type=XLSX)
