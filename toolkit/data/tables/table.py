"""A table as rows of text; a row that cannot be read for certain carries the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.errors import CohortError

# White space of any kind, and the marks of no width that copying from a page or a PDF leaves behind.
_EDGE = re.compile("^[\\s\u00ad\u200b-\u200f\u2060\ufeff]+|[\\s\u00ad\u200b-\u200f\u2060\ufeff]+$")


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
