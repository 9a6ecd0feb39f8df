"""A run that was begun, trained on with its own settings and split."""

from __future__ import annotations

from toolkit.training.loop import train
from toolkit.training.prepare import Watcher, read_scans, training_data
from toolkit.training.ranks import ALONE, Ranks
from toolkit.training.run import Run


def continue_run(run: Run, watcher: Watcher, ranks: Ranks = ALONE) -> None:
    """Train an ordinary run to its end.

    Args:
        run: new, stopped or killed; not of folds.
        watcher: is told what happens.
        ranks: who shares the work.

    Raises:
        CohortError: its patients have changed or cannot be used.
        Interrupted: SIGINT.
        RunError: see `train`.
    """
    training, validation = run.training_patients(), run.validation_patients()
    scans = ranks.in_turn(lambda: read_scans(training.joined(validation), run.settings, watcher))
    train(run, training_data(training, scans), training_data(validation, scans), watcher, ranks)
