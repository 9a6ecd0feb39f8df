"""Grades: which patient of a cohort is LGG and which HGG, from folder names or a table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from toolkit.config import LabelTable
from toolkit.data.layout import PHANTOMS, is_phantom
from toolkit.data.patients import CLASSES, Cohort, Patient, find_patients
from toolkit.data.site import site_of
from toolkit.data.tables.columns import holds_grades
from toolkit.data.tables.matching import match_rows
from toolkit.data.tables.rows import LabelRow, LabelRows, read_rows
from toolkit.data.tables.words import one_spelling
from toolkit.errors import CohortError


class _Known(NamedTuple):
    """What is known of one patient; `written` is the table's word for the grade, or the folder's."""

    patient: Patient
    grade: int
    site: str | None
    written: str


def read_cohort(folder: Path, labels: LabelTable | None) -> Cohort:
    """The patients below a folder with their grades and sites.

    Grades come from the table given; else from folders named `HGG` and `LGG` above the patient (BraTS 2013-2018); else
    from a `labels.csv`, `name_mapping*.csv` or `labels.xlsx` in the folder (BraTS 2019 and 2020 have one), or from the
    `participants.tsv` of a BIDS dataset that has a column of grades.

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
    if table is None:
        found = [
            _Known(patient, grade, site_of(patient.id), CLASSES[grade])
            for patient in patients
            if (grade := _folder_grade(patient, folder)) is not None
        ]
        notes = _beside_folders(patients, folder)
    else:
        rows = read_rows(table)
        matched, notes = match_rows(patients, rows, folder)
        found = [one for patient in patients if (one := _known(patient, matched.get(patient.id, []), rows))]
        notes = (*rows.notes, *notes, *_contradicted(found, folder))
    _check(found, len(patients), folder, table)
    names = {one.patient.id for one in found}
    unknown = [patient.id for patient in patients if patient.id not in names]
    if unknown:
        notes += (f"{len(unknown)} patients without a known grade are left out: {_some(unknown)}.",)
    found.sort(key=lambda one: one.patient.id)
    return Cohort(
        tuple(one.patient for one in found),
        tuple(one.grade for one in found),
        one_spelling([one.site for one in found]),
        notes,
        _rule(table, Counter((one.grade, one.written) for one in found)) + _origin([one.patient for one in found]),
    )


class Labels(NamedTuple):
    """A table of grades, without images.

    Attributes:
        ids: one for each row that names a patient.
        grades: 0 LGG, 1 HGG, None unknown.
        sites: from the table's column or the id, None unknown.
        notes: what was passed over, one sentence each.
    """

    ids: tuple[str, ...]
    grades: tuple[int | None, ...]
    sites: tuple[str | None, ...]
    notes: tuple[str, ...] = ()


def read_labels(table: LabelTable) -> Labels:
    """Every row of a table; of several columns of ids the first one filled counts.

    Raises:
        CohortError: the table cannot be read, lacks a column, has a grade that means nothing, or two grades for one
            patient.
    """
    found = read_rows(table)
    return Labels(
        tuple(next(iter(row.ids.values())) for row in found.rows),
        tuple(found.grade(row) for row in found.rows),
        one_spelling([_site(row) for row in found.rows]),
        found.notes,
    )


def has_grades(folder: Path) -> bool:
    """Whether a folder tells the grades of its patients itself, by folders or by a table in it."""
    return _has_grade_folders(find_patients([folder]), folder) or _beside(folder) is not None


def _known(patient: Patient, rows: list[LabelRow], table: LabelRows) -> _Known | None:
    """What the rows of a patient say; None where none of them has a grade.

    Raises:
        CohortError: the rows, though of different ids, are of different grades.
    """
    graded = [(row, grade) for row in rows if (grade := table.grade(row)) is not None]
    if len({grade for _, grade in graded}) > 1:
        lines = ", ".join(str(row.number) for row, _ in graded)
        raise CohortError(
            f"patient {patient.id} has different grades in {table.table.line}s {lines} of the table; correct the table."
        )
    if not graded:
        return None
    row, grade = graded[0]
    sites = [site for row in rows if (site := row.site)]
    return _Known(patient, grade, sites[0] if sites else site_of(patient.id), row.value)


def _site(row: LabelRow) -> str | None:
    # The id of 2018 names a source more exactly than that of 2017.
    return row.site or max((site_of(name) or "" for name in row.ids.values()), key=len) or None


def _beside_folders(patients: tuple[Patient, ...], folder: Path) -> tuple[str, ...]:
    """A sentence about a table beside folders that have the grades, where it cannot be read or says otherwise.

    Raises:
        CohortError: it gives a patient another grade, in the same word.
    """
    if (file := _beside(folder)) is None:
        return ()
    try:
        rows = read_rows(LabelTable(file=file))
        matched, _ = match_rows(patients, rows, folder)
        found = [one for patient in patients if (one := _known(patient, matched.get(patient.id, []), rows))]
    except CohortError as error:
        return (f"The folders give the grades; {file.name} next to them is left out: {error}",)
    if others := _otherwise(found, folder):
        return (f"The folders give the grades; {file.name} next to them has others for {len(others)} patients.",)
    return ()


def _contradicted(found: list[_Known], folder: Path) -> tuple[str, ...]:
    """A sentence about folders named after a grade that is not the table's, which counts; raises as `_otherwise`."""
    if not (others := _otherwise(found, folder)):
        return ()
    return (
        f"{len(others)} patients have another grade by the table than by the folder they are in, and the table counts: "
        f"{_some([one.patient.id for one in others])}.",
    )


def _otherwise(found: list[_Known], folder: Path) -> list[_Known]:
    """Who is below a folder that is named after another grade than the table's.

    Raises:
        CohortError: the table says so in the same word, so that it is no other definition of the grades.
    """
    others = [one for one in found if _folder_grade(one.patient, folder) not in (None, one.grade)]
    for one in others:
        if one.written.strip().upper() in CLASSES:
            raise CohortError(
                f"patient {one.patient.id} is {one.written} in the table and below a folder "
                f"{CLASSES[1 - one.grade]}; correct one of them."
            )
    return others


def _rule(table: LabelTable | None, meant: Counter[tuple[int, str]]) -> str:
    """What the grades rest on: which values were met, how often, and what they were taken for."""
    source = f"table {table.file.name}" if table else "names of the folders above the patients"
    values = [
        ", ".join(f"'{value}' ({count})" for (grade, value), count in sorted(meant.items()) if grade == index)
        + f" as {name}"
        for index, name in enumerate(CLASSES)
    ]
    return f"Grades from the {source}: {'; '.join(values)}."


def _origin(patients: list[Patient]) -> str:
    """What has to be known of a cohort of phantoms wherever its grades are shown."""
    return f" {PHANTOMS}" if any(is_phantom(patient.folder) for patient in patients) else ""


def _check(found: list[_Known], patients: int, folder: Path, table: LabelTable | None) -> None:
    if not found:
        source = f"in {table.file}" if table else "from folder names"
        raise CohortError(
            f"none of the {patients} patients below {folder} has a known grade {source}; "
            "sort them into HGG/ and LGG/, or name a table with [data] labels."
        )
    for index, name in enumerate(CLASSES):
        if all(one.grade != index for one in found):
            raise CohortError(
                f"all {len(found)} patients with a grade below {folder} are {CLASSES[1 - index]}; {name} is needed too."
            )


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
    found = next((file for pattern in patterns for file in sorted(folder.glob(pattern))), None)
    participants = folder / "participants.tsv"  # of BIDS; most have no grades
    return found or (participants if participants.is_file() and holds_grades(participants) else None)


def _table_beside(folder: Path) -> LabelTable:
    if file := _beside(folder):
        return LabelTable(file=file)
    raise CohortError(
        f"the grades below {folder} are unknown: no HGG/ and LGG/ folders, no labels.csv, no name_mapping.csv, no "
        "participants.tsv with grades; name a table with [data] labels."
    )


def _some(names: list[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
