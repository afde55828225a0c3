"""The export: all that the listing matches, in its order, as files that spreadsheets open."""

import csv
import io
import zipfile
from datetime import datetime
from xml.etree import ElementTree as ET

import pytest

from infra.auth import Role
from queries import export_packages, workbook
from tests.queries.support import Shop

CELL = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def sheets(content: bytes) -> list[list[list[str]]]:
    """Read every sheet of a workbook as rows of text."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = sorted(name for name in archive.namelist() if name.startswith("xl/worksheets/"))
        roots = [ET.fromstring(archive.read(name)) for name in names]  # noqa: S314 (we have just written it)
    return [[["".join(cell.itertext()) for cell in row] for row in root.iter(f"{CELL}row")] for root in roots]


def test_all_that_matches_in_the_listings_order(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks it takes, each row once, in both files."""
    monkeypatch.setattr(export_packages, "CHUNK", 3)
    shop.publish(*(shop.stored(hours=number) for number in range(1, 9)), shop.delivered())
    listed = [item["tracking_code"] for item in shop.items("/packages?sort=days&status=RECEIVED")]
    text = shop.get("/packages.csv?sort=days&status=RECEIVED").content.decode("utf-8-sig")
    heading, *rows = csv.reader(io.StringIO(text))
    assert tuple(heading) == export_packages.COLUMNS
    assert [row[0] for row in rows] == listed
    assert len(listed) == 8
    (sheet,) = sheets(shop.get("/packages.xlsx?sort=days&status=RECEIVED").content)
    assert [row[0] for row in sheet[1:]] == listed


def test_cells_are_what_a_spreadsheet_can_count_with(shop: Shop) -> None:
    """Numbers and instants are such, by Bogota's clock; text stays text, whatever it looks like."""
    shop.publish(shop.stored(received_at=shop.clock(), recipient_name='=HYPERLINK("x")', carrier="a\x01<&>"))
    text = shop.get("/packages.csv").content.decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["recipient_name"], row["received_at"]) == ('\'=HYPERLINK("x")', "2026-11-24 10:00:00")
    assert (row["due"], row["customer_phone"]) == ("1500", "+573000000001")
    (sheet,) = sheets(shop.get("/packages.xlsx").content)
    cells = dict(zip(sheet[0], sheet[1], strict=True))
    assert (cells["recipient_name"], cells["carrier"]) == ('=HYPERLINK("x")', "a<&>")
    days = (datetime(2026, 11, 24, 10) - workbook.EPOCH).total_seconds() / workbook.DAY  # noqa: DTZ001
    assert float(cells["received_at"]) == pytest.approx(days)


def test_a_full_sheet_goes_on_in_another(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is lost at the format's limit, and each sheet has the heading."""
    monkeypatch.setattr(workbook, "SHEET_ROWS", 4)
    shop.publish(*(shop.row() for _ in range(7)))
    pages = sheets(shop.get("/packages.xlsx").content)
    assert [len(page) for page in pages] == [4, 4, 2]
    assert {tuple(page[0]) for page in pages} == {export_packages.COLUMNS}


def test_a_listing_by_payment_tells_what_came_in(shop: Shop) -> None:
    """Beside the columns of every other one, in both formats."""
    row = shop.delivered()
    shop.pay(row, "CASH", Role.OPERATOR, 2500)
    shop.publish(row)
    query = f"?payment_staff_id={shop.staff[Role.OPERATOR]}"
    heading = (*export_packages.COLUMNS, "income")
    ((first, second),) = sheets(shop.get(f"/packages.xlsx{query}").content)
    assert (tuple(first), second[-1]) == (heading, "2500")
    lines = shop.get(f"/packages.csv{query}").text.splitlines()
    assert [line.rsplit(",", 1)[1] for line in lines] == ["income", "2500"]


def test_who_may_and_what_is_refused(shop: Shop) -> None:
    """As the listing: a role, filters that it knows, and a refusal with its status, not half a file."""
    assert shop.client.get("/api/v1/packages.csv").status_code == 401
    assert shop.get("/packages.csv?colour=red").status_code == 422
    answer = shop.get("/packages.xlsx", role=Role.VIEWER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, export_packages.XLSX)
    assert "attachment" in answer.headers["Content-Disposition"]
