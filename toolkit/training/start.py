"""From settings to a training: guard, cohort, split, run folder, loop; or to one training for each fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.config import Settings
from toolkit.errors import SettingsError
from toolkit.training.folds import begin_folds, train_folds
from toolkit.training.outlook import check_start
from toolkit.training.prepare import prepare
from toolkit.training.processes.ranks import ALONE, Ranks
from toolkit.training.processes.spread import IN_THIS_PROCESS, Spread
from toolkit.training.runs.folder import create_run, open_run
from toolkit.training.runs.run import Run
from toolkit.training.single import continue_run, read_again, train_run
from toolkit.training.watch import Watcher


@dataclass(frozen=True)
class Processes:
    """Which processes train.

    Attributes:
        ranks: who shares each step.
        over: how many folds at once, on how many GPUs.
    """

    ranks: Ranks = ALONE
    over: Spread = IN_THIS_PROCESS


THIS_ONE = Processes()


def start_training(
    settings: Settings,
    folder: Path,
    watcher: Watcher,
    allow_conflicts: bool = False,
    processes: Processes = THIS_ONE,
) -> Run:
    """Train a new run.

    Args:
        settings: everything; `[data] cohort` is needed.
        folder: of the new run, as `new_folder` names it.
        watcher: is told what happens.
        allow_conflicts: train although the guard objects.
        processes: which of them share the work.

    Returns:
        The run, trained and calibrated.

    Raises:
        SettingsError: no cohort is named, or the guard objects.
        CohortError: the cohort, its labels, its split or its patients cannot be used.
        RunError: the folder exists, or see `train`.
    """
    ranks = processes.ranks
    # Nobody waits for a cohort to be read and then learns that the device is not there.
    for sentence in ranks.in_turn(lambda: check_start(settings, folder, allow_conflicts, ranks)):
        watcher.note(sentence)
    prepared = ranks.in_turn(lambda: prepare(settings.data, watcher))
    if settings.data.folds:
        _check_alone(ranks)
        run = begin_folds(folder, settings, prepared)
        train_folds(run, prepared.scans, watcher, processes.over)
        return run
    split = prepared.split(settings.data, settings.training.seed)
    if prepared.validation and (fewer := len(prepared.cohort) - len(split.training)):
        watcher.note(f"{fewer} patients of the cohort are among those that validate; they are not trained on.")
    made = ranks.lead(lambda: str(create_run(folder.parent, folder.name, settings, split, prepared.images).folder))
    run = open_run(Path(made))  # by all ranks: machines that train together share the folder of runs
    train_run(run, prepared.scans, watcher, ranks)
    return run


def resume_training(folder: Path, watcher: Watcher, processes: Processes = THIS_ONE) -> Run:
    """Continue a run that was stopped or killed, with its own settings and split.

    Args:
        folder: the run, or `runs/latest`.
        watcher: is told what happens.
        processes: as many as before, or others.

    Raises:
        RunError: no such run.
        CohortError: its patients have changed or cannot be used.
    """
    run = open_run(folder)
    if run.settings.data.folds:
        _check_alone(processes.ranks)
        scans = read_again(run, watcher)
        train_folds(run, scans, watcher, processes.over)
    else:
        continue_run(run, watcher, processes.ranks)
    return run


def _check_alone(ranks: Ranks) -> None:
    if ranks.size > 1:
        raise SettingsError(
            f"{ranks.size} processes cannot share the trainings of folds; use `grade train --devices {ranks.size}`"
            " without torchrun, which deals whole folds to the devices."
        )
