"""`grade ingest` and `grade predict` on what a scanner wrote: every file they promise, the second call, refusals."""

import csv
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pydicom
import pytest

from deploy.hospital.cohort import _in_processes, _labelled
from deploy.hospital.ingest import Source
from deploy.hospital.results.report import read_values
from deploy.hospital.space.pose import EDGES, STEPS
from deploy.hospital.space.register import LEVELS
from deploy.hospital.study.facts import digest
from deploy.hospital.volume import Volume
from deploy.model.folder import open_model, write_manifest
from tests.deploy.hospital.heads import heads
from tests.deploy.hospital.programs import needs, run, validation_errors
from tests.deploy.hospital.scene import rigid, study
from tests.deploy.hospital.writer import LOOKS, Paper, write_study
from toolkit.config import LabelTable
from toolkit.data.patients import MODALITIES


def write_raw(folder):
    folder.mkdir(parents=True)
    for name, volume in study({"flair": rigid((4.0, 0.0, -5.0), (3.0, 2.0, -4.0))}, edge=8).items():
        nib.save(nib.Nifti1Image(volume.voxels, volume.affine), folder / f"scan_{name}.nii.gz")


def rows(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_raw_files_become_a_patient_a_cohort_and_a_grade(grade, site, monkeypatch):
    # Roughly aligned will do here: how well is looked at below, and in tests/deploy/hospital.
    monkeypatch.setattr("deploy.hospital.space.register.LEVELS", LEVELS[2:])
    monkeypatch.setattr("deploy.hospital.space.pose.EDGES", EDGES[:1])
    monkeypatch.setattr("deploy.hospital.space.pose.STEPS", STEPS[:1])
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
    mask = np.asarray(nib.load(folder / "anna_brain_mask.nii.gz").dataobj) > 0
    for name in MODALITIES:
        assert np.array_equal(np.asarray(nib.load(folder / f"anna_{name}.nii.gz").dataobj) > 0, mask)
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


def write_patient(folder, name, volumes, seed=None):
    looks = {modality: replace(LOOKS["ge"][modality], more={"PatientID": name}) for modality in volumes}
    write_study(folder, volumes, looks=looks, paper=Paper(seed=seed or name))


def lie_on_each_other(folder, t1ce, moved):
    """The images of a patient folder, and the motion of T2 that its record found."""
    series = json.loads((folder / "ingest.json").read_text())["series"]
    to_t1ce = np.linalg.inv(series["t1ce"]["from_brats_to_series"])
    brain = np.argwhere(t1ce.voxels > 90)[::97]
    points = t1ce.affine @ np.c_[brain, np.ones(len(brain))].T
    for name, motion in (("t1", np.eye(4)), ("t2", moved)):
        apart = (series[name]["from_brats_to_series"] @ to_t1ce - motion) @ points
        assert np.linalg.norm(apart[:3], axis=0).mean() < 1.5, name  # voxels of 8 mm
    mask = np.asarray(nib.load(folder / f"{folder.name}_brain_mask.nii.gz").dataobj) > 0
    images = {name: nib.load(folder / f"{folder.name}_{name}.nii.gz").get_fdata() for name in MODALITIES}
    for image in images.values():
        assert (image > 0)[mask].mean() > 0.98
        assert not image[~mask].any()
    assert np.corrcoef(images["t1"][mask], images["t1ce"][mask])[0, 1] > 0.95


@needs("/usr/bin/dciodvfy", "/usr/bin/dsrdump")
@pytest.mark.usefixtures("forked_parts")
def test_studies_in_one_folder_are_graded_refused_and_answered(grade, site, monkeypatch):
    moved = rigid((6.0, -4.0, 8.0), (7.0, -5.0, 4.0))
    whole = study({"t2": moved}, edge=8)
    write_patient(site / "in" / "a", "anna", whole)
    write_patient(site / "in" / "b", "berta", {name: head for name, head in heads().items() if name != "t2"})
    code, shown, said = grade("predict", "in", "--dicom-out", "answers")
    assert code == 3, said
    assert "TEST^GLIOMA" not in shown + said
    told = json.loads((site / "results" / "predictions.json").read_text())["patients"]
    bad, good = sorted(told, key=lambda one: one["grade"] or "")
    assert "t2 missing" in bad["reason"]
    assert "prepared by grade, not by BraTS" in good["notes"]
    folder = site / "results-ingested" / good["patient"]
    files = {f"{folder.name}_{name}.nii.gz" for name in (*MODALITIES, "brain_mask")}
    assert {file.name for file in folder.iterdir()} == files | {"ingest.json", "ingest.png"}
    assert "GLIOMA" not in (folder / "ingest.json").read_text()
    assert grade("check", folder)[0] == 0
    lie_on_each_other(folder, whole["t1ce"], moved)

    objects = sorted((site / "answers").rglob("*.dcm"))
    wanted = {site / "answers" / one["patient"] / name for one in told for name in ("sr.dcm", "sc.dcm")}
    assert set(objects) == wanted
    assert [validation_errors(file) for file in objects] == [[]] * 4
    dumped = run("/usr/bin/dsrdump", "+Pl", site / "answers" / good["patient"] / "sr.dcm").stdout
    numbers = dict(re.findall(r'NUM:\(,,"([^"]+)"\)="([^"]+)"', dumped))
    assert float(numbers["Calibrated probability of high-grade glioma"]) == pytest.approx(good["probability"], abs=1e-9)
    assert float(numbers["High grade is decided from this probability"]) == pytest.approx(good["threshold"], abs=1e-9)
    assert f'proposed by the model")=({good["grade"]},99GRADE' in dumped
    assert read_values(pydicom.dcmread(site / "answers" / bad["patient"] / "sr.dcm"))["reason"] == bad["reason"]

    # The same study as a zip, and a second call: what was brought in is found again.
    made = (folder / "ingest.json").stat().st_mtime_ns
    shutil.make_archive(str(site / "study"), "zip", site / "in" / "a")
    code, _, said = grade("predict", "study.zip", "--overwrite")
    assert code == 0, said
    assert (folder / "ingest.json").stat().st_mtime_ns == made
    (again,) = json.loads((site / "results" / "predictions.json").read_text())["patients"]
    assert (again["patient"], again["probability"]) == (good["patient"], good["probability"])

    # An archive becomes a cohort, by two processes; of the good study there is already what an earlier call made.
    monkeypatch.setattr("deploy.hospital.cohort.cores", lambda: 4)
    coarse = study({}, edge=9.5)
    empty = coarse | {"t2": Volume(np.zeros_like(coarse["t2"].voxels), coarse["t2"].affine)}
    for name, patient in (("carla", "carla"), ("dora", "dora"), ("later", "anna")):
        write_patient(site / "in" / name, patient, empty, seed=name)
    (site / "grades.csv").write_text("patient,grade\nanna,HGG\nberta,LGG\ncarla,LGG\n")
    shutil.copytree(folder, site / "cohort" / folder.name)
    code, _, said = grade("ingest", "in", "--labels", "grades.csv", "--out", "cohort")
    assert code == 3, said
    assert rows(site / "cohort" / "labels.csv") == [{"patient": folder.name, "grade": "HGG"}]
    refused = sorted(row["reason"].split(":")[0] for row in rows(site / "cohort" / "refused.csv"))
    assert refused == [
        "series 5 is empty",
        f"study {folder.name} is of the same patient",
        "t2 missing",
        "the table of labels has no grade for it",
    ]
    for file in ("labels.csv", "refused.csv"):
        assert "anna" not in (site / "cohort" / file).read_text()


def test_a_patient_id_of_two_people_is_no_label(tmp_path):
    sources = [
        Source("one", "0", {}, dict, ("id", "study 1"), "of hospital A"),
        Source("two", "1", {}, dict, ("id", "study 2"), "of hospital B"),
    ]
    named = [replace(source, names=tuple(digest(name) for name in source.names)) for source in sources]
    (tmp_path / "grades.csv").write_text("patient,grade\nid,HGG\nstudy 2,LGG\n")
    wanted, refused = _labelled(named, LabelTable(file=tmp_path / "grades.csv"))
    assert [(source.id, grade) for source, grade in wanted] == [("two", 0)]
    assert [(one.id, "several patients" in one.reason) for one in refused] == [("one", True)]


def _end(_):
    os.kill(os.getpid(), signal.SIGKILL)


def _endless():
    time.sleep(600)


@pytest.mark.usefixtures("forked_parts")
def test_a_process_that_dies_refuses_its_study_and_an_interrupt_ends_the_others(site, monkeypatch):
    monkeypatch.setattr("deploy.hospital.cohort.cores", lambda: 4)
    sources = [Source("a", "0", {}, partial(_end, 0)), Source("b", "1", {}, _endless), Source("c", "2", {}, _endless)]
    results = _in_processes(sources, site / "cohort", site / "model")
    first = next(results)
    assert (first.id, "signal 9" in first.reason) == ("a", True)
    before = time.monotonic()
    results.close()  # as on Ctrl-C
    assert time.monotonic() - before < 30
    assert not (site / "cohort").exists()


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
