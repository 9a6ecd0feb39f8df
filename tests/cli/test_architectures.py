"""Architectures other than the ResNets, from `grade train` to the pages: what README says of any model."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deploy.model.folder import open_model
from tests.narrow import DENSE_FEATURES
from toolkit.training.network.checkpoint import read_weights

WIDTHS = {"densenet121": DENSE_FEATURES, "seresnet50": 2048, "efficientnet-b0": 1280}


@pytest.fixture
def written(project):
    """The settings with an architecture in place of the depth."""
    for number in range(6, 12):  # six patients are enough
        shutil.rmtree(project / "cohort" / ("LGG", "HGG")[number % 2] / f"p{number:02}")
    file, text = project / "grade.toml", (project / "grade.toml").read_text().replace("[16, 16, 16]", "[32, 32, 32]")

    def write(arch):
        file.write_text(text.replace("depth = 10", f'arch = "{arch}"').replace("epochs = 2", "epochs = 1"))

    return write


@pytest.mark.parametrize("arch", WIDTHS)
def test_the_whole_path(grade, written, arch):
    written(arch)
    code, _, err = grade("train", "--set", "training.ema=0.9")
    assert code == 0, err
    assert tomllib.loads(Path("runs/latest/settings.toml").read_text())["network"]["arch"] == arch
    assert read_weights(Path("runs/latest/best.safetensors"))
    code, _, err = grade("export", "--bundle", "bundle")
    assert code == 0, err
    manifest = open_model(Path("model")).manifest
    assert manifest.network.arch == arch
    assert manifest.outputs.features == WIDTHS[arch]
    assert [one.flips for one in manifest.parity.comparisons] == [0, 0]
    assert "3-D" in json.loads(Path("bundle/configs/metadata.json").read_text())["description"]
    assert grade("verify", "model")[0] == 0
    code, _, err = grade("predict", "cohort/HGG/p01", "--report")
    assert code == 0, err
    for file in ("patients/p01.html", "evidence/p01.nii.gz", "evidence/own-grid/p01.nii.gz", "report.html"):
        assert (Path("results") / file).is_file()
    assert np.isfinite(nib.load("results/evidence/p01.nii.gz").get_fdata()).all()
    (row,) = csv.DictReader(Path("results/predictions.csv").read_text().splitlines())
    assert 0 <= float(row["probability"]) <= 1


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("network.depth=18", "densenet121 has no depth to choose, a ResNet has; take network.depth out"),
        ("network.stem_stride=1", "densenet121 has no stem_stride to choose"),
        ("network.pretrained=medicalnet.pth", "densenet121 has no pretrained to choose"),
        ("data.shape=[16,32,32]", r"densenet121 halves a scan five times, so each axis of data.shape needs 32 voxels"),
    ],
)
def test_what_only_a_resnet_has_is_refused(grade, written, setting, reason):
    written("densenet121")
    code, _, err = grade("train", "--set", setting)
    assert code == 1
    assert reason in " ".join(err.split())
    assert not Path("runs").exists()
