"""From settings to a training: cohort, split, guard, run folder, preprocessed scans, loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from toolkit.config import Settings
from toolkit.data.cache import cached_scans
from toolkit.data.labels import read_cohort
from toolkit.data.patients import Patient
from toolkit.data.split import Split, split_cohort
from toolkit.errors import SettingsError
from toolkit.training.balance import check_conflicts
from toolkit.training.loop import train
from toolkit.training.run import Run, create_run, open_run
from toolkit.training.scans import TrainingData
from toolkit.training.session import Progress


class Watcher(Progress, Protocol):
    """Who watches a training from its start."""

    def reading(self, patients: int) -> AbstractContextManager[Callable[[Patient], None]]:
        """So many patients are about to be read; the result is called after each."""


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
    if settings.data.cohort is None:
        raise SettingsError(
            'no cohort is named: write [data] cohort = "folder" into grade.toml, or --set data.cohort=folder.'
        )
    for sentence in check_conflicts(settings, allow_conflicts):
        watcher.note(sentence)
    cohort = read_cohort(settings.data.cohort, settings.data.labels)
    for sentence in cohort.notes:
        watcher.note(sentence)
    split = split_cohort(cohort, settings.data, settings.training.seed)
    data = _read(split, settings, watcher)  # before the run folder: a cohort that cannot be read leaves none
    run = create_run(runs, name or f"{datetime.now():%Y-%m-%d_%H%M%S}_{settings.strategy}", settings, split)
    train(run, *data, watcher)
    return run


def resume_training(folder: Path, watcher: Watcher) -> Run:
    """Continue a run that was stopped or killed, with its own settings and split.

    Args:
        folder: the run, or `runs/latest`.
        watcher: is told what happens.

    Raises:
        RunError: no such run, or it has ended.
        CohortError: its patients have changed or cannot be used.
    """
    run = open_run(folder)
    split = Split(run.training_patients(), run.validation_patients())
    train(run, *_read(split, run.settings, watcher), watcher)
    return run


def _read(split: Split, settings: Settings, watcher: Watcher) -> tuple[TrainingData, TrainingData]:
    patients = (*split.training.patients, *split.validation.patients)
    with watcher.reading(len(patients)) as on_done:
        scans = cached_scans(patients, settings.data.grid, settings.data.cache, on_done)
    count = len(split.training)
    return TrainingData(split.training, scans[:count]), TrainingData(split.validation, scans[count:])
