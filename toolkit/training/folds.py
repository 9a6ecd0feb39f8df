"""A run of folds: an ordinary run inside for each, their answers pooled, their networks an ensemble."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import Settings
from toolkit.data.cache import Scan
from toolkit.data.cohort.split import Split
from toolkit.errors import RunError
from toolkit.training.prepare import Prepared
from toolkit.training.processes.ranks import Ranks
from toolkit.training.processes.spread import IN_THIS_PROCESS, Spread, spread
from toolkit.training.runs.folder import create_run, fold_name, fold_runs, open_run, point_latest
from toolkit.training.runs.outcome import fold_metrics, recalibrate
from toolkit.training.runs.run import Run, ValidationTable
from toolkit.training.single import continue_run, train_run
from toolkit.training.watch import Progress, Quiet


def begin_folds(folder: Path, settings: Settings, prepared: Prepared) -> Run:
    """Begin a run of folds, with all patients in its split on both sides, and in it a run for each fold.

    Args:
        folder: of the new run.
        settings: `[data] folds` and `repeats`; a fold's own settings have neither, and each fold a seed of its own.
        prepared: the cohort.

    Raises:
        CohortError: see `split_folds`.
        RunError: see `create_run`.
    """
    data, seed = settings.data, settings.training.seed
    splits = [split for repeat in range(data.repeats) for split in prepared.folds(data, data.folds, seed + repeat)]
    run = create_run(folder.parent, folder.name, settings, Split(prepared.cohort, prepared.cohort), prepared.images)
    for number, split in enumerate(splits, start=1):
        own = settings.model_copy(
            update={
                "data": data.model_copy(update={"folds": 0, "repeats": 1}),
                "training": settings.training.model_copy(update={"seed": seed + number - 1}),
            }
        )
        create_run(run.folder, fold_name(number), own, split, prepared.images)
    return run


def train_folds(run: Run, scans: Mapping[Path, Scan], progress: Progress, over: Spread = IN_THIS_PROCESS) -> None:
    """Train the folds that have not ended, then pool all answers.

    Args:
        run: of folds.
        scans: of each patient's folder.
        progress: is told what happens.
        over: how many folds at once, on how many GPUs.

    Raises:
        Interrupted: SIGINT; folds that have ended are kept.
        RunError: see `train`.
    """
    with run.alone():
        _train_waiting(run, scans, progress, over)
        pool(run)


def _train_waiting(run: Run, scans: Mapping[Path, Scan], progress: Progress, over: Spread) -> None:
    folds = fold_runs(run)
    point_latest(run)
    waiting = [fold.folder for fold in folds if not fold.ended]
    if over.jobs > 1:

        def ended(folder: Path, _: str | None) -> None:
            progress.note(f"{folder.name} of {len(folds)} has ended.")

        spread(_in_own_process, waiting, over, ended)
    else:
        for folder in waiting:
            progress.note(f"{folder.name} of {len(folds)}.")
            train_run(open_run(folder), scans, progress)


def _in_own_process(folder: Path, ranks: Ranks) -> None:
    continue_run(open_run(folder), Quiet(), ranks)


def pool(run: Run) -> None:
    """Write `validation.csv`, `environment.json`, and what `recalibrate` writes.

    A patient's logits are those of networks that were not trained on this patient, averaged over repeats.

    Args:
        run: of folds that have all ended.

    Raises:
        RunError: a fold lacks a file, or a patient was never validated.
    """
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    folds = fold_runs(run)
    for fold in folds:
        table = fold.validation()
        for patient, logits in zip(table.patients, table.logits, strict=True):
            found.setdefault(patient, []).append(logits)
    everyone = run.validation_patients()
    lacking = [patient.id for patient in everyone.patients if patient.id not in found]
    if lacking:
        raise RunError(f"no fold of {run.folder} validated {', '.join(lacking[:5])}; train the folds again.")
    names = tuple(patient.id for patient in everyone.patients)
    logits = np.array([np.mean(found[name], axis=0) for name in names], np.float64)  # (N, 2)
    run.write_validation(ValidationTable(names, everyone.grade_array, logits))
    run.write("environment.json", json.dumps(folds[0].environment(), indent=2) + "\n")
    recalibrate(run, run.settings.calibration)


def choose_member(run: Run, which: str) -> Run:
    """One fold of a run of folds.

    Args:
        run: of folds.
        which: `best`, the highest validation AUC, or a number counted from 1.

    Raises:
        RunError: it is no run of folds, or has no such fold.
    """
    folds = fold_runs(run)
    if not folds:
        raise RunError(f"{run.folder} has no folds to choose a member from; leave --member out.")
    if which == "best":
        return max(folds, key=lambda fold: fold_metrics(fold).auc.value or 0.0)
    if not which.isdecimal() or not 1 <= int(which) <= len(folds):
        raise RunError(f"--member {which}: write best, or a number from 1 to {len(folds)}.")
    return folds[int(which) - 1]
