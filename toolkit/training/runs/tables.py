"""The tables of a run: CSV, written so that reading gives the same bits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import RunError
from toolkit.files import check_plain, first_line


def table_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A CSV table. Floats are written so that reading gives the same bits; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_table(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV table, cells as text.

    Args:
        file: UTF-8, with or without a byte-order mark.
        columns: those needed; others are dropped.
        optional: those wanted as well; their cells are empty where there are none.

    Raises:
        RunError: no UTF-8 text, a column or a cell is missing.
    """
    check_plain(file, "table", RunError)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{file} cannot be read: {first_line(error)}; restore it or train again.") from error
    lacking = [name for name in columns if name not in (reader.fieldnames or ())]
    if lacking:
        raise RunError(f"{file} is broken: it lacks the column {', '.join(lacking)}; restore it or train again.")
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise RunError(f"{file} is broken: line {number} is cut short; restore it or train again.")
    return [{name: row[name] for name in columns} | {name: row.get(name) or "" for name in optional} for row in rows]
