import csv
import json

import numpy as np
import pytest


def logits(run):
    with (run / "validation.csv").open() as opened:
        return np.array([(row["logit_lgg"], row["logit_hgg"]) for row in csv.DictReader(opened)], float)


@pytest.mark.slow
def test_cross_validation_to_a_model(project, grade, narrow_jobs):
    code, out, err = grade("train", "--folds", "2", "--name", "cv")
    assert code == 0, err
    assert "Validation (6 LGG and 6 HGG)" in out
    assert "fold-2" in out
    assert "fold-1" in (project / "runs" / "cv" / "report.html").read_text()
    code, _, err = grade("train", "--folds", "2", "--name", "dealt", "--devices", "2")  # to two processes
    assert code == 0, err
    np.testing.assert_allclose(logits(project / "runs" / "dealt"), logits(project / "runs" / "cv"), atol=1e-4)

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
