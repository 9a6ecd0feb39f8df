"""Commands that write a folder leave alone what is somebody else's."""

from pathlib import Path

import pytest

from cli.screens.demo_folder import begin, owned
from toolkit.errors import GradeError


def test_a_demo_replaces_a_demo_and_nothing_else(tmp_path):
    out = tmp_path / "demo"
    assert begin(out, seed=1).training.seed == 1
    assert begin(out, seed=2).training.seed == 2
    with owned(out).writing("runs", "cache"):
        (out / "runs" / "demo").mkdir(parents=True)
        (out / "runs" / "demo" / "history.csv").touch()
    (out / "runs" / "mine").mkdir()
    (out / "runs" / "mine" / "history.csv").touch()
    with pytest.raises(GradeError, match=r"holds runs/mine/history\.csv"):
        begin(out, seed=3)
    assert (out / "runs" / "demo" / "history.csv").is_file()
    (out / "runs" / "mine" / "history.csv").unlink()
    (out / "grade.toml").write_text((out / "grade.toml").read_text() + "# my settings\n")
    with pytest.raises(GradeError, match=r"holds grade.toml, which .* was changed"):
        begin(out, seed=3)
    assert "my settings" in (out / "grade.toml").read_text()


def test_a_demo_among_other_files(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(GradeError, match=r"holds thesis\.tex"):
        begin(tmp_path, seed=0)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["notes.txt", "predictions.csv", "report.html", "evidence"])
def test_results_are_not_written_among_other_files(grade, tmp_path, name):
    for patient in ("HGG/a", "LGG/b"):
        (tmp_path / "cohort" / patient).mkdir(parents=True)
        (tmp_path / "cohort" / patient / "x_t1.nii.gz").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    for words in (("predict", tmp_path / "cohort"), ("evaluate", "model", tmp_path / "cohort")):
        code, _, err = grade(*words, "--out", out)
        assert code == 1
        assert f"holds something other than results of grade, {name} for one; name another" in " ".join(err.split())
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


def test_a_study_is_not_written_among_other_files(grade, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    code, _, err = grade("compare", tmp_path, "--out", tmp_path)
    assert code == 1
    assert "holds something other than a study, report.html for one" in " ".join(err.split())
    assert (tmp_path / "report.html").read_text() == "mine"
