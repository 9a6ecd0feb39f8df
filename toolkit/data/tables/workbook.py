"""Workbooks (XLSX): every sheet, cell by cell; a cell whose value is not certain carries the reason."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.cell import Cell, MergedCell
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.workbook import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from toolkit.data.tables.table import Row, Table, build_table, clean
from toolkit.errors import CohortError

_UNPACKED = 100 * 2**20  # bytes of XML; a small archive can hold gigabytes
_CELLS = 2_000_000  # of one sheet's rectangle
_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number
_NO_VALUE = "holds a formula without a stored value; save the table from a spreadsheet program"
# What openpyxl and the XML reader raise on files that are damaged or of another kind.
_BROKEN = (
    *(OSError, zipfile.BadZipFile, InvalidFileException, zlib.error, EOFError, SyntaxError),
    *(LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError),
)


def read_workbook(content: bytes, file: Path) -> list[Table]:
    """The sheets that are not blank, hidden ones too.

    Args:
        content: of the file.
        file: for sentences.

    Raises:
        CohortError: the file is damaged, of another kind, or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _UNPACKED:
                raise CohortError(
                    f"the table {file} unpacks to more than {_UNPACKED >> 20} MiB; save the sheet of grades as CSV."
                )
        values, texts = (_load(content, data_only=stored) for stored in (True, False))
        tables = [_table(sheet, texts, file) for sheet in values.worksheets]
    except _BROKEN as error:
        raise CohortError(f"the table {file} cannot be read as a workbook: {error}; save it as CSV UTF-8.") from error
    return [table for table in tables if table]


def _load(content: bytes, data_only: bool) -> Workbook:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions, which are not read
        return openpyxl.load_workbook(io.BytesIO(content), data_only=data_only)


def _table(sheet: Worksheet, texts: Workbook, file: Path) -> Table | None:
    name = f"sheet '{sheet.title}' of {file.name}"
    height, width = sheet.max_row, sheet.max_column  # of the cells; what the file says of its size is not asked
    if height * width > _CELLS:
        raise CohortError(
            f"the {name} reaches to cell {get_column_letter(width)}{height}; delete the stray cells, or save as CSV."
        )
    merged = {place: str(area) for area in sheet.merged_cells.ranges for place in area.cells}
    formulas = _formulas(texts[sheet.title])
    rows = []
    for cells in sheet.iter_rows():
        texts_of_row: list[str] = []
        faults: dict[int, str] = {}
        for column, cell in enumerate(cells):
            text, fault = _read(cell, (cell.row, cell.column) in formulas, merged)
            texts_of_row.append(clean(text))
            if fault:
                faults[column] = f"cell {cell.coordinate} {fault}"
        rows.append(Row(cells[0].row, tuple(texts_of_row), faults))
    hidden = sum(sheet.row_dimensions[row.number].hidden for row in rows if any(row.cells))
    notes = (f"{hidden} hidden row{'s' * (hidden > 1)} of the {name} are read, too.",) if hidden else ()
    return build_table(name, sheet.title, rows, notes)


def _formulas(sheet: Any) -> frozenset[tuple[int, int]]:
    return frozenset((cell.row, cell.column) for row in sheet.iter_rows() for cell in row if cell.data_type == "f")


def _read(cell: Cell | MergedCell, formula: bool, merged: dict[tuple[int, int], str]) -> tuple[str, str]:
    """The text of a cell, and why it is not certain."""
    value, text, fault = cell.value, str(cell.value), ""
    if isinstance(cell, MergedCell):
        text, fault = "", f"is merged into {merged[cell.row, cell.column]}; unmerge the cells and fill each"
    elif value is None:
        text, fault = "", _NO_VALUE if formula else ""
    elif cell.data_type == "e":
        fault = f"holds the error {value}; correct it"
    elif isinstance(value, bool):
        text = text.upper()
    elif isinstance(value, date | time | timedelta):
        fault = f"is a date or a time ({value}), which spreadsheets make of text; enter it as text"
    elif isinstance(value, int | float):
        if abs(value) >= _EXACT:
            fault = f"is the number {value}, of which a spreadsheet keeps 15 digits; enter it as text"
        elif value == int(value):
            text = str(int(value))
    return text, fault
