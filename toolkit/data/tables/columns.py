"""Which columns of a table hold ids, grades and sites: by header and content, never by position."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.config import LabelTable
from toolkit.data.tables.read import read_tables
from toolkit.data.tables.table import Table
from toolkit.data.tables.words import missing, names_grades, names_ids, names_sites, plain
from toolkit.errors import CohortError


@dataclass(frozen=True)
class Columns:
    """Positions in a table.

    Attributes:
        ids: of patients' ids; a table may number the same patients in several ways.
        grades: of grades; the first one counts, the others may not contradict it.
        site: of sites, None where there is no such column.
    """

    ids: tuple[int, ...]
    grades: tuple[int, ...]
    site: int | None


def choose_table(labels: LabelTable) -> tuple[Table, Columns]:
    """The table of a file, or the one sheet of a workbook that holds ids and grades.

    Raises:
        CohortError: the file cannot be read, a column is not there, or several sheets hold grades.
    """
    tables = read_tables(labels.file)
    if labels.sheet:
        named = [table for table in tables if table.sheet == labels.sheet]
        if not named:
            sheets = ", ".join(table.sheet for table in tables if table.sheet) or "none"
            raise CohortError(f"the table {labels.file} has no sheet '{labels.sheet}'; its sheets: {sheets}.")
        return named[0], find_columns(named[0], labels)
    holding = [table for table in tables if _holds(table, labels)] if len(tables) > 1 else tables
    if len(holding) > 1:
        sheets = ", ".join(table.sheet for table in holding)
        raise CohortError(
            f"several sheets of {labels.file} hold ids and grades: {sheets}; name one in [data.labels] sheet."
        )
    table = holding[0] if holding else tables[0]
    return table, find_columns(table, labels)


def holds_grades(file: Path) -> bool:
    """Whether a table has a column of grades and one of ids."""
    try:
        choose_table(LabelTable(file=file))
    except CohortError:
        return False
    return True


def find_columns(table: Table, labels: LabelTable) -> Columns:
    """Which column is what.

    Args:
        table: the table.
        labels: names of columns; those that are None are recognised.

    Raises:
        CohortError: a column is missing, is there twice, or two columns of sites contradict each other.
    """
    sites, grades, ids = _candidates(table, labels)
    if not grades:
        raise CohortError(
            f"the {table.name} has no column of grades among {_headers(table)}; name it in [data.labels] grade "
            "(or --grade-column)."
        )
    if not ids:
        raise CohortError(
            f"the {table.name} has no column of ids among {_headers(table)}; name it in [data.labels] patient "
            "(or --patient-column)."
        )
    return Columns(tuple(ids), tuple(grades), _site(table, sites))


def _holds(table: Table, labels: LabelTable) -> bool:
    """Whether a sheet is a table of grades."""
    try:
        _, grades, ids = _candidates(table, labels)
    except CohortError:
        return False
    return bool(grades and ids)


def _candidates(table: Table, labels: LabelTable) -> tuple[list[int], list[int], list[int]]:
    """The columns of sites, of grades and of ids."""
    sites = _named(table, labels.site) or [i for i, header in enumerate(table.header) if names_sites(header)]
    grades = _named(table, labels.grade) or _grades(table, labels)
    ids = _named(table, labels.patient) or [
        i for i, header in enumerate(table.header) if i not in grades and i not in sites and names_ids(header)
    ]
    return sites, grades, ids


def meaning(value: str, labels: LabelTable) -> int | None:
    """0 LGG, 1 HGG, None for a word that means neither.

    Args:
        value: such as `HGG`, `WHO grade IV`, `3.0`.
        labels: the words that mean LGG and HGG.
    """
    value = unicodedata.normalize("NFKC", value)
    value = re.sub(r"^(who|cns|grade|\s)+", "", value, flags=re.IGNORECASE)
    value = re.sub(r"[.,]0+$", "", value).strip().casefold()
    for index, words in enumerate((labels.lgg, labels.hgg)):
        if value in {word.casefold() for word in words}:
            return index
    return None


def _named(table: Table, asked: str | None) -> list[int]:
    """The position of the column that the user names, nothing where none is named."""
    if asked is None:
        return []
    found = [i for i, header in enumerate(table.header) if header == asked.strip()]
    if not found:
        raise CohortError(f"the {table.name} has no column '{asked}'; its columns: {_headers(table)}.")
    if len(found) > 1:
        raise CohortError(f"the {table.name} has {len(found)} columns '{asked}'; give each its own name.")
    return found


def _grades(table: Table, labels: LabelTable) -> list[int]:
    """The columns called grades; of several those whose cells are grades."""
    ranks = {i: rank for i, header in enumerate(table.header) if (rank := names_grades(header)) is not None}
    found = sorted(ranks, key=lambda i: (ranks[i], i))
    holding = [i for i in found if any(meaning(row.cells[i], labels) is not None for row in table.rows)]
    return holding or found[:1]


def _site(table: Table, sites: Sequence[int]) -> int | None:
    """The column of sites; of several the first, if all tell the patients apart in the same way."""
    filled = [i for i in sites if not all(missing(row.cells[i]) for row in table.rows)]
    for other in filled[1:]:
        pairs = {
            (plain(row.cells[filled[0]]), plain(row.cells[other]))
            for row in table.rows
            if not missing(row.cells[filled[0]]) and not missing(row.cells[other])
        }
        if len({one for one, _ in pairs}) < len(pairs) or len({two for _, two in pairs}) < len(pairs):
            raise CohortError(
                f"the {table.name} has two columns of sites that contradict each other, '{table.header[filled[0]]}' "
                f"and '{table.header[other]}'; name the right one in [data.labels] site."
            )
    return filled[0] if filled else None


def _headers(table: Table) -> str:
    return ", ".join(table.header)
