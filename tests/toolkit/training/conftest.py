"""A tiny cohort with a signal that a small network finds, and a progress that only remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.config import Settings, load_settings
from toolkit.data.cohort.split import Split
from toolkit.data.patients import Cohort, Patient
from toolkit.training.loop.scans import TrainingData
from toolkit.training.runs.folder import create_run
from toolkit.training.runs.run import EpochRow, Run

SMALL = (
    "network.depth=10",
    "data.shape=[16, 16, 16]",
    "training.device=cpu",
    "training.epochs=3",
    "training.batch_size=2",  # 9 patients: batches of 2, 2, 2, 3, so 2 optimiser steps
    "training.lr=1e-3",
    "training.head_lr=1e-3",
    "training.warmup_epochs=1",
)


class Recorder:
    """Remembers what a training tells; `at_step` is called with (epoch, step) after each optimiser step."""

    def __init__(self, at_step: Callable[[int, int], None] = lambda epoch, step: None) -> None:
        self.notes: list[str] = []
        self.rows: list[tuple[EpochRow, bool]] = []
        self.losses: list[float] = []
        self.steps: list[int] = []
        self._at_step = at_step
        self._epoch = self._step = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch_started(self, epoch: int, steps: int) -> None:
        self.steps.append(steps)
        self._epoch, self._step = epoch, 0

    def step(self, loss: float) -> None:
        self.losses.append(loss)
        self._step += 1
        self._at_step(self._epoch, self._step)

    def epoch_done(self, row: EpochRow, best: bool) -> None:
        self.rows.append((row, best))


def make_data(grades: list[int], seed: int = 0, prefix: str = "p", signal: float = 2.0) -> TrainingData:
    """Noise of 16 voxels an axis; in HGG the whole t1ce volume is brighter by `signal`."""
    rng = np.random.default_rng(seed)
    scans = [rng.normal(0, 1, (4, 16, 16, 16)).astype(np.float32) for _ in grades]
    for scan, grade in zip(scans, grades, strict=True):
        scan[2] += signal * grade
    patients = tuple(Patient(f"{prefix}{i:03}", Path(f"/cohort/{prefix}{i:03}")) for i in range(len(grades)))
    return TrainingData(Cohort(patients, tuple(grades)), scans)


def make_settings(*overrides: str, strategy: str = "stable") -> Settings:
    return load_settings(None, strategy, (*SMALL, *overrides))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # five small trainings at once are slower with more


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """A network of 1/16 of the channels: what is tested around it does not depend on its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.training.network.backbones.PLANES", [4, 8, 16, 32])
        yield


@pytest.fixture(scope="module")
def short_report() -> Iterator[None]:
    """No pictures, no bootstrap: test_outcome.py makes the real report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.training.runs.outcome.training_report", lambda record: f"report of {record.name}")
        yield


@pytest.fixture(scope="session")
def training() -> TrainingData:
    return make_data([0, 0, 0, 1, 1, 1, 1, 1, 1], seed=1)


@pytest.fixture(scope="session")
def validation() -> TrainingData:
    return make_data([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], seed=2, prefix="v")


@pytest.fixture
def new_run(tmp_path: Path, training: TrainingData, validation: TrainingData) -> Callable[..., Run]:
    def make(*overrides: str, name: str = "run", strategy: str = "stable") -> Run:
        settings = make_settings(*overrides, strategy=strategy)
        return create_run(tmp_path / "runs", name, settings, Split(training.cohort, validation.cohort))

    return make


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def data() -> Callable[..., TrainingData]:
    return make_data


@pytest.fixture(scope="session", name="make_settings")
def settings_maker() -> Callable[..., Settings]:
    return make_settings
