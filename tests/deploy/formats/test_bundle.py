"""The MONAI bundle, by MONAI's functions and its own command line, in a process that they share."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.bundle_parts import ReadScand, list_patients
from deploy.formats.bundle import write_bundle
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.results.record import Record
from deploy.runtime import Choice
from tests.deploy.conftest import SETTINGS, ignore
from toolkit.config import PredictSettings
from toolkit.data.patients import Cohort, Patient
from toolkit.errors import ModelError, PatientRefused

jsonschema = pytest.importorskip("jsonschema")
if not all(map(find_spec, ("fire", "ignite"))):  # MONAI's own process loads them: seconds
    pytest.skip("needs fire and ignite", allow_module_level=True)

ROOT = Path(__file__).parents[3]
CONFIGS = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")

# What MONAI's meta_schema_20240725.json demands, written out: `verify_metadata` would fetch it.
TENSOR = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
VALUES = {"type": "object", "additionalProperties": {"anyOf": [{"type": ["number", "string", "boolean"]}, TENSOR]}}
NEEDED = ("schema", "version", "monai_version", "pytorch_version", "numpy_version")
NEEDED += ("task", "description", "authors", "copyright")
WORDS = (*NEEDED, "data_source", "data_type", "image_classes", "label_classes", "pred_classes", "intended_use")
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "properties": {word: {"type": "string"} for word in WORDS}
    | {
        name: {"type": "object"}
        for name in ("changelog", "required_packages_version", "eval_metrics", "supported_apps")
    }
    | {"references": {"type": "array", "items": {"type": "string"}}},
    "patternProperties": {
        "^[_a-zA-Z0-9]+_data_format$": {
            "type": "object",
            "properties": {"inputs": VALUES, "outputs": VALUES, "post_processed_outputs": VALUES},
            "required": ["inputs", "outputs"],
        }
    },
    "required": [*NEEDED, "required_packages_version", "network_data_format"],
}


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> None:
    """Not here: MONAI's own process builds the network."""


@pytest.fixture(scope="module")
def exported(wide: Path) -> Path:
    return wide


@pytest.fixture(scope="module")
def bundle(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "glioma"
    write_bundle(open_model(exported), out)
    return out


def in_bundle(bundle: Path, *command: str) -> str:
    """What a command prints in the bundle's folder, where its README says that MONAI is called."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = (sys.executable, *command)
    ended = subprocess.run(words, cwd=bundle, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


CHECKS = """
import runpy, sys
from monai.bundle import run, verify_metadata, verify_net_in_out

schema, patient, out, *words = sys.argv[1:]
meta, config = "configs/metadata.json", "configs/inference.json"
verify_metadata(meta_file=meta, filepath=schema)
verify_net_in_out("network_def", meta_file=meta, config_file=config, device="cpu")
run(meta_file=meta, config_file=config, output_dir=out, dataset_dir=patient, workers=0)
sys.argv = ["monai.bundle", *words]  # python -m monai.bundle ...
runpy.run_module("monai.bundle", run_name="__main__")
"""


@pytest.fixture(scope="module")
def checked(bundle: Path, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What MONAI's checks print, and where it grades the first patient alone (`one`) and all by command (`eval`)."""
    folder = tmp_path_factory.mktemp("checks")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    patients = [patient.folder for patient in cohort.patients]
    where = ("--output_dir", str(folder / "eval"), "--dataset_dir", os.path.commonpath(patients))
    run = ("run", *CONFIGS, *where, "--batch_size", "4", "--workers", "0")
    return in_bundle(
        bundle, "-c", CHECKS, *map(str, (folder / "schema.json", patients[0], folder / "one")), *run
    ), folder


def test_monai_verifies_the_metadata_and_the_network(checked: tuple[str, Path], bundle: Path) -> None:
    assert "metadata is verified with no error" in checked[0]
    assert "data shape of network is verified with no error" in checked[0]
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    metadata["network_data_format"]["inputs"]["image"]["num_channels"] = "four"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, SCHEMA)


def test_a_run_gives_the_probabilities_of_grade_predict(
    checked: tuple[str, Path], patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    records: list[Record] = []
    options = PredictOptions(tmp_path / "results", Choice("onnx", "cpu"), PredictSettings())
    predict(patients, model, options, ignore, records.append)
    rows = rows_of(checked[1] / "eval")
    found = {row["patient"]: (row["grade"], float(row["probability"])) for row in rows}
    assert len(rows) == len(records) == 6
    assert len({row["grade"] for row in rows}) == 2
    for record in records:
        assert found[record.patient] == (record.grade, pytest.approx(record.probability, abs=1e-5))
    assert {float(row["threshold"]) for row in rows} == {model.manifest.calibration.threshold}

    (row,) = rows_of(checked[1] / "one")
    assert (row["patient"], row["grade"]) == (patients[0].id, found[patients[0].id][0])
    assert float(row["probability"]) == pytest.approx(found[patients[0].id][1], abs=1e-5)


def test_a_patient_that_cannot_be_read_is_an_error_with_the_reason(
    patients: tuple[Patient, ...], tmp_path: Path
) -> None:
    shutil.copytree(patients[0].folder, tmp_path / "bad")
    next((tmp_path / "bad").glob("*_t2.nii*")).unlink()
    read = ReadScand("image", SETTINGS.data.spacing, SETTINGS.data.shape)
    with pytest.raises(PatientRefused, match="t2 missing"):
        read(list_patients(str(tmp_path))[0])


def test_what_is_in_it(bundle: Path, model: Model) -> None:
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        "LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt"
    }  # fmt: skip
    state = torch.load(bundle / "models/model.pt", weights_only=True)
    assert state["network.head.linear.weight"].shape == (2, 512)
    assert json.loads((bundle / "configs/metadata.json").read_text())["grade_model"] == model.fingerprint
    assert "Apache License" in (bundle / "LICENSE").read_text()
    assert "# Model card" in (bundle / "docs/README.md").read_text()
    assert str(model.folder) not in "".join((bundle / name).read_text() for name in files - {"models/model.pt"})


def test_an_earlier_bundle_is_replaced_and_nothing_else(model: Model, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "old")
    (tmp_path / "old/LICENSE").write_text("an earlier one")
    write_bundle(model, tmp_path / "old")
    assert (tmp_path / "old/LICENSE").read_bytes() == (bundle / "LICENSE").read_bytes()
    (tmp_path / "old/models/more.pt").touch()
    with pytest.raises(ModelError, match=r"holds models/more\.pt, which is not of a bundle; move it"):
        write_bundle(model, tmp_path / "old")
    assert (tmp_path / "old/models/more.pt").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(ModelError, match="something other than a bundle"):
        write_bundle(model, tmp_path / "photos")
    assert {path.name for path in tmp_path.iterdir()} == {"old", "photos"}


def test_altered_weights_make_no_bundle(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="altered after the export"):
        write_bundle(open_model(folder), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
