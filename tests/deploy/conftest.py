"""A small cohort, an untrained run and its exported model; made once for the whole room."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.export.export import export_run
from deploy.model.folder import Model, open_model
from tests.narrow import narrow
from toolkit.config import DataSettings, ExportSettings, NetworkSettings, Settings
from toolkit.data.labels import read_cohort
from toolkit.data.patients import Cohort, Patient
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.data.scan import read_scan
from toolkit.evaluation.calibration import Calibration
from toolkit.training.network.network import GradeNet
from toolkit.training.runs.folder import create_run, open_run
from toolkit.training.runs.run import EpochRow, Run, ValidationTable

Once = Callable[[str, Callable[[Path], object]], Path]
SETTINGS = Settings(
    data=DataSettings(spacing=6.0, shape=(24, 32, 24)),
    network=NetworkSettings(depth=10),
    export=ExportSettings(max_batch=3),
)
torch.set_num_threads(1)  # these networks are too small to share
logging.getLogger("torch.__trace").propagate = False  # pytest would keep thousands of records of each export


@dataclass(frozen=True)
class Halves:
    training: Cohort
    validation: Cohort


def ignore(_: object) -> None:
    """A progress callback."""


def warm(network: GradeNet, scans: torch.Tensor) -> GradeNet:
    """BatchNorm statistics of real scans, and a head that tells them apart."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None  # all that is seen counts alike: once is enough
    network.train()
    with torch.no_grad():
        network(scans)
        network.head.linear.weight.mul_(4)  # type: ignore[union-attr]
        network.head.linear.bias.copy_(torch.tensor([-0.1, 0.2]))  # type: ignore[union-attr]
    return network.eval()


@pytest.fixture(scope="session")
def cohort(once: Once) -> Cohort:
    phantoms = PhantomSettings(patients=6, seed=1, difficulty=0.2, hgg_share=0.5, spacing=4.0)
    return read_cohort(once("deploy-cohort", lambda folder: write_cohort(folder, phantoms, ignore)), None)


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    with narrow():
        yield


@pytest.fixture(scope="session")
def run(cohort: Cohort, once: Once) -> Run:
    with narrow():  # made before a module's fixtures
        return open_run(once("deploy-runs", lambda folder: untrained(cohort, folder)) / "tiny")


def untrained(cohort: Cohort, runs: Path) -> Run:
    """A run whose network was not trained, but answers differently from scan to scan."""
    run = create_run(runs, "tiny", SETTINGS, Halves(cohort, cohort))
    scans = np.stack([read_scan(patient, SETTINGS.data.grid).data for patient in cohort.patients])
    torch.manual_seed(0)
    network = warm(run.build_network(), torch.from_numpy(scans))
    run.save_best(network)
    row = EpochRow(
        epoch=1,
        train_loss=0.7,
        train_auc=0.5,
        val_loss=0.7,
        val_auc=0.5,
        lr=1e-4,
        head_lr=2e-4,
        seconds=1,
        images_per_second=1,
    )
    run.write_history([row])
    with torch.inference_mode():
        logits = network(torch.from_numpy(scans)).logits.double().numpy()
    run.write_validation(ValidationTable(tuple(p.id for p in cohort.patients), cohort.grade_array, logits))
    middle = float(np.median(logits[:, 1] - logits[:, 0]))
    calibration = Calibration(
        method="platt", a=1.0, b=-middle, threshold=0.5, rule="youden", cases={"LGG": 3, "HGG": 3}
    )
    run.write("calibration.json", calibration.model_dump_json())
    return run


@pytest.fixture(scope="session")
def exported(run: Run, once: Once) -> Path:
    with narrow():
        out = once("deploy-model", lambda folder: export_run(run, folder / "model", SETTINGS.export, None, ignore))
    return out / "model"


@pytest.fixture(scope="session")
def wide(cohort: Cohort, once: Once) -> Path:
    """A model of full width, for modules without `_narrow`."""

    def make(folder: Path) -> None:
        export_run(untrained(cohort, folder), folder / "model", SETTINGS.export, None, ignore)

    return once("deploy-wide", make) / "model"


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    shutil.copytree(exported, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def model(exported: Path) -> Model:
    return open_model(exported)


@pytest.fixture
def patients(cohort: Cohort) -> tuple[Patient, ...]:
    return cohort.patients
