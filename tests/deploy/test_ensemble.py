"""A run of folds becomes one graph that answers as the mean of its networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.export import graph
from deploy.export.export import export_run
from deploy.export.graph import write_onnx
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from tests.deploy.conftest import SETTINGS, ignore, warm
from tests.narrow import FEATURES
from toolkit.data.patients import Cohort
from toolkit.data.scan import read_scan
from toolkit.errors import ModelError
from toolkit.training.folds import begin_folds, pool
from toolkit.training.prepare import Prepared
from toolkit.training.runs.folder import fold_runs
from toolkit.training.runs.networks import load_network
from toolkit.training.runs.outcome import write_outcome
from toolkit.training.runs.run import EpochRow, Run, ValidationTable

ROW = EpochRow(
    epoch=1, train_loss=0.7, train_auc=0.5, val_loss=0.7, val_auc=0.5, lr=1e-4, head_lr=2e-4, seconds=1,
    images_per_second=1,
)  # fmt: skip


def scans_of(cohort: Cohort) -> torch.Tensor:
    return torch.from_numpy(np.stack([read_scan(one, SETTINGS.data.grid).data for one in cohort.patients]))


@pytest.fixture(scope="module")
def folds(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two folds, as trained ones would lie there."""
    settings = SETTINGS.model_copy(update={"data": SETTINGS.data.model_copy(update={"folds": 2})})
    run = begin_folds(tmp_path_factory.mktemp("runs") / "cv", settings, Prepared(cohort, None, {}, ()))
    for number, fold in enumerate(fold_runs(run)):
        torch.manual_seed(number)
        network = warm(fold.build_network(), scans_of(cohort))
        fold.save_best(network)
        fold.write_history([ROW])
        fold.write_steps([[0.7]])
        fold.write("environment.json", "{}")
        validation = fold.validation_patients()
        with torch.inference_mode():
            logits = network(scans_of(validation)).logits.double().numpy()
        names = tuple(patient.id for patient in validation.patients)
        write_outcome(fold, ValidationTable(names, validation.grade_array, logits))
    pool(run)
    return run


def test_the_exported_ensemble_answers_as_the_mean(folds: Run, cohort: Cohort, tmp_path: Path) -> None:
    model = export_run(folds, tmp_path / "model", SETTINGS.export, None, ignore).model
    assert model.manifest.network.members == 2
    assert model.manifest.training.best_epoch is None
    assert model.manifest.outputs.features == 2 * FEATURES
    scans = scans_of(cohort)[:3]
    with torch.inference_mode():
        one, other = (fold.load_best()(scans) for fold in fold_runs(folds))
    for choice in (Choice("onnx", "cpu", "fp32"), Choice("torch", "cpu")):
        found = open_runtime(model, choice).infer(scans.numpy())
        np.testing.assert_allclose(found.logits, (one.logits + other.logits) / 2, atol=1e-3)
        np.testing.assert_allclose(found.features, torch.cat([one.features, other.features], dim=1), atol=1e-3)
        np.testing.assert_allclose(found.evidence, (one.evidence + other.evidence) / 2, atol=1e-2)
    card = (tmp_path / "model" / "model_card.md").read_text()
    assert "an ensemble of 2 networks" in card
    assert "weights of epoch" not in card
    # limits come from patients that gave no centre and spread
    known = model.manifest.out_of_distribution
    assert known is not None
    assert known.training + known.validation == len(cohort)


def test_too_many_networks_for_one_file(folds: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_LARGEST", 6_000_000)  # one of these networks has 3.6 MB
    with pytest.raises(ModelError, match=r"2 networks make a graph of 0\.0 GB, and ONNX holds 0\.0 GB .*--member best"):
        write_onnx(load_network(folds), SETTINGS.data.grid, "fp32", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
