"""A file as tables: CSV or a workbook, told apart by content; read whole or refused."""

from __future__ import annotations

import stat
from pathlib import Path

from toolkit.data.tables.delimited import read_delimited
from toolkit.data.tables.table import Table
from toolkit.errors import CohortError

LARGEST = 64 * 2**20  # bytes; the clinical tables of public collections stay under 1 MB
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # also what a password makes of a workbook
_ZIP = b"PK\x03\x04"


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
        tables = read_delimited(content, file)
    if not tables:
        raise CohortError(f"the table {file} is empty.")
    return tables


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
