"""Train, export, predict, evaluate, calibrate and info, as a user types them."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from tests.cli.conftest import AFFINE


@pytest.fixture(scope="module", autouse=True)
def _unpictured():
    """Not here: pages are whole."""


def probabilities(results):
    with (results / "predictions.csv").open(newline="") as stream:
        return {row["patient"]: float(row["probability"]) for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_three_commands(project, grade):
    code, out, err = grade("train")
    assert code == 0, err
    assert "Validation (3 LGG and 3 HGG)" in out
    run = project / "runs" / "latest"
    for name in ("settings.toml", "split.csv", "history.csv", "last.pt", "best.safetensors", "validation.csv",
                 "calibration.json", "report.html", "environment.json"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert (run / "report.html").read_text().count("<svg") == 5

    code, out, err = grade("export")
    assert code == 0, err
    assert "0 grade flips" in " ".join(out.split())
    for name in ("manifest.json", "model.onnx", "model_fp16.onnx", "selftest.npz", "model_card.md"):
        assert (project / "model" / name).stat().st_size > 0, name

    code, out, err = grade("predict", "cohort/HGG/p01")
    assert code == 0, err
    assert "p01" in out
    everybody = check_independence(project, grade)
    check_flipped_copy(project, grade, everybody)
    check_bad_patient_among_good(project, grade, everybody)

    code, out, err = grade("evaluate", "model", "cohort", "--out", "evaluation")
    assert code == 0, err
    metrics = json.loads((project / "evaluation" / "metrics.json").read_text())
    assert metrics["cases"] == {"LGG": 6, "HGG": 6}
    for name in ("roc.png", "reliability.png", "evaluation.html"):
        assert (project / "evaluation" / name).stat().st_size > 1000, name

    code, _, err = grade("calibrate", "--rule", "sensitivity=0.95", "--method", "none")
    assert code == 0, err
    code, out, _ = grade("info", "--model", "model", "--json")
    assert code == 0
    assert json.loads(out)["model"]["classes"] == ["LGG", "HGG"]
    check_tampering(project, grade)


def check_independence(project, grade):
    """Order, batch size and number of readers change no probability."""
    folders = sorted((project / "cohort").glob("*/*"))
    seen = []
    for number, (order, batch, workers) in enumerate(((1, 1, 1), (-1, 4, 1), (1, 4, 3))):
        out = project / f"results{number}"
        code, _, err = grade("predict", *folders[::order], "--out", out, "--batch-size", batch, "--workers", workers)
        assert code == 0, err
        seen.append(probabilities(out))
    assert list(seen[1]) == list(seen[0])[::-1] or set(seen[1]) == set(seen[0])
    for other in seen[1:]:
        for patient, probability in other.items():
            assert probability == pytest.approx(seen[0][patient], abs=1e-5)
    return seen[0]


def check_flipped_copy(project, grade, everybody):
    """The same patient, mirrored in memory with the affine to match."""
    source, copy = project / "cohort" / "HGG" / "p01", project / "mirrored" / "p01"
    copy.mkdir(parents=True)
    for file in source.iterdir():
        image = nib.load(file)
        flip = AFFINE @ np.array([[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], flip), copy / file.name)
    assert grade("predict", copy, "--out", project / "flipped")[0] == 0
    assert probabilities(project / "flipped")["p01"] == pytest.approx(everybody["p01"], abs=1e-3)


def check_bad_patient_among_good(project, grade, everybody):
    bad = project / "mixed" / "bad"
    shutil.copytree(project / "cohort" / "HGG" / "p01", bad)
    for file in bad.iterdir():
        file.rename(bad / file.name.replace("p01", "bad"))
    (bad / "bad_t2.nii.gz").write_bytes((bad / "bad_t2.nii.gz").read_bytes()[:200])
    shutil.copytree(project / "cohort" / "LGG" / "p00", project / "mixed" / "p00")
    code, out, _ = grade("predict", project / "mixed", "--out", project / "mixed-results")
    assert code == 3
    assert "refused" in out
    with (project / "mixed-results" / "predictions.csv").open(newline="") as stream:
        rows = {row["patient"]: row for row in csv.DictReader(stream)}
    assert rows["bad"]["grade"] == ""
    assert "truncated" in rows["bad"]["reason"]
    assert float(rows["p00"]["probability"]) == pytest.approx(everybody["p00"], abs=1e-5)
    assert grade("predict", bad, "--out", project / "mixed-results", "--overwrite")[0] == 1  # nothing graded


def check_tampering(project, grade):
    file = project / "model" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, _, err = grade("predict", "cohort")
    assert code == 1
    assert "model.onnx" in err
    assert "Traceback" not in err
