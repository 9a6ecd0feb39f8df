from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.config import CalibrationSettings, Settings
from toolkit.data.cohort.split import Split
from toolkit.errors import RunError
from toolkit.evaluation.calibration_fit import fit_calibration
from toolkit.evaluation.metrics import auc
from toolkit.training.loop.scans import TrainingData
from toolkit.training.loop.train import train
from toolkit.training.runs.folder import create_run
from toolkit.training.runs.outcome import recalibrate
from toolkit.training.runs.run import Run


@pytest.fixture(scope="module")
def trained(
    narrow: None,
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: Callable[..., Settings],
    recorder: Callable[..., Any],
    training: TrainingData,
    validation: TrainingData,
) -> tuple[Run, Any]:
    """A run trained to its end, and what it told."""
    split = Split(training.cohort, validation.cohort)
    run = create_run(tmp_path_factory.mktemp("runs"), "trained", make_settings(), split)
    watcher = recorder()
    train(run, training, validation, watcher)
    return run, watcher


def test_files_of_a_finished_run(trained: tuple[Run, Any]) -> None:
    run, _ = trained
    names = (
        "best.safetensors calibration.json environment.json history.csv labels.txt last.pt report.html settings.toml"
    )
    rest = ["split.csv", "stability.json", "steps.csv", "validation.csv"]
    assert sorted(p.name for p in run.folder.iterdir()) == [*names.split(), *rest]
    criteria = json.loads((run.folder / "stability.json").read_text())
    assert [set(criterion) for criterion in criteria] == [{"name", "value", "limit", "met", "sentence"}] * 4
    assert "trained" in (run.folder / "report.html").read_text()


def test_environment_names_versions_and_no_machine(trained: tuple[Run, Any]) -> None:
    environment = trained[0].environment()
    assert environment["device"] == "cpu"
    assert environment["torch"] == torch.__version__
    assert set(environment) - {"cuda"} == {"python", "torch", "monai", "numpy", "device", "amp"}


def test_what_the_watcher_was_told(trained: tuple[Run, Any]) -> None:
    run, watcher = trained
    assert watcher.notes == ["Training on cpu, mixed precision off."]
    assert [row for row, _ in watcher.rows] == run.history()
    assert watcher.steps == [2, 2, 2]


def test_stored_logits_are_those_of_the_stored_weights(trained: tuple[Run, Any], validation: TrainingData) -> None:
    run, watcher = trained
    table = run.validation()
    logits = run.load_best()(torch.from_numpy(np.stack(validation.scans))).logits.detach().numpy()
    np.testing.assert_allclose(table.logits, logits, atol=1e-5)
    assert table.patients == tuple(patient.id for patient in validation.cohort.patients)
    best = [row for row, is_best in watcher.rows if is_best][-1]
    assert best.val_auc == max(row.val_auc for row in run.history())
    assert auc(table.grades, table.logit) == best.val_auc
    assert run.calibration() == fit_calibration(table.logit, table.grades, run.settings.calibration)


def test_recalibrate_with_another_rule(trained: tuple[Run, Any]) -> None:
    run, _ = trained
    settings, table = CalibrationSettings(method="temperature", rule="sensitivity=0.95"), run.validation()
    found = recalibrate(run, settings)
    assert found == run.calibration() == fit_calibration(table.logit, table.grades, settings)
    assert found.rule == "sensitivity=0.95"
    assert "sensitivity=0.95" in (run.folder / "report.html").read_text()


def test_recalibrate_needs_logits(
    narrow: None, tmp_path: Path, make_settings: Callable[..., Settings], training: TrainingData
) -> None:
    run = create_run(tmp_path, "new", make_settings(), Split(training.cohort, training.cohort))
    with pytest.raises(RunError, match=r"has no validation\.csv: the training has not ended"):
        recalibrate(run, CalibrationSettings())
