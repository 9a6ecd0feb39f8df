"""`grade ingest` and `grade predict` on what a scanner wrote: every file they promise, the second call, refusals."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from deploy.model.folder import BRAIN, file_hashes, open_model, write_manifest
from deploy.model.manifest import BrainRecord
from tests.deploy.hospital.heads import heads
from tests.deploy.hospital.scene import rigid, study, write_bright_network
from tests.deploy.hospital.writer import write_study
from toolkit.data.patients import MODALITIES


@pytest.fixture
def site(made, tmp_path, monkeypatch):
    """A working folder with a model that has a brain mask, of a network that knows the brain of `scene`."""
    shutil.copytree(made / "model", tmp_path / "model")
    write_bright_network(tmp_path / "model" / BRAIN)
    manifest = open_model(tmp_path / "model").manifest
    record = BrainRecord(file=BRAIN, source="test", weights="0" * 64, licence="none", unknown="all", differing=0.0)
    files = file_hashes(tmp_path / "model")
    write_manifest(tmp_path / "model", manifest.model_copy(update={"brain": record, "files": files}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_raw(folder):
    folder.mkdir(parents=True)
    for name, volume in study({"flair": rigid((4.0, 0.0, -5.0), (3.0, 2.0, -4.0))}).items():
        nib.save(nib.Nifti1Image(volume.voxels, volume.affine), folder / f"scan_{name}.nii.gz")


def rows(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_raw_files_become_a_patient_a_cohort_and_a_grade(grade, site):
    write_raw(site / "raw" / "anna")
    code, shown, _ = grade("ingest", "raw", "--raw", "--out", "in")
    assert code == 0, shown
    folder = site / "in" / "anna"
    assert {file.name for file in folder.iterdir()} == {
        *(f"anna_{name}.nii.gz" for name in (*MODALITIES, "brain_mask")),
        "ingest.json",
        "ingest.png",
    }
    record = json.loads((folder / "ingest.json").read_text())
    assert set(record["seconds"]) >= {"reading", "brain mask", "flair on t1ce", "pose", "interpolation", "all"}
    assert (folder / "ingest.png").read_bytes().startswith(b"\x89PNG")
    image = nib.load(folder / "anna_t1ce.nii.gz")
    assert image.shape == (240, 240, 155)
    assert np.array_equal(image.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    code, shown, _ = grade("check", "in")
    assert code == 0, shown
    assert "good" in shown

    code, shown, _ = grade("ingest", "raw", "--raw", "--out", "in")
    assert code == 0
    assert "kept from an earlier" in " ".join(shown.split())

    assert grade("predict", "in", "--out", "results")[0] == 0
    (patient,) = json.loads((site / "results" / "predictions.json").read_text())["patients"]
    assert "prepared by grade, not by BraTS" in patient["notes"]

    (site / "raw" / "berta").mkdir()
    shutil.copy(site / "raw" / "anna" / "scan_t1.nii.gz", site / "raw" / "berta" / "scan_t1.nii.gz")
    (site / "grades.csv").write_text("patient,grade\nanna,HGG\n")
    code, _, said = grade("ingest", "raw", "--raw", "--labels", "grades.csv", "--out", "in")
    assert code == 3, said
    assert rows(site / "in" / "labels.csv") == [{"patient": "anna", "grade": "HGG"}]
    (refused,) = rows(site / "in" / "refused.csv")
    assert refused["patient"] == "berta"
    assert "missing" in refused["reason"]


def test_study_that_is_refused_is_a_refused_patient(grade, site):
    volumes = heads()
    del volumes["t2"]
    write_study(site / "study", volumes)
    assert grade("predict", "study", "--out", "results")[0] == 1  # nobody was graded
    (patient,) = rows(site / "results" / "predictions.csv")
    assert "t2 missing" in patient["reason"]
    assert len(patient["patient"]) == 16
    assert list((site / "results-ingested" / patient["patient"]).iterdir()) == [
        site / "results-ingested" / patient["patient"] / "ingest.json"
    ]
    assert len((site / "results" / "audit.jsonl").read_text().splitlines()) == 1


def test_raw_series_that_is_empty_is_refused(grade, site):
    write_raw(site / "raw" / "carla")
    file = site / "raw" / "carla" / "scan_t2.nii.gz"
    blank = nib.load(file)
    nib.save(nib.Nifti1Image(np.zeros(blank.shape, np.float32), blank.affine), file)
    code, shown, _ = grade("ingest", "raw", "--raw")
    assert code == 1
    assert "t2 holds one value only" in " ".join(shown.split())
    assert not (site / "ingested" / "carla").exists()


def test_model_without_a_brain_mask_says_how_to_get_one(grade, site, made):
    write_raw(site / "raw" / "dora")
    code, _, said = grade("ingest", "raw", "--raw", "-m", made / "model")
    assert code == 1
    assert "grade export" in said
    assert "--brain" in said


def test_model_of_another_space_is_refused(grade, site):
    manifest = open_model(site / "model").manifest
    write_manifest(site / "model", manifest.model_copy(update={"space": "mni152"}))
    write_raw(site / "raw" / "emma")
    code, _, said = grade("ingest", "raw", "--raw")
    assert code == 1
    assert "the space mni152" in said


@pytest.mark.parametrize("words", [("--raw", "--dry-run"), ("--json",), ("--raw", "--series", "t1ce=8")])
def test_options_that_contradict_are_wrong_usage(grade, site, words):
    assert grade("ingest", "raw", *words)[0] == 2
