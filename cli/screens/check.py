"""What `grade check` shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from cli.console import bar, note, say, show_json, table
from toolkit.config import LabelTable
from toolkit.data.cohort.check import Checked, check_cohort
from toolkit.data.labels import has_grades, read_cohort, read_labels
from toolkit.data.patients import CLASSES, MODALITIES, find_patients, printable
from toolkit.errors import CohortError
from toolkit.evaluation.sites import SiteOnly, site_only

SHOWN = 100  # rows of the table; --json has all
SOME_REFUSED = 3


class Columns(NamedTuple):
    """Columns of a table of grades that the user named."""

    patient: str | None
    grade: str | None
    site: str | None

    def table(self, file: Path | None) -> LabelTable | None:
        """The table to read, None without a file."""
        if file is None:
            return None
        return LabelTable(file=file, patient=self.patient, grade=self.grade, site=self.site)


def check_table(file: Path, columns: Columns, as_json: bool) -> None:
    """Grades and sites of a table, without images.

    Raises:
        CohortError: it cannot be read, or gives no patient a grade.
    """
    labels = read_labels(LabelTable(file=file, patient=columns.patient, grade=columns.grade, site=columns.site))
    known = [(grade, site) for grade, site in zip(labels.grades, labels.sites, strict=True) if grade is not None]
    if not known:
        raise CohortError(
            f"the table {file} gives no grade: none of its {len(labels.ids)} rows with an id has one; add some."
        )
    grades = [grade for grade, _ in known]
    found = site_only(grades, [site for _, site in known])
    if as_json:
        show_json({"rows": len(labels.ids), "cohort": _cohort_facts(grades, found)})
        return
    say(f"{len(labels.ids)} rows with an id in {file}, {len(labels.ids) - len(known)} of them without a grade")
    for sentence in labels.notes:
        note(sentence)
    _show_cohort(grades, found)


def check_folder(folder: Path, labels: LabelTable | None, workers: int | None, as_json: bool) -> int:
    """Patients and, where grades are known, the cohort; gives the exit code."""
    patients = find_patients([folder])
    cohort = read_cohort(folder, labels) if labels or has_grades(folder) else None
    start = perf_counter()
    with bar("checking", len(patients)) as done:
        checked = check_cohort(patients, cohort, done, workers)
    seconds = perf_counter() - start
    site = site_only(cohort.grades, cohort.sites) if cohort else None
    graded = len(patients) - checked.refused
    if as_json:
        facts: dict[str, Any] = {
            "patients": [_patient_facts(check) for check in checked.patients],
            "same_images": [[check.patient.id for check in group] for group in checked.duplicates],
            "cohort": _cohort_facts(cohort.grades, site) if cohort else None,
            "persons": checked.persons,
            "conflict": checked.conflict,
        }
        show_json(facts)
    else:
        _show_patients(checked.patients)
        for group in checked.duplicates:
            note(f"{', '.join(check.patient.id for check in group)} hold the same images.")
        if cohort:
            for sentence in cohort.notes:
                note(sentence)
            _show_cohort(cohort.grades, site)
            if checked.persons and checked.persons < len(cohort):
                note(f"{len(cohort)} patients are {checked.persons} persons; a person stays on one side of a split.")
        if checked.conflict:
            note(checked.conflict)
        say(f"{graded} can be graded, {checked.refused} refused; {seconds:.1f} s")
    if not graded:
        return 1
    return SOME_REFUSED if checked.refused or checked.conflict else 0


def _show_patients(checks: Sequence[Checked]) -> None:
    ordered = sorted(checks, key=lambda check: not check.reason)  # the refused first
    rows = []
    for check in ordered[:SHOWN]:
        names = " ".join(_short(check.files[name], check.patient.id) for name in MODALITIES if name in check.files)
        edges = dict.fromkeys(f"{edge:g}" for edge in check.spacing)  # one where all are equal
        size = f"{'x'.join(map(str, check.shape))}, {'x'.join(edges)} mm"
        rows.append(
            (
                check.patient.id,
                "refused" if check.reason else "good",
                names,
                "" if check.reason else size,
                check.reason or "; ".join(check.notes),
            )
        )
    table(f"{len(checks)} patients", ("patient", "", ", ".join(MODALITIES), "voxels", "remarks"), rows)
    if len(checks) > SHOWN:
        note(f"{len(checks) - SHOWN} more with --json.")


def _short(file: str, patient: str) -> str:
    """A file's name without the patient's id before it and the ending behind it."""
    return printable(re.sub(r"\.nii(\.gz)?\s*$", "", file.removeprefix(patient).lstrip("-_. ") or file, flags=re.I))


def _show_cohort(grades: Sequence[int], site: SiteOnly | None) -> None:
    counts = [(name, str(list(grades).count(index))) for index, name in enumerate(CLASSES)]
    table("Grades", ("", "patients"), counts)
    if site is None:
        note("no site is known: neither a column of sites nor ids that name one.")
        return
    table(
        "Sites",
        ("site", *CLASSES),
        [(name, str(lgg), str(hgg)) for name, (lgg, hgg) in site.sites.items()],
    )
    say(site.sentence)
    if site.warning:
        note(site.warning)


def _cohort_facts(grades: Sequence[int], site: SiteOnly | None) -> dict[str, Any]:
    facts: dict[str, Any] = {name: list(grades).count(index) for index, name in enumerate(CLASSES)}
    if site:
        facts["site_only"] = {"auc": site.auc, "accuracy": site.accuracy, "sites": site.sites}
    return facts


def _patient_facts(check: Checked) -> dict[str, Any]:
    return {
        "patient": printable(check.patient.id),
        "folder": printable(str(check.patient.folder)),
        "refused": bool(check.reason),
        "reason": check.reason,
        "notes": check.notes,
        "files": {name: printable(file) for name, file in check.files.items()},
        "shape": check.shape,
        "spacing_mm": check.spacing,
        "brain_ml": check.brain_ml,
        "seconds": round(check.seconds, 3),
    }
