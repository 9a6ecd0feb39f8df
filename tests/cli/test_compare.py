"""A study of three epochs, as a user types it: no claim about any strategy."""

import json
import re
import shutil

import pytest
import torch

from tests.cli.conftest import SETTINGS
from tests.toolkit.evaluation.test_study import assert_page_equals
from toolkit.training.runs.folder import open_run


@pytest.mark.slow
def test_a_study_that_is_cut_off_and_resumed(project, grade, narrow_jobs, monkeypatch):
    # Sums over another number of threads have another last bit, which grows with every step.
    monkeypatch.setattr("toolkit.training.processes.spread.cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        check_cut_off_and_resumed(project, grade)
    finally:
        torch.set_num_threads(before)


def check_cut_off_and_resumed(project, grade):
    words = ("compare", "cohort", "--strategies", "stable,legacy", "--seeds", "1", "--ablate", "clip")
    code, out, err = grade(*words)
    assert code == 0, err
    study = project / "study"
    runs = sorted(path.name for path in (study / "runs").iterdir() if not path.is_symlink())
    assert runs == ["legacy-s0", "stable-clip-s0", "stable-s0"]
    content = json.loads((study / "study.json").read_text())
    assert_page_equals((study / "report.html").read_text(), content)
    assert [arm["name"] for arm in content["arms"]] == ["stable", "legacy", "stable-clip"]
    assert [one["name"] for one in content["baselines"]] == ["majority class", "logistic regression"]
    assert "legacy: re-weighting was to start in epoch 25 and never began" in content["notes"][0]
    # One split a seed, shared by the arms.
    assert len({(study / "runs" / f"{arm}-s0" / "split.csv").read_text() for arm in ("stable", "legacy")}) == 1
    assert "stable-clip" in out

    kept = (study / "runs" / "stable-s0" / "last.pt").stat().st_mtime_ns
    shutil.rmtree(study / "runs" / "legacy-s0")
    (study / "runs" / "stable-clip-s0" / "report.html").unlink()  # killed before its last file
    code, _, err = grade(*words, "--jobs", "2")
    assert code == 0, err
    again = json.loads((study / "study.json").read_text())
    for one, other in zip(content["runs"], again["runs"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (study / "runs" / "stable-s0" / "last.pt").stat().st_mtime_ns == kept

    code, _, err = grade(*words, "--set", "training.epochs=3")
    assert code == 1
    assert "was made with training.epochs = 2, not 3" in " ".join(err.split())


@pytest.mark.slow
def test_report_prints_the_criteria_and_writes_the_page_again(project, grade):
    (project / "grade.toml").write_text(SETTINGS.replace("epochs = 2", "epochs = 1"))
    assert grade("train", "--name", "r")[0] == 0
    page = project / "runs" / "r" / "report.html"
    calibration = (project / "runs" / "r" / "calibration.json").read_bytes()
    before = page.read_text()
    page.unlink()
    code, out, err = grade("report", "runs/r")
    assert code == 0, err
    assert page.read_text() == before
    assert (project / "runs" / "r" / "calibration.json").read_bytes() == calibration
    assert "Not defined: it needs 7 epochs, and there are 1." in re.sub(r"\s+", " ", out)
    assert "Loss spikes are not defined for 1 optimiser steps." in re.sub(r"\s+", " ", out)
    assert open_run(project / "runs" / "r").ended
