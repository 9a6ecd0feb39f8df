"""Patients of another site, graded so that the tiny untrained model of the room above ranks them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy.life.adapt import Wish, adapt_model
from deploy.life.look import look
from deploy.model.folder import Model, open_model
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from tests.cli.conftest import Grade
from toolkit.config import LabelTable
from toolkit.data.labels import read_cohort
from toolkit.data.patients import CLASSES, Cohort, Patient, find_patients
from toolkit.data.phantom.cohort import PhantomSettings, write_cohort
from toolkit.evaluation.calibration import sigmoid

LABELLED = 24


@dataclass(frozen=True)
class Site:
    """Where the patients are, their grades by a table, and those who have none."""

    folder: Path
    table: Path
    more: Path

    def cohort(self) -> Cohort:
        return read_cohort(self.folder, LabelTable(file=self.table))

    def unlabelled(self) -> tuple[Patient, ...]:
        return find_patients([self.more])


@pytest.fixture(scope="session")
def site(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    home = tmp_path_factory.mktemp("site")
    for name, patients, seed in (("here", LABELLED, 7), ("more", 16, 8)):
        settings = PhantomSettings(patients, seed, 0.2, 0.5, 4.0, "b")
        write_cohort(home / name, settings, lambda _: None)
    model = open_model(exported)
    patients = find_patients([home / "here"])
    seen, _ = look(model, open_runtime(model, Choice("onnx", "cpu", "fp32")), patients, 0, lambda _: None)
    logit = np.array([one.logit for one in seen])
    # By rank, so that another network gives as many of each grade.
    steep = np.linspace(-5, 5, len(logit))
    grade = (np.random.default_rng(0).random(len(logit)) < sigmoid(steep)).astype(int)[logit.argsort().argsort()]
    with (home / "grades.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient", "grade"])
        table.writerows((one.patient.id, CLASSES[g]) for one, g in zip(seen, grade, strict=True))
    # Folders named after grades that are not the table's would be an error.
    for grade_folder in [*(home / "here").glob("*GG"), *(home / "more").glob("*GG")]:
        for patient in grade_folder.iterdir():
            patient.rename(grade_folder.parent / patient.name)
        grade_folder.rmdir()
    return Site(home / "here", home / "grades.csv", home / "more")


@pytest.fixture(scope="session")
def parent(exported: Path) -> Model:
    return open_model(exported)


@pytest.fixture(scope="session")
def adapted(parent: Model, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("adapted") / "model"
    wish = Wish(out, None, "cpu")
    return adapt_model(parent, site.cohort(), site.unlabelled(), wish, lambda _: None).model


@pytest.fixture
def grade(capsys: pytest.CaptureFixture[str]) -> Grade:
    """The command line, called as the console script calls it."""
    return Grade(capsys)
