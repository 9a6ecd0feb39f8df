"""The acceptance test of a model at a site."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.model.folder import WEIGHTS


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """One run of each batch, and no measurement kept for `auto` in anybody's home."""
    monkeypatch.setattr("deploy.bench.SECONDS", 0.0)
    monkeypatch.setattr("deploy.bench.bench_file", lambda model: tmp_path / "bench" / "x.json")


def read(out: Path) -> dict:
    return json.loads((out / "commission.json").read_text(encoding="utf-8"))


def test_the_command_as_the_readme_writes_it(grade, exported, site, tmp_path):
    out = tmp_path / "commission"
    code, said, _ = grade("commission", exported, site.folder, "--labels", site.table, "--out", out, "--json")
    facts = json.loads(said)
    assert code == 3  # the tiny model has too few validation patients for every verdict
    assert facts == read(out)
    assert (facts["patients"], facts["graded"], facts["known_grades"], facts["refused"]) == (24, 24, 24, {})
    by = {check["name"]: check for check in facts["checks"]}
    assert by["model folder"]["outcome"] == by["runtimes"]["outcome"] == "pass"
    assert by["verdicts"]["outcome"] == "restrict"
    assert by["AUC"]["found"][0] > 0.7
    page = (out / "commission.html").read_text(encoding="utf-8")
    assert "Acceptance test" in page
    assert "PhantomB" not in page
    for name in ("records.jsonl", "predictions.csv", "audit.jsonl"):
        assert (out / name).is_file()


def test_without_grades_nothing_is_claimed_of_them(grade, exported, site, tmp_path):
    out = tmp_path / "commission"
    code, said, notes = grade("commission", exported, site.more, "--out", out)
    assert code == 3
    assert "No grades are known" in notes
    assert "Restrict: nothing failed" in said
    assert "The model was trained on phantoms: never for patients." in " ".join(said.split())
    assert "trial only" not in said
    assert read(out)["fit"] is None
    by = {check["name"]: check for check in read(out)["checks"]}
    assert by["AUC"]["found"] == [None, None, None]
    assert by["AUC"]["outcome"] == "restrict"


def test_a_broken_patient_counts_as_refused_and_too_many_fail(grade, exported, site, tmp_path):
    here = tmp_path / "here"
    for number, patient in enumerate(sorted(path for path in site.more.iterdir() if path.is_dir())[:6]):
        shutil.copytree(patient, here / patient.name)
        if number < 4:
            next((here / patient.name).glob("*_t2.nii.gz")).write_bytes(b"no image")
    out = tmp_path / "commission"
    code, said, _ = grade("commission", exported, here, "--out", out)
    assert code == 3
    assert "Do not use" in said
    found = read(out)
    assert found["verdict"] == "do not use"
    assert (len(found["refused"]), found["graded"]) == (4, 2)
    page = (out / "commission.html").read_text(encoding="utf-8")
    assert (
        "refused patients, 0.667 (0.300 to 0.903) where 0 to 0.1 is acceptable: the whole interval is outside" in page
    )


def test_patients_of_the_training_are_no_test(grade, exported, cohort, tmp_path):
    folder = cohort.patients[0].folder.parents[1]
    code, _, said = grade("commission", exported, folder, "--out", tmp_path / "out")
    assert code == 1
    assert "were in the model's training or validation" in said


def test_an_altered_model_fails_whatever_its_answers(grade, folder, site, tmp_path):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"x")
    code, said, _ = grade("commission", folder, site.more, "--out", tmp_path / "out")
    assert code == 3
    assert "Do not use" in said
    assert "was altered" in (tmp_path / "out" / "commission.html").read_text(encoding="utf-8")


def test_thresholds_are_the_sites_own(grade, exported, site, tmp_path):
    words = ("--labels", site.table, "--out", tmp_path / "out", "--set", "commission.auc=0.99", "--json")
    _, said, _ = grade("commission", exported, site.folder, *words)
    assert next(check["low"] for check in json.loads(said)["checks"] if check["name"] == "AUC") == 0.99
    code, _, said = grade("commission", exported, site.folder, "--set", "commission.slope=[2.0, 1.0]")
    assert code == 1
    assert "holds nothing" in said
