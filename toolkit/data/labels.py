"""Grades: which patient of a cohort is LGG and which HGG, from folder names or a table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from toolkit.config import LabelTable
from toolkit.data.patients import CLASSES, Cohort, Patient, find_patients
from toolkit.data.site import site_of
from toolkit.errors import CohortError

_GRADE_HEADERS = ("grade", "who cns grade", "who grade", "who_grade", "tumor grade", "class", "label")
_SITE_HEADERS = ("site", "centre", "center", "institution", "site no (represents the originating institution)")
_ID_HEADER = re.compile(r"\b(id|patient|subject|case|name)\b|^brats ?(20)?\d\d$|^brats.*id$", re.IGNORECASE)
_UNKNOWN = {"", "na", "n/a", "nan", "none", "-1", "unknown", "?"}


@dataclass(frozen=True)
class _Row:
    ids: tuple[str, ...]
    grade: str
    site: str
    line: int


def read_cohort(folder: Path, labels: LabelTable | None) -> Cohort:
    """The patients below a folder with their grades and sites.

    Grades come from the table given; else from folders named `HGG` and `LGG` above the patient (BraTS 2013-2018); else
    from a `labels.csv`, `name_mapping*.csv` or `labels.xlsx` in the folder (BraTS 2019 and 2020 have one).

    Args:
        folder: holds the patients at any depth.
        labels: a table and how to read it.

    Returns:
        The patients with a known grade, sorted by id; those without are named in the notes.

    Raises:
        CohortError: no patients, no grades, no patient of one of the classes, or contradictory labels.
    """
    patients = find_patients([folder])
    table = labels or (None if _has_grade_folders(patients, folder) else _table_beside(folder))
    rows = _read_rows(table) if table else []
    known: list[tuple[Patient, int, str | None]] = []
    unknown: list[str] = []
    meant: Counter[tuple[int, str]] = Counter()
    matched = _match(patients, rows) if table else {}
    for patient in patients:
        row = matched.get(patient.id)
        grade = _grade(row, table) if table else _folder_grade(patient, folder)
        if grade is None:
            unknown.append(patient.id)
        else:
            known.append((patient, grade, (row.site if row and row.site else None) or site_of(patient.id)))
            meant[grade, row.grade if row else CLASSES[grade]] += 1
    _check(known, unknown, folder, table)
    known.sort(key=lambda entry: entry[0].id)
    notes = (f"{len(unknown)} patients without a known grade are left out: {_some(unknown)}.",) if unknown else ()
    return Cohort(
        tuple(patient for patient, _, _ in known),
        tuple(grade for _, grade, _ in known),
        tuple(site for _, _, site in known),
        notes,
        _rule(table, meant),
    )


class Labels(NamedTuple):
    """A table of grades, without images.

    Attributes:
        ids: one for each row that names a patient.
        grades: 0 LGG, 1 HGG, None unknown.
        sites: from the table's column or the id, None unknown.
    """

    ids: tuple[str, ...]
    grades: tuple[int | None, ...]
    sites: tuple[str | None, ...]


def read_labels(table: LabelTable) -> Labels:
    """Every row of a table; of several columns of ids the first one filled counts.

    Raises:
        CohortError: the table cannot be read, lacks a column, or has a grade that means nothing.
    """
    rows = _read_rows(table)
    return Labels(
        tuple(row.ids[0] for row in rows),
        tuple(_grade(row, table) for row in rows),
        # The id of 2018 names a source more exactly than that of 2017.
        tuple(row.site or max((site_of(name) or "" for name in row.ids), key=len) or None for row in rows),
    )


def _rule(table: LabelTable | None, meant: Counter[tuple[int, str]]) -> str:
    """What the grades rest on: which values were met, how often, and what they were taken for."""
    source = f"table {table.file.name}" if table else "names of the folders above the patients"
    values = [
        ", ".join(f"'{value}' ({count})" for (grade, value), count in sorted(meant.items()) if grade == index)
        + f" as {name}"
        for index, name in enumerate(CLASSES)
    ]
    return f"Grades from the {source}: {'; '.join(values)}."


def _check(
    known: list[tuple[Patient, int, str | None]], unknown: list[str], folder: Path, table: LabelTable | None
) -> None:
    if not known:
        source = f"in {table.file}" if table else "from folder names"
        raise CohortError(
            f"none of the {len(unknown)} patients below {folder} has a known grade {source}; "
            "sort them into HGG/ and LGG/, or name a table with [data] labels."
        )
    for index, name in enumerate(CLASSES):
        if all(grade != index for _, grade, _ in known):
            raise CohortError(
                f"all {len(known)} patients with a grade below {folder} are {CLASSES[1 - index]}; {name} is needed too."
            )


def has_grades(folder: Path) -> bool:
    """Whether a folder tells the grades of its patients itself, by folders or a table beside them."""
    return _has_grade_folders(find_patients([folder]), folder) or _beside(folder) is not None


def _has_grade_folders(patients: tuple[Patient, ...], folder: Path) -> bool:
    return any(_folder_grade(patient, folder) is not None for patient in patients)


def _folder_grade(patient: Patient, folder: Path) -> int | None:
    """The nearest folder above the patient that is named after a grade."""
    for part in reversed(patient.folder.parent.parts[len(folder.absolute().parts) :]):
        if part.upper() in CLASSES:
            return CLASSES.index(part.upper())
    return None


def _beside(folder: Path) -> Path | None:
    patterns = ("labels.csv", "labels.xlsx", "name_mapping*.csv")
    return next((file for pattern in patterns for file in sorted(folder.glob(pattern))), None)


def _table_beside(folder: Path) -> LabelTable:
    if file := _beside(folder):
        return LabelTable(file=file)
    raise CohortError(
        f"the grades below {folder} are unknown: no HGG/ and LGG/ folders, no labels.csv, no name_mapping.csv; "
        "name a table with [data] labels."
    )


def _match(patients: tuple[Patient, ...], rows: list[_Row]) -> dict[str, _Row]:
    """Row of each patient: by the exact id, else by an id that differs in spelling alone."""
    exact: dict[str, list[_Row]] = {}
    loose: dict[str, list[_Row]] = {}
    for row in rows:
        for name in row.ids:
            exact.setdefault(name, []).append(row)
            loose.setdefault(_spelling(name), []).append(row)
    matched = {}
    for patient in patients:
        name = patient.id.rsplit("/", 1)[-1]
        found = exact.get(name) or loose.get(_spelling(name)) or []
        if len({row.grade for row in found}) > 1:
            lines = ", ".join(str(row.line) for row in found)
            raise CohortError(
                f"patient {patient.id} has different grades in lines {lines} of the table; correct the table."
            )
        if found:
            matched[patient.id] = found[0]
    return matched


def _spelling(name: str) -> str:
    """What stays the same when an id is written in another way: case, separators, leading zeros, `_nifti`."""
    name = re.sub(r"[-_.\s]+", "-", name.strip().casefold()).removesuffix("-nifti")
    return re.sub(r"\d+", lambda digits: digits.group().lstrip("0") or "0", name)


def _grade(row: _Row | None, table: LabelTable) -> int | None:
    if row is None or row.grade.casefold() in _UNKNOWN:
        return None
    value = re.sub(r"^(who|grade|\s)+", "", row.grade, flags=re.IGNORECASE).removesuffix(".0")
    for index, words in enumerate((table.lgg, table.hgg)):
        if value.casefold() in {word.casefold() for word in words}:
            return index
    meanings = f"LGG ({', '.join(table.lgg)}) nor HGG ({', '.join(table.hgg)})"
    raise CohortError(
        f"{table.file} line {row.line}: grade '{row.grade}' is neither {meanings}; "
        "say what it means in [data.labels] lgg and hgg."
    )


def _read_rows(table: LabelTable) -> list[_Row]:
    cells = [[_clean(cell) for cell in line] for line in _read_cells(table.file)]
    if not cells:
        raise CohortError(f"the table {table.file} is empty.")
    header = cells[0]
    grade = _column(header, table.grade, _GRADE_HEADERS, table.file)
    site = _column(header, table.site, _SITE_HEADERS, table.file) if table.site else _first(header, _SITE_HEADERS)
    if grade is None:
        raise CohortError(
            f"the table {table.file} has no column of grades among {', '.join(header)}; name it in [data.labels] grade."
        )
    ids: list[int | None]
    if table.patient:
        ids = [_column(header, table.patient, (), table.file)]
    else:
        others = [i for i in range(len(header)) if i not in (grade, site)]
        ids = [i for i in others if _ID_HEADER.search(header[i].replace("_", " "))] or list(others[:1])
    rows = []
    for line, short in enumerate(cells[1:], start=2):
        row = short + [""] * (len(header) - len(short))
        names = tuple(dict.fromkeys(row[i] for i in ids if i is not None and row[i].casefold() not in _UNKNOWN))
        if names:
            rows.append(_Row(names, row[grade], row[site] if site is not None else "", line))
    return rows


def _column(header: list[str], asked: str | None, usual: tuple[str, ...], file: Path) -> int | None:
    if asked is None:
        return _first(header, usual)
    if asked not in header:
        raise CohortError(f"the table {file} has no column '{asked}'; its columns: {', '.join(header)}.")
    return header.index(asked)


def _first(header: list[str], usual: tuple[str, ...]) -> int | None:
    lower = [name.casefold() for name in header]
    return next((lower.index(name) for name in usual if name in lower), None)


def _clean(cell: object) -> str:
    return "" if cell is None else str(cell).strip()  # str.strip also takes no-break spaces


def _read_cells(file: Path) -> Iterator[list[object]]:
    try:
        if file.suffix.lower() == ".xlsx":
            sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
            yield from (list(row) for row in sheet.iter_rows(values_only=True))
            return
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CohortError(f"there is no table {file}.") from None
    except UnicodeDecodeError:
        raise CohortError(f"the table {file} is not UTF-8 text; save it as CSV UTF-8.") from None
    except (OSError, BadZipFile, InvalidFileException, KeyError) as error:
        raise CohortError(f"the table {file} cannot be read: {error}.") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    yield from csv.reader(text.splitlines(), delimiter=delimiter)


def _some(names: list[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
