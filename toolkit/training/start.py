"""From settings to a training: guard, cohort, split, run folder, loop; or to one training for each fold."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from toolkit.config import Settings
from toolkit.training.balance import check_conflicts
from toolkit.training.folds import begin_folds, train_folds
from toolkit.training.loop import train
from toolkit.training.prepare import Watcher, prepare, read_scans, training_data
from toolkit.training.run import Run
from toolkit.training.runs import create_run, open_run


def start_training(settings: Settings, runs: Path, name: str | None, allow_conflicts: bool, watcher: Watcher) -> Run:
    """Train a new run.

    Args:
        settings: everything; `[data] cohort` is needed.
        runs: folder of the runs.
        name: of the new run; None makes one of date, time and strategy.
        allow_conflicts: train although the guard objects.
        watcher: is told what happens.

    Returns:
        The run, trained and calibrated.

    Raises:
        SettingsError: no cohort is named, or the guard objects.
        CohortError: the cohort, its labels, its split or its patients cannot be used.
        RunError: see `train`.
    """
    for sentence in check_conflicts(settings, allow_conflicts):
        watcher.note(sentence)
    prepared = prepare(settings, watcher)
    name = name or f"{datetime.now():%Y-%m-%d_%H%M%S}_{settings.strategy}"
    if settings.data.folds:
        run = begin_folds(runs, name, settings, prepared)
        train_folds(run, prepared.scans, watcher)
        return run
    split = prepared.split(settings)
    if prepared.validation and (fewer := len(prepared.cohort) - len(split.training)):
        watcher.note(f"{fewer} patients of the cohort are among those that validate; they are not trained on.")
    run = create_run(runs, name, settings, split)
    train(run, training_data(split.training, prepared.scans), training_data(split.validation, prepared.scans), watcher)
    return run


def resume_training(folder: Path, watcher: Watcher) -> Run:
    """Continue a run that was stopped or killed, with its own settings and split.

    Args:
        folder: the run, or `runs/latest`.
        watcher: is told what happens.

    Raises:
        RunError: no such run.
        CohortError: its patients have changed or cannot be used.
    """
    run = open_run(folder)
    training, validation = run.training_patients(), run.validation_patients()
    if run.settings.data.folds:
        train_folds(run, read_scans(validation, run.settings, watcher), watcher)  # everybody validates
        return run
    scans = read_scans(training.joined(validation), run.settings, watcher)
    train(run, training_data(training, scans), training_data(validation, scans), watcher)
    return run
