"""One way to train one run: with its own settings, on its own split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toolkit.arrays import Float32
from toolkit.training.loop import train
from toolkit.training.prepare import read_scans, training_data
from toolkit.training.ranks import ALONE, Ranks
from toolkit.training.run import Run
from toolkit.training.watch import Progress, Watcher


def train_run(run: Run, scans: Mapping[Path, Float32], progress: Progress, ranks: Ranks = ALONE) -> None:
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
    train(run, training, validation, progress, ranks)


def continue_run(run: Run, watcher: Watcher, ranks: Ranks = ALONE) -> None:
    """Read a run's patients, and train it as `train_run` does.

    Raises:
        CohortError: its patients have changed or cannot be used.
        Interrupted: SIGINT.
        RunError: see `train`.
    """
    everyone = run.training_patients().joined(run.validation_patients())
    scans = ranks.in_turn(lambda: read_scans(everyone, run.settings.data, watcher))
    train_run(run, scans, watcher, ranks)
