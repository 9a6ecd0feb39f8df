"""The index of a results folder: who was graded or refused, the urgent first, and the order that pages step through."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploy.model.folder import Model
from deploy.predict.verdict import VERDICTS
from deploy.results.names import ASSETS, INDEX, ORDER, PATIENTS, page_of
from deploy.results.record import Record
from toolkit.evaluation.pages.page import render
from toolkit.files import write_file

REFUSED = "refused"


def write_index(folder: Path, records: Sequence[Record], model: Model) -> None:
    """Write `report.html`, and the order of the patients for the pages.

    Args:
        folder: of the results.
        records: of all patients.
        model: that graded them.

    Raises:
        GradeError: they cannot be written.
    """
    ordered = sorted(records, key=_urgency)
    # A patient kept from an earlier call may have been graded without a page.
    there = {record.patient for record in ordered if page_of(folder, record.patient).is_file() and record.grade}
    pages = {name: f"{PATIENTS}/{page_of(folder, name).name}" for name in there}
    verdicts = Counter(record.verdict or REFUSED for record in ordered)
    grades = Counter(record.grade for record in ordered if record.grade)
    page = render(
        "index.html",
        "deploy.report",
        name=f"{len(ordered)} patients" if len(ordered) != 1 else "1 patient",
        kind="Predictions",
        footing=f"{datetime.now(UTC):%Y-%m-%d} · model {model.fingerprint[:12]}",
        synthetic=model.manifest.training.synthetic,
        notes=(),
        records=ordered,
        links=pages,
        verdicts={word: verdicts[word] for word in (REFUSED, *VERDICTS) if verdicts[word]},
        grades=dict(sorted(grades.items())),
        manifest=model.manifest,
        fingerprint=model.fingerprint,
    )
    order = [
        [record.patient, page_of(folder, record.patient).name if record.patient in there else ""] for record in ordered
    ]
    if there:
        (folder / ASSETS).mkdir(exist_ok=True)
        write_file(folder / ASSETS / ORDER, f"window.gradePatients = {json.dumps(order)};\n")
    write_file(folder / INDEX, page)


def _urgency(record: Record) -> tuple[int, list[tuple[int, str]]]:
    """Refused first, then by verdict, then by id with numbers in their order."""
    words = (REFUSED, *VERDICTS)
    word = record.verdict if record.grade else REFUSED
    place = words.index(word) if word in words else 1
    parts = re.findall(r"\d+|\D+", record.patient)
    return place, [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
