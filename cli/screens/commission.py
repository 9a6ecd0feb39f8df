"""What `grade commission` shows."""

from __future__ import annotations

from pathlib import Path

from cli.console import answer, note, say
from cli.tables import show_section
from deploy.life.commission import Commission, Site
from deploy.life.commission_page import PAGE, advice, checks_of, claims, familiar, runtimes
from deploy.model.folder import Model
from toolkit.config import LabelTable
from toolkit.data.labels import has_grades, read_cohort
from toolkit.data.patients import find_patients
from toolkit.evaluation.sites import site_only


def patients_of(cohort: Path, table: LabelTable | None) -> tuple[Site, tuple[str, ...]]:
    """Everybody below a folder, with a grade where one is known, and what to tell of the grades.

    Raises:
        CohortError: no patients, or grades that cannot be read.
    """
    everyone = find_patients([cohort])
    if table is None and not has_grades(cohort):
        nobody = "No grades are known: what needs them is not shown; name a table with --labels."
        return Site(everyone, (None,) * len(everyone), (nobody,)), (nobody,)
    known = read_cohort(cohort, table)
    alone = site_only(known.grades, known.sites)
    warning = (alone.warning,) if alone and alone.warning else ()
    grades = dict(zip((patient.folder for patient in known.patients), known.grades, strict=True))
    graded = tuple(grades.get(patient.folder) for patient in everyone)
    return Site(everyone, graded, warning), (*known.notes, *warning)


def show_commission(model: Model, found: Commission, folder: Path) -> None:
    """Checks, claims, familiarity, runtimes, and the verdict last, where it is read."""
    for record in found.refused:
        note(f"{record.patient} was refused: {record.reason}.")
    for section in (runtimes(found), familiar(model, found), claims(model, found), checks_of(found)):
        show_section(section)
    answer(advice(model, found))
    say(f"page: {folder / PAGE}")
