"""What a prediction on a cluster looks like in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from cli.console import Counter as Bar
from cli.console import bar, note, say
from cli.screens.predict import Tally, exit_code, say_plan, warn_of_origin
from deploy.cluster.predict import Watching, predict_on_cluster
from deploy.model.folder import Model
from deploy.predict.pipeline import Plan, PredictOptions
from deploy.results.record import Record
from toolkit.data.patients import Patient


class _Screen:
    """The bar, with the rate."""

    def __init__(self, progress: Bar) -> None:
        self._bar, self._start = progress, perf_counter()
        self.tally = Tally()
        self.again = 0

    def plan(self, where: str, plan: Plan, kept: int) -> None:
        say(f"On {where}.")
        say_plan(plan)
        for _ in range(kept):
            self._bar()
        self._start = perf_counter()

    def record(self, record: Record) -> None:
        self.tally.add(record)
        self._bar()
        rate = self.tally.done / (perf_counter() - self._start)
        refused = self.tally.done - self.tally.verdicts.total()
        self._bar.describe(f"grading, {rate:.1f} patients/s, {refused} refused, {self.again} retried")

    def once_more(self, patients: int, why: str) -> None:
        self.again += patients
        note(f"Retrying {patients} patients: {why}.")


def graded_on_cluster(
    patients: Sequence[Patient], model: Model, options: PredictOptions, address: str, as_json: bool
) -> int:
    """Grade on a cluster, show, and give the exit code."""
    warn_of_origin(model)
    with bar("grading", len(patients)) as progress:
        screen = _Screen(progress)
        watching = Watching(screen.plan, screen.record, screen.once_more)
        summary = predict_on_cluster(patients, model, options, address, watching)
    if not as_json:
        screen.tally.show()
    screen.tally.say(model)
    if summary.kept:
        note(f"{summary.kept} patients were graded by an earlier call and are kept.")
    say(
        f"{summary.graded} graded, {summary.refused} refused, {screen.again} retried; {screen.tally.done} in"
        f" {summary.seconds:.1f} s; files in {options.results}"
    )
    say("Research use only; not a medical device.")
    return exit_code(summary.graded, summary.refused)
