"""A table as rows of text: from CSV or from a workbook, told apart by content; read whole or refused with the row."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import CohortError

LARGEST = 64 * 2**20  # bytes; the clinical tables of public collections stay under 1 MB
# White space of any kind, and the marks of no width that copying from a page or a PDF leaves behind.
_EDGE = re.compile("^[\\s\u00ad\u200b-\u200f\u2060\ufeff]+|[\\s\u00ad\u200b-\u200f\u2060\ufeff]+$")
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # also what a password makes of a workbook
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Row:
    """One row below the header.

    Attributes:
        number: of the line or row, as an editor or a spreadsheet counts, from 1.
        cells: text without white space around it, one for each column.
        faults: column -> why the cell says nothing certain; it matters only where the column is used.
    """

    number: int
    cells: tuple[str, ...]
    faults: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A header and rows.

    Attributes:
        name: for sentences, such as `table labels.csv` or `sheet 'Grades' of a.xlsx`.
        sheet: name of the sheet, empty for CSV.
        header: one text for each column.
        rows: those that are not blank.
        notes: what a reader may not expect, one sentence each.
    """

    name: str
    sheet: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What a row is called: `line` in text, `row` in a spreadsheet."""
        return "row" if self.sheet else "line"


def read_tables(file: Path) -> list[Table]:
    """Every sheet of a workbook that is not blank, or the one table of a text file.

    Args:
        file: CSV with commas, semicolons or tabs, or XLSX; the content decides, not the name.

    Raises:
        CohortError: the file is missing, no table, or a row cannot be read for certain.
    """
    content = _content(file)
    if content.startswith(_OLD_EXCEL):
        raise CohortError(f"the table {file} is an old or a locked Excel file; save it as .xlsx without a password.")
    if content.startswith(_ZIP):
        from toolkit.data.tables.workbook import read_workbook  # here, as openpyxl takes its time

        tables = read_workbook(content, file)
    else:
        from toolkit.data.tables.delimited import read_delimited

        tables = read_delimited(content, file)
    if not tables:
        raise CohortError(f"the table {file} is empty.")
    return tables


def build_table(name: str, sheet: str, rows: list[Row], notes: tuple[str, ...] = ()) -> Table | None:
    """A table of rows whose first one that is not blank is the header; None where all are blank.

    Raises:
        CohortError: a row is longer than the header.
    """
    filled = [row for row in rows if any(row.cells) or row.faults]
    if not filled:
        return None
    header, *others = filled
    names = list(header.cells)
    while names and not names[-1]:
        names.pop()
    width = len(names)
    found = []
    for row in others:
        if not sheet and any(row.cells[width:]):
            raise CohortError(
                f"line {row.number} of the {name} has {len(row.cells)} cells and the header {width}; quote the cell "
                "that holds a separator, or correct the line."
            )
        found.append(Row(row.number, (row.cells + ("",) * width)[:width], row.faults))
    return Table(name, sheet, tuple(names), tuple(found), notes)


def clean(text: str) -> str:
    """Text without white space and invisible marks around it."""
    return _EDGE.sub("", text)


def _content(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise CohortError(f"the table {file} is not a file.")
        if file.stat().st_size > LARGEST:
            raise CohortError(f"the table {file} is larger than {LARGEST >> 20} MiB; keep the columns that are needed.")
        return file.read_bytes()
    except FileNotFoundError:
        raise CohortError(f"there is no table {file}.") from None
    except (OSError, ValueError) as error:
        raise CohortError(f"the table {file} cannot be read: {error}.") from error
