"""Opening and verifying a model folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deploy.model.folder import ONNX, SELFTEST, WEIGHTS, Model, open_model, write_manifest
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from toolkit.errors import ModelError


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    text = json.dumps(json.loads(file.read_text()) | changes)
    file.write_text(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "model_fp16.onnx", "weights.safetensors", "selftest.npz", "model_card.md", "familiarity.npz"],
)
def test_an_altered_file_is_named(folder: Path, name: str) -> None:
    flip_a_bit(folder / name)
    with pytest.raises(ModelError, match=f"{name} was altered"):
        open_model(folder).verify()


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        (ONNX["fp32"], Choice("onnx", "cpu", "fp32")),
        (ONNX["fp16"], Choice("onnx", "cpu", "fp16")),
        (WEIGHTS, Choice("torch", "cpu")),
    ],
)
def test_a_runtime_opens_no_altered_file(folder: Path, name: str, choice: Choice) -> None:
    flip_a_bit(folder / name)
    with pytest.raises(ModelError, match=f"{name} was altered"):
        open_runtime(open_model(folder), choice)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / SELFTEST).unlink()
    with pytest.raises(ModelError, match=r"selftest\.npz is missing"):
        open_model(folder)


def test_an_intact_model_verifies(folder: Path) -> None:
    model = open_model(folder)
    model.verify()
    wanted = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (model.fingerprint, model.short) == (wanted, wanted[:12])


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".hidden", "engines/x.plan"])
def test_no_path_leads_out_of_the_folder(folder: Path, name: str) -> None:
    edit(folder, files={name: "0" * 64})
    with pytest.raises(ModelError, match="files"):
        open_model(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"max_batch": 0}, "cannot be used: max_batch: Input"),
        ({"modalities": ["t1", "flair", "t1ce", "t2"]}, "cannot be used: modalities: this version knows"),
        ({"classes": ["HGG", "LGG"]}, "cannot be used: classes: "),
        ({"preprocessing": 99}, "cannot be used: preprocessing: "),
        ({"colour": "red"}, "cannot be used: colour: "),
        ({"calibration": None}, "cannot be used: calibration: "),
    ],
)
def test_a_wrong_manifest_is_explained(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udc80"])
def test_a_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError):
        open_model(folder)


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        open_model(tmp_path / "absent")
    with pytest.raises(ModelError, match="is no model"):
        open_model(tmp_path)


def test_a_pickle_is_refused(folder: Path) -> None:
    (folder / "engines").mkdir()
    (folder / "engines" / "extra.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="may be a pickle"):
        open_model(folder)


def test_the_manifest_reads_back(folder: Path) -> None:
    model = open_model(folder)
    write_manifest(folder, model.manifest)
    assert open_model(folder) == Model(folder, model.manifest, model.fingerprint)
    assert not list(folder.glob(".*"))
