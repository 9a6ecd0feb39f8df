"""What a prediction looks like in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from cli.console import bar, note, say, table
from deploy.model import Model
from deploy.predict import Plan, PredictOptions, Summary, predict
from deploy.results import Record
from deploy.verdict import CERTAIN
from toolkit.data.patients import Patient, match_modalities
from toolkit.errors import PatientRefused

SHOWN = 40  # rows of the table; the files hold all
SOME_REFUSED = 3


def graded(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    on_record: Callable[[Record], None] = lambda _: None,
) -> int:
    """Grade, show, and give the exit code."""
    records: list[Record] = []
    with bar("grading", len(patients)) as done:

        def keep(record: Record) -> None:
            records.append(record)
            on_record(record)
            done()

        summary = predict(patients, model, options, say_plan, keep)
    show_records(records)
    _show_timings(summary)
    _show_verdicts(records)
    say(f"{summary.graded} graded, {summary.refused} refused; files in {options.results}")
    say("Research use only; not a medical device.")
    return 0 if not summary.refused else SOME_REFUSED if summary.graded else 1


def reported(patients: Sequence[Patient], model: Model, options: PredictOptions) -> int:
    """The same with a page for each patient and an index."""
    from deploy.pages import Pages  # here, since it loads Matplotlib
    from deploy.results import prepare

    prepare(options.results)
    pages = Pages(options.results, model)
    records: list[Record] = []
    code = graded(patients, model, replace(options, on_seen=pages.add), records.append)
    say(f"pages: {pages.index(records)}")
    return code


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


def show_records(records: Sequence[Record]) -> None:
    """The first of them as a table, those for a human before the others."""
    rows = [
        (
            record.patient,
            record.grade or "refused",
            "" if record.probability is None else f"{record.probability:.3f}",
            record.verdict or "",
            record.reason or "; ".join(filter(None, (record.explanation, *record.notes))),
        )
        for record in sorted(records, key=_urgency)[:SHOWN]
    ]
    threshold = f"threshold {records[0].threshold:.3f}" if records else ""
    table(f"{len(records)} patients, {threshold}", ("patient", "grade", "P(HGG)", "verdict", "remarks"), rows)
    if len(records) > SHOWN:
        note(f"{len(records) - SHOWN} more in predictions.csv.")


def _urgency(record: Record) -> int:
    """The refused first, then those for a human."""
    return 0 if record.grade is None else 2 if record.verdict == CERTAIN else 1


def _show_verdicts(records: Sequence[Record]) -> None:
    counts = Counter(record.verdict for record in records if record.verdict)
    if counts:
        say(f"verdicts: {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    if counts.total() > counts[CERTAIN]:
        note(f"{counts.total() - counts[CERTAIN]} of {counts.total()} graded patients are for a human to decide.")


def _show_timings(summary: Summary) -> None:
    times = summary.timings
    rest = times.total - times.waiting - times.infer
    say(
        f"{times.total:.2f} s: open model {times.open:.2f}, self-test {times.self_test:.2f}, wait for reading "
        f"{times.waiting:.2f}, inference {times.infer:.2f}, write {times.write:.2f}; apart from reading and inference "
        f"{rest:.2f}"
    )
