"""One way to train one run: with its own settings, on its own split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from toolkit.data.cache import Scan
from toolkit.files import sweep
from toolkit.training.loop.train import train
from toolkit.training.prepare import named_cohort, read_scans, training_data
from toolkit.training.processes.ranks import ALONE, Ranks
from toolkit.training.runs.run import Run
from toolkit.training.runs.unchanged import check_cohort
from toolkit.training.watch import Progress, Watcher


def train_run(run: Run, scans: Mapping[Path, Scan], progress: Progress, ranks: Ranks = ALONE) -> None:
    """Train an ordinary run to its end, from where it was left.

    Args:
        run: new, stopped or killed; not of folds.
        scans: of each patient's folder, float32 (4, X, Y, Z).
        progress: is told what happens.
        ranks: who shares the work.

    Raises:
        Interrupted: SIGINT.
        RunError: see `train`.
    """
    training, validation = (training_data(side, scans) for side in (run.training_patients(), run.validation_patients()))
    with run.alone() if ranks.first else nullcontext():
        if ranks.first:
            sweep(run.folder)
        train(run, training, validation, progress, ranks)


def continue_run(run: Run, watcher: Watcher, ranks: Ranks = ALONE) -> None:
    """Read a run's patients again, and train it as `train_run` does.

    Raises:
        CohortError: its patients have changed or cannot be used.
        Interrupted: SIGINT.
        RunError: see `train`.
    """
    train_run(run, ranks.in_turn(lambda: read_again(run, watcher)), watcher, ranks)


def read_again(run: Run, watcher: Watcher) -> dict[Path, Scan]:
    """The scans of a run that was begun earlier, by each patient's folder.

    Raises:
        CohortError: its patients have changed or cannot be used.
    """
    now = named_cohort(run.settings.data)
    if now is not None:
        check_cohort(run, now, {})  # before anything is read
    everyone = run.training_patients().joined(run.validation_patients())
    scans = read_scans(everyone, run.settings.data, watcher)
    check_cohort(run, now or everyone, scans)
    return scans
