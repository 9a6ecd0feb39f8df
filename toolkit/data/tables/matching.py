"""Which row of a table is which patient: by the exact id, else by a rule that is told."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from toolkit.data.layout import person_folder, person_names
from toolkit.data.patients import Patient, printable
from toolkit.data.tables.rows import LabelRow, LabelRows
from toolkit.errors import CohortError

SHOWN = 3  # pairs in a note


def match_rows(
    patients: Sequence[Patient], table: LabelRows, folder: Path
) -> tuple[dict[str, list[LabelRow]], tuple[str, ...]]:
    """The rows of each patient.

    An id matches as `grade` prints it, as the path below the cohort's folder, or as the folder's name where one patient
    alone has it. What is then left matches where it differs in case, separators, Unicode form or the ending `_nifti`
    alone, or is the same number with other leading zeros (of UCSF-PDGM too, whose table has a digit less than its
    folders). P1 is not P01.

    Args:
        patients: of one cohort.
        table: the rows.
        folder: the cohort's folder.

    Returns:
        Id of a patient -> rows, at least one; a sentence for each rule by which ids were matched.

    Raises:
        CohortError: an id could be several patients, or a patient several rows.
    """
    index: dict[str, list[tuple[int, LabelRow]]] = {}
    for row in table.rows:
        for column, name in row.ids.items():
            index.setdefault(name, []).append((column, row))
    names = {patient.id: _names(patient, folder) for patient in patients}
    matched = {patient.id: _take(names[patient.id][0], index, patient, table) for patient in patients}
    _by_folder_name(patients, names, index, matched, table)
    notes = [
        note
        for rule, key in (("case, separators or `_nifti`", _spelled), ("leading zeros of a number", _number))
        if (note := _by_rule((rule, key), patients, names, matched, table))
    ]
    return {name: rows for name, rows in matched.items() if rows}, tuple(notes)


def _names(patient: Patient, folder: Path) -> tuple[set[str], set[str]]:
    """The id, which is this patient's alone, and names that another folder may share."""
    below = Path(*patient.folder.parts[len(folder.absolute().parts) :]).as_posix()
    shared = {below, printable(below), patient.folder.name, printable(patient.folder.name)}
    return {patient.id}, (shared | person_names(patient.folder)) - {patient.id}


def _take(
    names: set[str], index: dict[str, list[tuple[int, LabelRow]]], patient: Patient, table: LabelRows
) -> list[LabelRow]:
    """The rows with one of these ids; two columns of ids may not name different ones."""
    columns: dict[int, dict[int, LabelRow]] = {}
    for name in names:
        for column, row in index.get(name, ()):
            columns.setdefault(column, {})[row.number] = row
    found = list(columns.items())
    for column, rows in found[1:]:
        first, others = found[0]
        if not rows.keys() & others.keys():
            header = table.table.header
            raise CohortError(
                f"patient {patient.id} is {table.table.line} {min(others)} by the column '{header[first]}' and "
                f"{table.table.line} {min(rows)} by the column '{header[column]}'; name the right one in [data.labels] "
                "patient (or --patient-column)."
            )
    return [row for _, rows in found for row in rows.values()]


def _by_folder_name(
    patients: Sequence[Patient],
    names: dict[str, tuple[set[str], set[str]]],
    index: dict[str, list[tuple[int, LabelRow]]],
    matched: dict[str, list[LabelRow]],
    table: LabelRows,
) -> None:
    """Rows that name a folder, or a person with several sessions; `matched` takes them."""
    owners: dict[str, list[Patient]] = {}
    for patient in patients:
        for name in names[patient.id][1]:
            owners.setdefault(name, []).append(patient)
    for patient in patients:
        if matched[patient.id]:
            continue
        there = {name for name in names[patient.id][1] if name in index and name not in names}
        for name in there:
            if others := [other for other in owners[name] if not _same_person(other, patient)]:
                line = index[name][0][1].number
                raise CohortError(
                    f"the id '{name}' in {table.table.line} {line} could be {patient.id} or {others[0].id}; write it "
                    "in the table as `grade check` prints it."
                )
        matched[patient.id] = _take(there, index, patient, table)


def _same_person(one: Patient, other: Patient) -> bool:
    return one is other or (person_folder(one.folder) or one) == (person_folder(other.folder) or other)


def _by_rule(
    how: tuple[str, Callable[[str], str]],
    patients: Sequence[Patient],
    names: dict[str, tuple[set[str], set[str]]],
    matched: dict[str, list[LabelRow]],
    table: LabelRows,
) -> str:
    """Match what is left where a rule, its name and its key, makes both ids the same; a sentence that says so."""
    rule, key = how
    taken = {row.number for rows in matched.values() for row in rows}
    rows: dict[str, dict[str, list[LabelRow]]] = {}
    for row in table.rows:
        for name in row.ids.values() if row.number not in taken else ():
            rows.setdefault(key(name), {}).setdefault(name, []).append(row)
    left: dict[str, dict[str, Patient]] = {}
    for patient in patients:
        for name in () if matched[patient.id] else set().union(*names[patient.id]):
            if (plain := key(name)) and plain in rows:
                left.setdefault(plain, {})[patient.id] = patient
    pairs = []
    for plain, could in sorted(left.items()):
        one, *others = could.values()
        if len(rows[plain]) > 1 or not all(_same_person(one, other) for other in others):
            raise CohortError(
                f"{_either(rows[plain])} in the table could be {_either(could)}: they differ in {rule} alone; write "
                "the ids in the table as `grade check` prints them."
            )
        ((spelling, found),) = rows[plain].items()
        for name in could:
            matched[name] = matched[name] + [row for row in found if row not in matched[name]]
            pairs.append(f"'{spelling}' for {name}")
    if not pairs:
        return ""
    shown = ", ".join(pairs[:SHOWN]) + (f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else "")
    return f"{len(pairs)} ids of the table differ from the folders' in {rule} alone and were matched: {shown}."


def _either(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in sorted(names)[:2])


def _spelled(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[-_.\s]+", "-", folded).strip("-").removesuffix("-nifti")


def _number(name: str) -> str:
    if found := re.fullmatch(r"0*(\d+)([.,]0+)?", name):  # 7.0 is how a program of statistics writes 7
        return found[1]
    found = re.fullmatch(r"ucsf-pdgm-0*(\d+)", _spelled(name))
    return f"ucsf-pdgm-{found[1]}" if found else ""
