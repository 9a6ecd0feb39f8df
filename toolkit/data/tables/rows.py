"""What a table says of each patient: ids, grade, site; rows that contradict each other are an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.config import LabelTable
from toolkit.data.site import subject_of
from toolkit.data.tables.columns import Columns, choose_table, meaning
from toolkit.data.tables.table import Row, Table
from toolkit.data.tables.words import missing, plain
from toolkit.errors import CohortError


@dataclass(frozen=True)
class LabelRow:
    """One row that names a patient.

    Attributes:
        number: of the line or row.
        ids: column -> id; at least one.
        value: the grade as it is written, empty where it is missing.
        site: as it is written, empty where it is missing.
    """

    number: int
    ids: dict[int, str]
    value: str
    site: str


@dataclass(frozen=True)
class LabelRows:
    """A table of grades.

    Attributes:
        labels: how it is read.
        table: what was read.
        columns: which column is what.
        rows: in the order of the table.
        notes: what was passed over, one sentence each.
    """

    labels: LabelTable
    table: Table
    columns: Columns
    rows: tuple[LabelRow, ...]
    notes: tuple[str, ...]

    def grade(self, row: LabelRow) -> int | None:
        """0 LGG, 1 HGG, None where it is missing.

        Raises:
            CohortError: the row's grade means nothing.
        """
        if not row.value:
            return None
        found = meaning(row.value, self.labels)
        if found is None:
            words = f"LGG ({', '.join(self.labels.lgg)}) nor HGG ({', '.join(self.labels.hgg)})"
            raise CohortError(
                f"{self.labels.file} {self.table.line} {row.number}: grade '{row.value}' is neither {words}; "
                "say what it means in [data.labels] lgg and hgg."
            )
        return found


def read_rows(labels: LabelTable) -> LabelRows:
    """Every row of a table that names a patient.

    Raises:
        CohortError: the table cannot be read, lacks a column, holds a cell that says nothing certain, or has two grades
            or two sites for one patient.
    """
    table, columns = choose_table(labels)
    used = {*columns.ids, *columns.grades} | ({columns.site} if columns.site is not None else set())
    rows: list[LabelRow] = []
    nameless: list[int] = []
    for row in table.rows:
        if not (any(row.cells[i] for i in used) or used & set(row.faults)):
            continue
        if faulty := sorted(used & set(row.faults)):
            raise CohortError(f"the {table.name}: {row.faults[faulty[0]]}.")
        ids = {i: row.cells[i] for i in columns.ids if not missing(row.cells[i])}
        value = _grade_cell(row, table, columns, labels)
        site = "" if columns.site is None or missing(row.cells[columns.site]) else row.cells[columns.site]
        if ids:
            rows.append(LabelRow(row.number, ids, value, site))
        elif value:
            nameless.append(row.number)
    found = LabelRows(labels, table, columns, tuple(rows), table.notes + _passed_over(table, nameless))
    _check(found)
    return found


def _grade_cell(row: Row, table: Table, columns: Columns, labels: LabelTable) -> str:
    first, *others = columns.grades
    known = None if missing(row.cells[first]) else meaning(row.cells[first], labels)
    for other in others:
        second = None if missing(row.cells[other]) else meaning(row.cells[other], labels)
        if known is not None and second is not None and known != second:
            raise CohortError(
                f"{table.line} {row.number} of the {table.name}: column '{table.header[first]}' says "
                f"{row.cells[first]} and column '{table.header[other]}' says {row.cells[other]}; correct it, or name "
                "the right column in [data.labels] grade (or --grade-column)."
            )
    return "" if missing(row.cells[first]) else row.cells[first]


def _passed_over(table: Table, rows: Sequence[int]) -> tuple[str, ...]:
    if not rows:
        return ()
    shown = ", ".join(map(str, rows[:5])) + (" and more" if len(rows) > 5 else "")
    several = len(rows) > 1
    return (
        f"{len(rows)} row{'s' * several} of the {table.name} ha{'ve' if several else 's'} a grade and no id: "
        f"{table.line}{'s' * several} {shown}.",
    )


def _check(found: LabelRows) -> None:
    """Nobody has two grades or two sites."""
    for column, name, rows in _same(found.rows):
        where = f"in {found.table.line}s {', '.join(str(row.number) for row in rows)} of the table"
        known = {meaning(row.value, found.labels) for row in rows} - {None}
        if len(known) > 1:
            raise CohortError(f"patient {name} has different grades {where}; correct the table.")
        if column is not None and len({plain(row.site) for row in rows if row.site}) > 1:
            raise CohortError(f"patient {name} has different sites {where}; correct the table.")


def _same(rows: Sequence[LabelRow]) -> Iterator[tuple[int | None, str, list[LabelRow]]]:
    """Rows with the same id in the same column, and (column None) rows whose ids are known to be one person's."""
    groups: dict[tuple[int | None, str], list[LabelRow]] = {}
    for row in rows:
        keys: dict[tuple[int | None, str], None] = dict.fromkeys(row.ids.items())
        keys |= {(None, subject_of(name)): None for name in row.ids.values() if subject_of(name) != name}
        for key in keys:
            groups.setdefault(key, []).append(row)
    for (column, name), same in groups.items():
        if len(same) > 1:
            yield column, name, same
