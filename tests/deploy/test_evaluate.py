"""A control experiment: the same patients as they are and changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.evaluate import EVALUATION, evaluate_control, evaluate_model
from deploy.model.folder import Model
from deploy.predict.pipeline import PredictOptions
from deploy.runtime import Choice
from tests.deploy.conftest import ignore
from toolkit.config import PredictSettings
from toolkit.data.labels import read_cohort
from toolkit.data.patients import Cohort
from toolkit.evaluation.metrics import evaluate


def test_a_control_compares_the_patients_that_it_has(cohort: Cohort, model: Model, tmp_path: Path) -> None:
    shutil.copytree(cohort.patients[0].folder.parents[1], tmp_path / "cohort")
    lacking = [next((tmp_path / "cohort" / grade).iterdir()) for grade in ("HGG", "LGG")]
    for folder in lacking:
        next(folder.glob("*_seg*")).unlink()
    known = read_cohort(tmp_path / "cohort", None)
    options = PredictOptions(tmp_path / "out", Choice("onnx", "cpu"), PredictSettings())
    plain = evaluate_model(model, known, options, ignore, ignore)
    found = evaluate_control("mask-tumour", model, options, plain, ignore)
    names = {folder.name for folder in lacking}
    assert found.left_out.keys() == names
    assert all("tumour mask" in reason for reason in found.left_out.values())
    assert found.patients == len(known) - 2
    some = [record.patient not in names for record in plain.graded.records]
    assert found.plain == evaluate(plain.graded.grades[some], plain.graded.probabilities[some], 0.5).auc
    assert json.loads((tmp_path / "out" / "control.json").read_text())["auc"]["value"] == found.changed.value
    page = (tmp_path / "out" / EVALUATION).read_text()
    assert f"{len(known) - 2} patients: AUC {found.changed.value:.3f}" in page


def test_a_control_of_all_compares_with_the_evaluation(cohort: Cohort, model: Model, tmp_path: Path) -> None:
    options = PredictOptions(tmp_path, Choice("onnx", "cpu"), PredictSettings())
    plain = evaluate_model(model, cohort, options, ignore, ignore)
    found = evaluate_control("mask-tumour", model, options, plain, ignore)
    assert (found.patients, found.left_out, found.plain) == (len(cohort), {}, plain.metrics.auc)
