"""`grade --no-phi`: a name is printed nowhere."""

import shutil
import subprocess
import sys

import pytest

from cli.console import hidden, shown
from cli.privacy import enable, hide_below


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    hidden.clear()


def test_ids_paths_and_file_names(cohort, tmp_path):
    (cohort / "LGG" / "p02").rename(cohort / "LGG" / "Doe^John")
    assert shown("p00 is here") == "p00 is here"
    hide_below(cohort)
    assert not hidden  # not asked for
    enable(["predict", str(cohort), "--batch-size", "1"])
    text = shown(f"p00: p00_t1ce.nii.gz of {cohort}/LGG/Doe^John, Doe^John, p001, {cohort}")
    assert text == "patient 8: patient 8's t1ce of patient 7, patient 7, p001, a path"


@pytest.mark.slow
def test_a_prediction_names_nobody(cohort, made, grade, tmp_path):
    folder = tmp_path / "new"
    for name in ("p00", "p02"):
        shutil.copytree(cohort / "LGG" / name, folder / f"Doe_{name}")
    (folder / "Doe_p02" / "p02_t1.nii.gz").write_bytes(b"")
    words = ("predict", folder, "--model", made / "model", "--out", tmp_path / "results")
    code, out, err = grade(*words)
    assert code == 3
    assert "Doe_p02" in out
    assert "p02_t1.nii.gz" in " ".join(out.split())
    code, out, err = grade("--no-phi", *words)
    assert code == 3, err
    for text in (out, err):
        assert "Doe" not in text
        assert "p02" not in text
    assert "patient 2's t1 is empty" in " ".join(out.split())
    assert "Doe_p02" in (tmp_path / "results" / "predictions.csv").read_text()
    code, _, err = grade("--no-phi", "predict", tmp_path / "Doe_Jane", "--model", made / "model")
    assert code == 1
    assert "a path does not exist" in err


@pytest.mark.slow
def test_a_training_names_nobody(project, grade, forked_gate):
    shutil.copytree(project / "cohort" / "HGG" / "p01", project / "cohort" / "HGG" / "Doe_John")
    code, _, err = grade("--no-phi", "train", "--set", "training.epochs=1")
    assert code == 0, err
    assert "Doe" not in err
    assert "patient 1, patient 2 hold the same images" in " ".join(err.split())


def test_a_traceback_says_where_but_not_what(tmp_path):
    text = (
        "import sys\nfrom cli.privacy import enable\nenable(sys.argv[1:])\n"
        "def broken():\n    raise ValueError('Doe^John')\nbroken()\n"
    )
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError (--no-phi hides its message)" in done.stderr
    assert "in broken" in done.stderr
    assert "Doe^John" not in done.stderr.replace("raise ValueError('Doe^John')", "")
