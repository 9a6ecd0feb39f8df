"""What a prediction looks like in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from cli.console import bar, note, say, show_json, table
from deploy.model.folder import Model
from deploy.model.manifest import SYNTHETIC
from deploy.predict.pipeline import Plan, PredictOptions, Summary, predict
from deploy.predict.verdict import SINGLE, single_grades, wrong_before
from deploy.results.record import Record
from toolkit.data.patients import Patient, match_modalities, printable
from toolkit.errors import Interrupted, PatientRefused

if TYPE_CHECKING:
    from deploy.report.pages import Pages

SHOWN = 40  # rows of the table; the files hold all
SOME_REFUSED = 3


class Tally:
    """Counts what is done; holds only the few records that are shown at the end, refused and doubtful ones first."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()  # of the graded
        self.done = 0
        self._urgent: tuple[list[Record], ...] = ([], [], [])

    def add(self, record: Record) -> None:
        """One more patient."""
        self.done += 1
        if record.verdict:
            self.verdicts[record.verdict] += 1
        place = 0 if record.grade is None else 2 if record.verdict == SINGLE else 1
        if len(self._urgent[place]) < SHOWN:
            self._urgent[place].append(record)

    def show(self) -> None:
        """The table."""
        shown = [record for records in self._urgent for record in records][:SHOWN]
        threshold = f", threshold {shown[0].threshold:.3f}" if shown else ""
        columns = ("patient", "grade", "P(HGG)", "verdict", "remarks")
        table(f"{self.done} patients{threshold}", columns, [_row(record) for record in shown])
        if self.done > SHOWN:
            note(f"{self.done - SHOWN} more in predictions.csv.")

    def say(self, model: Model) -> None:
        """What the verdicts were, and what they are worth."""
        total = self.verdicts.total()
        if not total:
            return
        say(f"verdicts: {', '.join(f'{count} {word}' for word, count in self.verdicts.most_common())}")
        if self.verdicts[SINGLE]:
            for grade, counts in single_grades(model.manifest).items():
                say(wrong_before(grade, counts))
        if total > self.verdicts[SINGLE]:
            note(f"Do not rely on the grade of {total - self.verdicts[SINGLE]} of {total} graded patients.")
        say("Every answer needs a reader.")


def warn_of_origin(model: Model) -> None:
    """Say first what a model of phantoms is not for."""
    if model.manifest.training.synthetic:
        note(f"Model {model.folder} was {SYNTHETIC}.")


def graded(
    patients: Sequence[Patient],
    model: Model,
    options: PredictOptions,
    as_json: bool,
) -> int:
    """Grade, show, and give the exit code; with `as_json` no table."""
    tally = Tally()
    warn_of_origin(model)
    with bar("grading", len(patients)) as done:

        def keep(record: Record) -> None:
            tally.add(record)
            done()

        try:
            summary = predict(patients, model, options, say_plan, keep)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{tally.done} of {len(patients)} patients are done; the same command with --resume continues."
            ) from None
    if not as_json:
        tally.show()
    tally.say(model)
    _show_timings(summary)
    if summary.kept:
        note(f"{summary.kept} patients were graded by an earlier call and are kept.")
    if summary.others:
        note(f"{summary.others} other patients of earlier calls stay in the results.")
    say(f"{summary.graded} graded, {summary.refused} refused; files in {options.results}")
    say("Research use only; not a medical device.")
    return exit_code(summary.graded, summary.refused)


def exit_code(graded: int, refused: int) -> int:
    """0: all graded; 3: some refused; 1: none graded."""
    return 0 if not refused else SOME_REFUSED if graded else 1


Grading: TypeAlias = Callable[[Sequence[Patient], Model, PredictOptions, bool], int]


def with_pages(single_file: bool) -> Grading:
    """The same with a page for each patient and an index; a single file holds the viewer, too."""

    def reported(patients: Sequence[Patient], model: Model, options: PredictOptions, as_json: bool) -> int:
        from deploy.results.table import read_records

        def opened() -> Pages:
            from deploy.report.pages import Pages  # here, since it loads Matplotlib: while the runtime opens

            return Pages(options.results, model, single_file)

        with ThreadPoolExecutor(1) as pool:
            pages = pool.submit(opened)
            seen = replace(
                options,
                on_seen=lambda record, seen: pages.result().add(record, seen),
                unseen=lambda record: pages.result().lacks(record),
            )
            code = graded(patients, model, seen, as_json)
        say(f"pages: {pages.result().index(read_records(options.results))}")
        return code

    return reported


def show_plan(patients: Sequence[Patient], as_json: bool) -> int:
    """Who would be graded, from the names of the files alone, and the exit code."""
    rows = []
    facts: list[dict[str, Any]] = []
    refused = 0
    for patient in patients:
        try:
            files = match_modalities(patient.folder)
            rows.append((patient.id, ", ".join(file.name for file in files.modalities.values())))
            names = {name: printable(file.name) for name, file in files.modalities.items()}
            facts.append({"patient": printable(patient.id), "files": names, "reason": ""})
        except PatientRefused as reason:
            refused += 1
            rows.append((patient.id, f"refused: {reason}"))
            facts.append({"patient": printable(patient.id), "files": {}, "reason": str(reason)})
    if as_json:
        show_json({"patients": facts})
    else:
        table(f"{len(patients)} patients", ("patient", "flair, t1, t1ce, t2"), rows)
    return exit_code(len(patients) - refused, refused)


def say_plan(plan: Plan) -> None:
    """What was chosen for this machine."""
    measured = f" (measured: {plan.measured})" if plan.measured else ""
    for sentence in plan.notes:
        note(sentence)
    say(f"{plan.chosen} Batch size {plan.batch_size}, reading threads {plan.workers}{measured}.")


def _row(record: Record) -> tuple[str, ...]:
    return (
        record.patient,
        record.grade or "refused",
        "" if record.probability is None else f"{record.probability:.3f}",
        record.verdict or "",
        record.reason or "; ".join(filter(None, (record.explanation, *record.notes))),
    )


def _show_timings(summary: Summary) -> None:
    times = summary.timings
    rest = times.total - times.waiting - times.infer - times.report
    pages = f", pages {times.report:.2f}" if times.report else ""
    say(
        f"{times.total:.2f} s: open model {times.open:.2f}, self-test {times.self_test:.2f}, wait for reading "
        f"{times.waiting:.2f}, inference {times.infer:.2f}, write {times.write:.2f}{pages}; apart from reading and "
        f"inference {rest:.2f}"
    )
