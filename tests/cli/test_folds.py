import json

import pytest


@pytest.fixture(scope="module", autouse=True)
def _narrow():
    """Not here: other processes build the network, too."""


@pytest.mark.slow
def test_cross_validation_to_a_model(project, grade):
    code, out, err = grade("train", "--folds", "2", "--name", "cv")
    assert code == 0, err
    assert "Validation (6 LGG and 6 HGG)" in out
    assert "fold-2" in out
    assert "fold-1" in (project / "runs" / "cv" / "report.html").read_text()
    code, out, err = grade("calibrate", "runs/cv", "--rule", "sensitivity=0.95")
    assert code == 0, err
    assert json.loads((project / "runs" / "cv" / "calibration.json").read_text())["rule"] == "sensitivity=0.95"

    code, _, err = grade("export", "runs/cv", "--member", "3")
    assert code == 1
    assert "write best, or a number from 1 to 2" in " ".join(err.split())
    code, out, err = grade("export", "runs/cv")
    assert code == 0, err
    assert "2 x 3-D ResNet-10, averaged" in out
    code, out, err = grade("predict", "cohort/HGG/p01")
    assert code == 0, err
    code, out, err = grade("verify", "model")
    assert code == 0, err

    code, _, err = grade("train", "--folds", "7")
    assert code == 1
    assert "take fewer folds" in " ".join(err.split())
    assert not any(path.name.startswith(".") for path in (project / "runs").iterdir())
