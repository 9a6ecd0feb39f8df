"""From settings to a training: guard, cohort, split, run folder, loop; or to one training for each fold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from toolkit.config import Settings
from toolkit.errors import SettingsError
from toolkit.training.balance import check_conflicts
from toolkit.training.folds import begin_folds, train_folds
from toolkit.training.loop import train
from toolkit.training.prepare import Watcher, prepare, read_scans, training_data
from toolkit.training.ranks import ALONE, Ranks
from toolkit.training.resume import continue_run
from toolkit.training.run import Run
from toolkit.training.runs import create_run, open_run
from toolkit.training.spread import IN_THIS_PROCESS, Spread


@dataclass(frozen=True)
class Place:
    """Where a training happens.

    Attributes:
        ranks: who shares each step.
        over: how many folds at once, on how many GPUs.
    """

    ranks: Ranks = ALONE
    over: Spread = IN_THIS_PROCESS


HERE = Place()


def start_training(
    settings: Settings, runs: Path, name: str | None, allow_conflicts: bool, watcher: Watcher, place: Place = HERE
) -> Run:
    """Train a new run.

    Args:
        settings: everything; `[data] cohort` is needed.
        runs: folder of the runs.
        name: of the new run; None makes one of date, time and strategy.
        allow_conflicts: train although the guard objects.
        watcher: is told what happens.
        place: on which processes and GPUs.

    Returns:
        The run, trained and calibrated.

    Raises:
        SettingsError: no cohort is named, or the guard objects.
        CohortError: the cohort, its labels, its split or its patients cannot be used.
        RunError: see `train`.
    """
    ranks = place.ranks
    for sentence in check_conflicts(settings, allow_conflicts):
        watcher.note(sentence)
    prepared = ranks.in_turn(lambda: prepare(settings, watcher))
    name = name or f"{datetime.now():%Y-%m-%d_%H%M%S}_{settings.strategy}"
    if settings.data.folds:
        _check_alone(ranks)
        run = begin_folds(runs, name, settings, prepared)
        train_folds(run, prepared.scans, watcher, place.over)
        return run
    split = prepared.split(settings)
    if prepared.validation and (fewer := len(prepared.cohort) - len(split.training)):
        watcher.note(f"{fewer} patients of the cohort are among those that validate; they are not trained on.")
    run = ranks.lead(lambda: create_run(runs, name, settings, split))
    training, validation = (training_data(side, prepared.scans) for side in (split.training, split.validation))
    train(run, training, validation, watcher, ranks)
    return run


def resume_training(folder: Path, watcher: Watcher, place: Place = HERE) -> Run:
    """Continue a run that was stopped or killed, with its own settings and split.

    Args:
        folder: the run, or `runs/latest`.
        watcher: is told what happens.
        place: on which processes and GPUs; as many as before, or others.

    Raises:
        RunError: no such run.
        CohortError: its patients have changed or cannot be used.
    """
    run = open_run(folder)
    if run.settings.data.folds:
        _check_alone(place.ranks)
        train_folds(run, read_scans(run.validation_patients(), run.settings, watcher), watcher, place.over)
    else:
        continue_run(run, watcher, place.ranks)
    return run


def _check_alone(ranks: Ranks) -> None:
    if ranks.size > 1:
        raise SettingsError(
            f"{ranks.size} processes cannot share the trainings of folds; use `grade train --devices {ranks.size}`"
            " without torchrun, which deals whole folds to the devices."
        )
