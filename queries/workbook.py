"""A workbook (Office Open XML) that leaves as it is written, whatever its length; libraries need the whole first."""

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from xml.sax.saxutils import escape

SHEET_ROWS = 1_048_576
"""The most that a sheet may have, its heading among them."""

EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 (a spreadsheet's days have no time zone)
DAY = 86_400

ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML can't hold."""

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DOCUMENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"
HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'

# Style 1 is an instant, style 2 a heading.
STYLES = f"""{HEAD}<styleSheet xmlns="{MAIN}">
<numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd hh:mm"/></numFmts>
<fonts count="2"><font/><font><b/></font></fonts>
<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>
<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>
<cellStyleXfs count="1"><xf/></cellStyleXfs>
<cellXfs count="3"><xf/><xf numFmtId="164" applyNumberFormat="1"/><xf fontId="1" applyFont="1"/></cellXfs>
<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>
</styleSheet>"""

OPENED = f"""{HEAD}<worksheet xmlns="{MAIN}"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2"
activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>"""
CLOSED = "</sheetData></worksheet>"

RELATIONS = f"""{HEAD}<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1"
Type="{RELATIONSHIPS}/officeDocument" Target="xl/workbook.xml"/></Relationships>"""


class _Sink(io.RawIOBase):
    """Takes what a ZIP archive writes, and gives it away; it can't go back, so the archive doesn't try."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: bytes) -> int:  # type: ignore[override] # the archive writes bytes alone
        self._parts.append(bytes(part))
        return len(part)

    def taken(self) -> bytes:
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


class Workbook:
    """Write rows with `rows`, then `end`: what both give, one after the other, is the file."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self._title, self._columns = title, columns
        self._sink = _Sink()
        self._archive = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        self._sheets = 0
        self._begin_sheet()

    def rows(self, rows: Iterable[Sequence[str | int | datetime | None]]) -> bytes:
        """Write rows of text, numbers and instants; gives the bytes that are ready."""
        for row in rows:
            if self._count == SHEET_ROWS:
                self._end_sheet()
                self._begin_sheet()
            self._write(f"<row>{''.join(map(_cell, row))}</row>")
            self._count += 1
        return self._sink.taken()

    def end(self) -> bytes:
        """Write what names the sheets; gives the last bytes."""
        self._end_sheet()
        numbers = range(1, self._sheets + 1)
        self._archive.writestr("xl/styles.xml", STYLES)
        self._archive.writestr("xl/workbook.xml", self._workbook(numbers))
        self._archive.writestr("xl/_rels/workbook.xml.rels", _workbook_relations(numbers))
        self._archive.writestr("_rels/.rels", RELATIONS)
        self._archive.writestr("[Content_Types].xml", _content_types(numbers))
        self._archive.close()
        return self._sink.taken()

    def _begin_sheet(self) -> None:
        self._sheets += 1
        self._sheet = self._archive.open(f"xl/worksheets/sheet{self._sheets}.xml", "w", force_zip64=True)
        heading = "".join(_text(column, style=2) for column in self._columns)
        self._write(f"{OPENED}<row>{heading}</row>")
        self._count = 1

    def _end_sheet(self) -> None:
        self._write(CLOSED)
        self._sheet.close()

    def _write(self, text: str) -> None:
        self._sheet.write(text.encode())

    def _workbook(self, numbers: Iterable[int]) -> str:
        sheets = "".join(f'<sheet name="{self._title} {n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
        return f'{HEAD}<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIPS}"><sheets>{sheets}</sheets></workbook>'


def _cell(value: str | int | datetime | None) -> str:
    match value:
        case None:
            return "<c/>"
        case datetime():
            return f'<c s="1"><v>{(value - EPOCH).total_seconds() / DAY:.9f}</v></c>'
        case int():
            return f"<c><v>{value}</v></c>"
    return _text(value, style=0)


def _text(value: str, style: int) -> str:
    held = escape(ILLEGAL.sub("", value))
    return f'<c s="{style}" t="inlineStr"><is><t xml:space="preserve">{held}</t></is></c>'


def _workbook_relations(numbers: Sequence[int]) -> str:
    links = [(f"rId{n}", "worksheet", f"worksheets/sheet{n}.xml") for n in numbers]
    links.append((f"rId{len(numbers) + 1}", "styles", "styles.xml"))
    each = "".join(
        f'<Relationship Id="{id_}" Type="{RELATIONSHIPS}/{kind}" Target="{target}"/>' for id_, kind, target in links
    )
    return f'{HEAD}<Relationships xmlns="{PACKAGE}/relationships">{each}</Relationships>'


def _content_types(numbers: Iterable[int]) -> str:
    parts = [(f"worksheets/sheet{n}", "worksheet") for n in numbers] + [
        ("workbook", "sheet.main"),
        ("styles", "styles"),
    ]
    each = "".join(f'<Override PartName="/xl/{name}.xml" ContentType="{DOCUMENT}.{kind}+xml"/>' for name, kind in parts)
    kinds = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    return f'{HEAD}<Types xmlns="{PACKAGE}/content-types">{kinds}{each}</Types>'
