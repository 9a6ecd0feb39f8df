"""What a training would be, before anything is read: conflicts, split, steps, room on the disk and in memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from toolkit.config import Settings
from toolkit.data.cohort.split import Split, split_cohort
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES, MODALITIES, Cohort
from toolkit.errors import SettingsError
from toolkit.training.loop.balance import check_conflicts
from toolkit.training.loop.compute import choose_compute
from toolkit.training.network.network import build_network, without_weights
from toolkit.training.network.pretrained import load_pretrained
from toolkit.training.processes.ranks import ALONE, Ranks
from toolkit.training.runs.folder import check_new

# Tensors of the parameters' size in a checkpoint: weights, their average, two moments of AdamW, the best weights.
_STATES = 5


@dataclass(frozen=True)
class Outlook:
    """A training that has not begun.

    Attributes:
        conflicts: of the settings, which `--allow-conflicts` or `legacy` accepts.
        notes: what the table of grades left out, one sentence each.
        split: who would train and validate, as far as folder names tell; None for a run of folds. Copies of images are
            found only when they are read, and then stay together.
        cohort: all patients.
        device: where it would compute.
        parameters: of the network.
        steps: optimiser steps of an epoch.
        trainings: 1, or folds times repeats.
        disk: bytes that preprocessed scans and checkpoints take.
        free: bytes that the disk of the runs has.
        memory: bytes of the scans of one training, which are held at once.
    """

    conflicts: tuple[str, ...]
    notes: tuple[str, ...]
    split: Split | None
    cohort: Cohort
    device: str
    parameters: int
    steps: int
    trainings: int
    disk: int
    free: int
    memory: int


def check_start(settings: Settings, folder: Path, allow_conflicts: bool, ranks: Ranks = ALONE) -> tuple[str, ...]:
    """Everything that can be refused before the cohort is read.

    Args:
        settings: of the training.
        folder: of the new run.
        allow_conflicts: train although the guard objects.
        ranks: who would share each step.

    Returns:
        The conflicts that are accepted, one sentence each.

    Raises:
        GradeError: a conflict, a run of that name, a device that is not there, weights that do not fit, no cohort.
    """
    conflicts = check_conflicts(settings, allow_conflicts)
    check_new(folder)
    if settings.data.cohort is None:
        raise SettingsError(
            'no cohort is named: write [data] cohort = "folder" into grade.toml, or --set data.cohort=folder.'
        )
    choose_compute(settings.training, ranks)
    if settings.network.pretrained is not None:
        load_pretrained(build_network(settings.network, settings.training.loss == "ldam"), settings.network.pretrained)
    return conflicts


def look_ahead(settings: Settings, folder: Path) -> Outlook:
    """What a training would be; no image is read.

    Args:
        settings: of the training.
        folder: of the new run.

    Raises:
        GradeError: as `check_start`, apart from conflicts; the cohort, its labels or its split cannot be used.
    """
    conflicts = check_start(settings, folder, allow_conflicts=True)
    data, training = settings.data, settings.training
    cohort = read_cohort(data.cohort or Path(), data.labels)
    validation = read_cohort(data.validation, data.labels) if isinstance(data.validation, Path) else None
    everyone = cohort.joined(validation) if validation else cohort
    split = None if data.folds else split_cohort(cohort, data, training.seed, validation)
    trained = ceil(len(cohort) * (1 - 1 / data.folds)) if split is None else len(split.training)
    network = without_weights(lambda: build_network(settings.network, training.loss == "ldam"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    trainings = data.folds * data.repeats or 1
    scans = len(everyone) * len(MODALITIES) * prod(data.shape) * 4
    return Outlook(
        conflicts=conflicts,
        notes=(*cohort.notes, *(validation.notes if validation else ())),
        split=split,
        cohort=everyone,
        device=choose_compute(training).name,
        parameters=parameters,
        steps=ceil(ceil(trained / training.batch_size) / training.accumulation),
        trainings=trainings,
        disk=scans + trainings * _STATES * 4 * parameters,
        free=shutil.disk_usage(_existing(folder)).free,
        memory=scans,
    )


def counted(cohort: Cohort) -> str:
    """`12 (5 LGG, 7 HGG)`."""
    parts = ", ".join(f"{cohort.grades.count(index)} {name}" for index, name in enumerate(CLASSES))
    return f"{len(cohort)} ({parts})"


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
