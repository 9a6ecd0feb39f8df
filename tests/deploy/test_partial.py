"""Patients who lack a modality, graded by a model that was calibrated for them."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy.evaluate import evaluate_model
from deploy.export.export import export_run
from deploy.export.partial import learn_partial
from deploy.export.trained import read_trained
from deploy.lanes import Lanes
from deploy.model.folder import CARD, Model
from deploy.predict.pipeline import PredictOptions, ignore
from deploy.predict.verdict import read_space
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from deploy.verify import verify_model
from tests.cli.conftest import Grade
from toolkit.config import PredictSettings, dump_settings, load_settings
from toolkit.data.patients import MODALITIES, Cohort, Patient
from toolkit.data.reading.door import Reading
from toolkit.data.scan import read_scan
from toolkit.errors import CohortError, SettingsError
from toolkit.evaluation.familiarity import Bound
from toolkit.training.runs.folder import open_run
from toolkit.training.runs.run import Run


@pytest.fixture
def grade(capsys: pytest.CaptureFixture[str]) -> Grade:
    """The command line, called as the console script calls it."""
    return Grade(capsys)


@pytest.fixture(scope="module")
def partial(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model, exported for patients who may lack T1 or T2."""
    folder = tmp_path_factory.mktemp("partial") / "run"
    shutil.copytree(run.folder, folder)
    settings = run.settings
    dropout = settings.training.augment.model_copy(update={"modality_dropout": 0.3})
    changed = settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"optional": ("t1", "t2")}),
            "training": settings.training.model_copy(update={"augment": dropout}),
        }
    )
    (folder / "settings.toml").write_text(dump_settings(changed))
    return export_run(open_run(folder), folder.parent / "model", settings.export, None, ignore).model


def copied(patient: Patient, home: Path, *missing: str) -> Path:
    """A patient's folder without some modalities."""
    folder = home / patient.id
    shutil.copytree(patient.folder, folder)
    for name in missing:
        next(folder.glob(f"*_{name}.nii.gz")).unlink()
    return folder


@pytest.fixture
def site(cohort: Cohort, tmp_path: Path) -> Path:
    """Patients who lack nothing, T1, T2, FLAIR, and two modalities."""
    home = tmp_path / "site"
    for patient, missing in zip(cohort.patients, ((), ("t1",), ("t2",), ("flair",), ("t1", "t2")), strict=False):
        copied(patient, home, *missing)
    return home


def records(folder: Path) -> list[dict]:
    return json.loads((folder / "predictions.json").read_text())["patients"]


def test_export_learns_a_set_for_each_optional_modality(partial: Model) -> None:
    assert partial.optional == ("t1", "t2")
    for part in partial.manifest.partial.values():
        assert part.calibration.cases == {"LGG": 3, "HGG": 3}
        assert len(part.reference["HGG"]) == 3
        assert part.auc[0] is not None
    card = (partial.folder / CARD).read_text()
    assert "## A modality that is missing" in card
    assert "a patient may lack one of t1, t2" in card
    assert all(check.passed for check in verify_model(partial.folder, None))


def test_ranges_of_what_can_still_be_measured_stay(partial: Model, run: Run) -> None:
    trained = read_trained(open_run(partial.folder.parent / "run"))
    names = ("volume", "scattered", "t1_noise", "t2_noise", "flair_noise")
    bounds = tuple(Bound(name=name, low=0.0, high=1.0) for name in names)
    known = partial.manifest.out_of_distribution.model_copy(update={"bounds": bounds})
    runtime = open_runtime(partial, Choice("onnx", "cpu", "fp32"))
    with Lanes(2) as lanes:
        answer = functools.partial(lanes.answer, runtime)
        found = learn_partial(trained, answer, (known, read_space(partial)), ignore)
    assert [bound.name for bound in found["t1"].familiarity.bounds] == [n for n in names if n != "t1_noise"]
    assert [bound.name for bound in found["t2"].familiarity.bounds] == ["volume", "t1_noise", "flair_noise"]


def test_each_patient_is_graded_for_what_is_there_and_others_are_refused(
    grade: Grade, partial: Model, site: Path, cohort: Cohort, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    code, _, _ = grade("predict", site, "--model", partial.folder, "--out", out, "--report")
    assert code == 3
    found = {record["patient"]: record for record in records(out)}
    whole, t1, t2, flair, both = (found[patient.id] for patient in cohort.patients[:5])
    assert [one["missing"] for one in (whole, t1, t2)] == ["", "t1", "t2"]
    assert "flair missing" in flair["reason"]
    assert "t1 and t2 missing" in both["reason"]
    assert t1["threshold"] == partial.manifest.partial["t1"].calibration.threshold
    assert any("t1 is missing: without it the AUC on the validation patients is" in note for note in t1["notes"])
    assert not [name for name in t1["statistics"] if name.startswith("t1_")]
    assert "scattered" in t1["statistics"]
    assert "scattered" not in t2["statistics"]
    assert len(t1["inputs"]) == 64
    page = (out / "patients" / f"{t1['patient']}.html").read_text()
    assert "t1 is missing: without it" in page
    # The same as the whole patient's scan with an empty channel: phantoms have one mask in all modalities.
    scan = read_scan(cohort.patients[1], partial.manifest.grid).data
    scan[MODALITIES.index("t1")] = 0
    logit = open_runtime(partial, Choice("onnx", "cpu", "fp32")).infer(scan[None]).logit
    wanted = partial.manifest.partial["t1"].calibration.probability(logit)[0]
    assert t1["probability"] == pytest.approx(wanted, abs=1e-6)
    grade("predict", site, "--model", partial.folder, "--out", tmp_path / "again", "--batch-size", 1)
    alone = {record["patient"]: record["probability"] for record in records(tmp_path / "again")}
    assert alone == {name: pytest.approx(record["probability"], abs=1e-5) for name, record in found.items()}


def test_resume_knows_the_patient_again(grade: Grade, partial: Model, site: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    grade("predict", site, "--model", partial.folder, "--out", out)
    first = {record["patient"]: record for record in records(out)}
    _, _, notes = grade("predict", site, "--model", partial.folder, "--out", out, "--resume")
    assert "changed after" not in notes
    second = {record["patient"]: record for record in records(out)}
    graded = [name for name, record in first.items() if record["grade"]]
    assert len(graded) == 3
    assert all(second[name] == first[name] for name in graded)


def test_a_model_without_it_refuses_as_before(grade: Grade, model: Model, site: Path, tmp_path: Path) -> None:
    assert model.optional == ()
    grade("predict", site, "--model", model.folder, "--out", tmp_path / "results")
    found = records(tmp_path / "results")
    assert [record["grade"] is not None for record in found].count(True) == 1
    assert all(record["missing"] == "" for record in found)


def test_patients_of_different_sets_are_not_evaluated_together(
    partial: Model, site: Path, cohort: Cohort, tmp_path: Path
) -> None:
    """One threshold decides nothing about both."""
    some = Cohort(tuple(Patient(p.id, site / p.id) for p in cohort.patients[:3]), (0, 1, 1))
    options = PredictOptions(tmp_path / "out", Choice("onnx", "cpu"), PredictSettings())
    with pytest.raises(CohortError, match="some of these patients lack nothing and some t1 and some t2"):
        evaluate_model(partial, some, options, ignore, ignore)


def test_a_channel_of_nothing_is_what_dropout_trained(partial: Model, site: Path, cohort: Cohort) -> None:
    lacking = Patient("x", site / cohort.patients[1].id)
    scan = read_scan(lacking, partial.manifest.grid, Reading(optional=("t1",)))
    assert scan.missing == "t1"
    assert not scan.data[MODALITIES.index("t1")].any()
    assert np.isfinite(scan.data).all()


def test_settings_that_cannot_bring_it_are_refused() -> None:
    with pytest.raises(SettingsError, match="modality_dropout"):
        load_settings(None, None, ('data.optional=["t1"]',))
    dropout = "training.augment.modality_dropout=0.3"
    with pytest.raises(SettingsError, match="folds"):
        load_settings(None, None, ('data.optional=["t1"]', dropout, "data.folds=3"))
    assert load_settings(None, None, ('data.optional=["t1"]', dropout)).data.optional == ("t1",)
