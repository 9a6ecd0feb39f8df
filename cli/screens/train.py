"""What a training looks like in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.console import bar, err, figure, note, say, table
from cli.gate import program
from cli.tables import show_metrics
from toolkit.data.patients import CLASSES, Patient
from toolkit.evaluation.metrics import evaluate
from toolkit.evaluation.stability import stability
from toolkit.training.launch import check_devices, launch
from toolkit.training.outcome import fold_metrics, spike_sentence
from toolkit.training.ranks import Ranks
from toolkit.training.run import EpochRow, Run
from toolkit.training.runs import fold_runs
from toolkit.training.spread import Spread
from toolkit.training.start import Processes
from toolkit.training.watch import Quiet, Watcher


class TrainingScreen:
    """One bar for the epoch, one line for each epoch that ended."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=err, transient=True)
        self._task: TaskID | None = None
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextmanager
    def reading(self, patients: int) -> Iterator[Callable[[Patient], None]]:
        """A bar for reading and preprocessing."""
        with bar("reading patients", patients) as done:
            yield done
        say(f"{patients} patients read and preprocessed")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        note(text)

    def epoch_started(self, epoch: int, steps: int) -> None:
        """Begin the bar of an epoch."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("")
        self._progress.reset(self._task, total=steps, description=f"epoch {epoch}")

    def step(self, loss: float) -> None:
        """Advance it."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, description=f"loss {loss:.3f}")

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        """Leave a line behind."""
        say(
            f"epoch {row.epoch:3}  loss {row.train_loss:.3f} / {row.val_loss:.3f}  "
            f"AUC {figure(row.train_auc)} / {figure(row.val_auc)} (training / validation)  "
            f"{row.seconds:.1f} s{'  best' if best else ''}"
        )


def processes_of(ranks: Ranks, devices: int, folds: bool) -> Processes:
    """Which processes train; several processes are started here unless that has been done.

    Args:
        ranks: this process among others.
        devices: GPUs asked for.
        folds: whole folds are dealt to them, so that they share no step.

    Raises:
        typer.Exit: other processes have done the work.
        RunError: one of them was killed.
        RuntimeUnavailable: there are fewer GPUs.
    """
    if devices == 1 or ranks.size > 1:
        return Processes(ranks)
    if folds:
        check_devices(devices)
        return Processes(over=Spread(devices, devices))
    raise typer.Exit(launch(program(sys.argv[1:]), devices))


@contextmanager
def watching(ranks: Ranks) -> Iterator[Watcher]:
    """The screen on rank 0, and nothing on the others."""
    if not ranks.first:
        yield Quiet()
        return
    with TrainingScreen() as screen:
        yield screen


def show_run(run: Run) -> None:
    """What came out of a training: metrics, stability criteria, calibration, where the files are."""
    outcome, calibration = run.validation(), run.calibration()
    metrics = evaluate(outcome.grades, calibration.probability(outcome.logit), calibration.threshold)
    counts = " and ".join(f"{calibration.cases[name]} {name}" for name in CLASSES)
    show_metrics(f"Validation ({counts}), threshold {calibration.threshold:.3f} by {calibration.rule}", metrics)
    for text in calibration.notes:
        note(text)
    if run.settings.data.folds:
        rows = [_fold_row(fold) for fold in fold_runs(run)]
        table("Folds", ("", "patients", "AUC", "95 % interval", "epochs"), rows)
    else:
        _show_stability(run)
    say(f"run: {run.folder}   page: {run.folder / 'report.html'}")


def _fold_row(fold: Run) -> tuple[str, ...]:
    value, low, high = fold_metrics(fold).auc
    count, epochs = len(fold.validation_patients()), len(fold.history())
    return fold.folder.name, str(count), figure(value), f"{figure(low)} to {figure(high)}", str(epochs)


def _show_stability(run: Run) -> None:
    words = {True: "met", False: "not met", None: "undefined"}
    rows = [(words[criterion.met], criterion.sentence) for criterion in stability(run.history())]
    rows.append(("–", spike_sentence(run.step_losses())))
    table("Stability", ("", ""), rows)
