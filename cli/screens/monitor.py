"""What `grade monitor` shows and writes."""

from __future__ import annotations

import json
from pathlib import Path

from cli.console import answer, note, say
from cli.tables import show_section
from deploy.life.monitor import Monitor
from deploy.life.monitor_page import PAGE, facts, monitor_page, outcomes, periods, prometheus, summary, watched
from deploy.model.folder import Model
from toolkit.config import LabelTable
from toolkit.data.labels import read_labels
from toolkit.errors import CohortError, GradeError
from toolkit.files import write_file

ROWS = 10  # of the figures that are watched


def known_outcomes(table: LabelTable | None) -> dict[str, int]:
    """Id -> grade by pathology; rows without a grade are not known yet.

    Raises:
        CohortError: the table cannot be read, or two rows of one id differ.
    """
    if table is None:
        return {}
    found: dict[str, int] = {}
    labels = read_labels(table)
    for name, grade in zip(labels.ids, labels.grades, strict=True):
        if grade is None:
            continue
        if found.setdefault(name, grade) != grade:
            raise CohortError(f"{name} has two grades in {table.file}; correct the table.")
    return found


def write_monitor(folder: Path, text_file: Path | None, model: Model, found: Monitor) -> None:
    """The page, `monitor.json`, and the text file of Prometheus where it is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(facts(model, found), indent=2, allow_nan=False) + "\n"
    write_file(folder / "monitor.json", record, GradeError)
    write_file(folder / PAGE, monitor_page(model, found), GradeError)
    if text_file:
        write_file(text_file, prometheus(model, found), GradeError)


def show_monitor(found: Monitor, folder: Path) -> None:
    """The periods, what is nearest to an alarm, and what follows."""
    for sentence in found.notes:
        note(sentence)
    show_section(periods(found))
    if any(one.outcomes for one in found.periods):
        show_section(outcomes(found))
    table = watched(found)
    show_section(table._replace(rows=table.rows[:ROWS]))
    for one in found.alarms:
        answer(f"alarm: {one.name}, {one.towards}, at patient {one.patient}, {one.time}")
    answer(summary(found))
    say(f"page: {folder / PAGE}")
