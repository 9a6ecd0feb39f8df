"""What a prediction on a cluster looks like in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from cli.console import Counter as Bar
from cli.console import bar, note, say
from cli.prediction import SHOWN, SOME_REFUSED, say_plan, show_records
from deploy.cluster import Watching, predict_on_cluster
from deploy.journal import JOURNAL
from deploy.model import Model
from deploy.predict import Plan, PredictOptions
from deploy.results import Record
from deploy.verdict import CERTAIN
from toolkit.data.patients import Patient


class _Screen:
    """Counts what is done; holds only the few records that are shown at the end."""

    def __init__(self, progress: Bar) -> None:
        self._bar, self._start = progress, perf_counter()
        self.shown: list[Record] = []
        self.counts: Counter[str] = Counter()
        self.again = 0

    def plan(self, where: str, plan: Plan, kept: int) -> None:
        say(f"On {where}.")
        say_plan(plan)
        for _ in range(kept):
            self._bar()
        self._start = perf_counter()

    def record(self, record: Record) -> None:
        self.counts[record.verdict or "refused"] += 1
        if record.verdict != CERTAIN and len(self.shown) < SHOWN:
            self.shown.append(record)
        self._bar()
        rate = self.counts.total() / (perf_counter() - self._start)
        self._bar.describe(f"grading, {rate:.1f} patients/s, {self.counts['refused']} refused, {self.again} done again")

    def once_more(self, patients: int, why: str) -> None:
        self.again += patients
        note(f"{patients} patients are done again: {why}.")


def graded_on_cluster(patients: Sequence[Patient], model: Model, options: PredictOptions, address: str) -> int:
    """Grade on a cluster, show, and give the exit code."""
    with bar("grading", len(patients)) as progress:
        screen = _Screen(progress)
        watching = Watching(screen.plan, screen.record, screen.once_more)
        summary = predict_on_cluster(patients, model, options, address, watching)
    if screen.shown:
        show_records(screen.shown)
    if summary.kept:
        note(
            f"{summary.kept} patients were graded by an earlier call and are kept;"
            f" delete {options.results / JOURNAL} to grade them again."
        )
    if screen.counts:
        say(f"verdicts: {', '.join(f'{count} {word}' for word, count in screen.counts.most_common())}")
    fresh = summary.graded + summary.refused - summary.kept
    say(
        f"{summary.graded} graded, {summary.refused} refused, {screen.again} done again; {fresh} in"
        f" {summary.seconds:.1f} s; files in {options.results}"
    )
    say("Research use only; not a medical device.")
    return 0 if not summary.refused else SOME_REFUSED if summary.graded else 1
