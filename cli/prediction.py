"""What a prediction looks like in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from cli.console import bar, note, say, table
from deploy.model import Model
from deploy.predict import Plan, PredictOptions, Summary, predict
from deploy.results import Record
from toolkit.data.patients import Patient, match_modalities
from toolkit.errors import PatientRefused

SHOWN = 40  # rows of the table; the files hold all
SOME_REFUSED = 3


def graded(patients: Sequence[Patient], model: Model, options: PredictOptions) -> int:
    """Grade, show, and give the exit code."""
    records: list[Record] = []
    with bar("grading", len(patients)) as done:

        def keep(record: Record) -> None:
            records.append(record)
            done()

        summary = predict(patients, model, options, say_plan, keep)
    _show_records(records)
    _show_timings(summary)
    say(f"{summary.graded} graded, {summary.refused} refused; files in {options.results}")
    say("Research use only; not a medical device.")
    return 0 if not summary.refused else SOME_REFUSED if summary.graded else 1


def show_plan(patients: Sequence[Patient]) -> int:
    """Who would be graded, from the names of the files alone, and the exit code."""
    rows = []
    refused = 0
    for patient in patients:
        try:
            files = match_modalities(patient.folder)
            rows.append((patient.id, ", ".join(file.name for file in files.modalities.values())))
        except PatientRefused as reason:
            refused += 1
            rows.append((patient.id, f"refused: {reason}"))
    table(f"{len(patients)} patients", ("patient", "flair, t1, t1ce, t2"), rows)
    return 0 if not refused else SOME_REFUSED if refused < len(patients) else 1


def say_plan(plan: Plan) -> None:
    """What was chosen for this machine."""
    say(f"{plan.chosen} Batch size {plan.batch_size}, reading threads {plan.workers}.")


def _show_records(records: Sequence[Record]) -> None:
    rows = [
        (
            record.patient,
            record.grade or "refused",
            "" if record.probability is None else f"{record.probability:.3f}",
            record.reason or "; ".join(record.notes),
        )
        for record in sorted(records, key=lambda record: record.grade is not None)[:SHOWN]  # the refused first
    ]
    threshold = f"threshold {records[0].threshold:.3f}" if records else ""
    table(f"{len(records)} patients, {threshold}", ("patient", "grade", "P(HGG)", "remarks"), rows)
    if len(records) > SHOWN:
        note(f"{len(records) - SHOWN} more in predictions.csv.")


def _show_timings(summary: Summary) -> None:
    times = summary.timings
    rest = times.total - times.waiting - times.infer
    say(
        f"{times.total:.2f} s: open model {times.open:.2f}, self-test {times.self_test:.2f}, wait for reading "
        f"{times.waiting:.2f}, inference {times.infer:.2f}, write {times.write:.2f}; apart from reading and inference "
        f"{rest:.2f}"
    )
