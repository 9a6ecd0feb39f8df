"""`grade export --trt` with the real TensorRT for RTX, which needs no GPU to build."""

import json

import pytest

from cli.screens.export import replacing
from deploy.tensorrt import flavours
from toolkit.errors import RuntimeUnavailable


def plans(project):
    return sorted((project / "model" / "engines").glob("*.plan"))


@pytest.mark.slow
def test_an_engine_is_built_kept_and_rebuilt(project, grade, monkeypatch):
    assert grade("train", "--name", "a", "--set", "training.epochs=1")[0] == 0
    options = ("--trt", "--max-batch", "2", "--compute-capability", "8.6", "--compute-capability", "12.0")
    code, _, err = grade("export", *options)
    assert code == 0, err
    text = " ".join(err.split())
    assert "12 of 12 convolution layers in half precision (100%, read in the network); parity not run (no GPU)" in text
    assert "engine for compute capability 8.6, 12.0: built in" in text
    (plan,) = plans(project)
    record = json.loads(plan.with_suffix(".json").read_text())
    assert record["batches"] == [1, 2, 2]
    assert record["onnx"] == json.loads((project / "model" / "manifest.json").read_text())["files"]["model_fp16.onnx"]

    code, out, err = grade("info", "--model", "model", "--self-test")
    assert code == 0, err
    assert "Self-test passed." in err
    assert "12 of 12" in out
    code, out, _ = grade("info", "--model", "model", "--json")
    assert json.loads(out)["engines"] == {plan.stem: record}

    code, _, err = grade("export", *options)  # the same weights: the same graph, to the byte
    assert code == 0, err
    assert "kept from the last export" in " ".join(err.split())
    assert [path.name for path in plans(project)] == [plan.name]
    assert json.loads(plan.with_suffix(".json").read_text()) == record

    assert grade("train", "--name", "b", "--set", "training.epochs=1", "--set", "training.seed=1")[0] == 0
    code, _, err = grade("export", *options)
    assert code == 0, err
    assert "was built from other weights; a new engine was built." in " ".join(err.split())
    assert [path.name for path in plans(project)] != [plan.name]

    def fail(*_):
        raise RuntimeUnavailable("TensorRT for RTX built no engine; it gives no reason.")

    before = (project / "model" / "manifest.json").read_bytes()
    monkeypatch.setattr("deploy.tensorrt.engine.build_plan", fail)
    code, _, err = grade("export", "--trt", "--opt-level", "1")
    assert code == 1
    assert "built no engine" in err
    assert (project / "model" / "manifest.json").read_bytes() == before  # the model that was there stays
    assert not list(project.glob(".model*"))


def test_without_either_library_nothing_is_written(project, grade, monkeypatch):
    assert grade("train", "--name", "a", "--set", "training.epochs=1")[0] == 0
    monkeypatch.setattr(flavours, "find_spec", lambda _: None)
    code, _, err = grade("export", "--trt")
    assert code == 1
    assert "TensorRT for RTX is not installed; pip install -c constraints.txt '.[rtx]'" in " ".join(err.split())
    assert not (project / "model").exists()


@pytest.mark.slow
def test_a_model_goes_into_a_bundle_and_a_repository(project, grade):
    assert grade("train", "--name", "a", "--set", "training.epochs=1")[0] == 0
    code, _, err = grade("export", "--bundle", "bundle", "--max-batch", "2")
    assert code == 0, err
    assert "MONAI bundle of model" in " ".join(err.split())
    before = (project / "model" / "manifest.json").read_bytes()
    metadata = json.loads((project / "bundle/configs/metadata.json").read_text())

    code, _, err = grade("export", "model", "--bundle", "other", "--triton", "repository")  # nothing is exported anew
    assert code == 0, err
    assert "Triton repository repository: grade_onnx, grade_onnx_fp16" in " ".join(err.split())
    assert json.loads((project / "other/configs/metadata.json").read_text()) == metadata
    assert (project / "model" / "manifest.json").read_bytes() == before

    code, _, err = grade("export", "model", "--bundle", "other", "--max-batch", "4")
    assert code == 2
    assert "is packed as it is" in " ".join(err.split())
    code, _, err = grade("export", "model", "--bundle", "cohort")
    assert code == 1
    assert "cohort holds something other than a bundle" in " ".join(err.split())


def test_a_self_test_needs_a_model_that_answers(project, grade):
    code, _, err = grade("info", "--self-test")
    assert code == 1
    assert "--self-test needs a model" in err


def test_what_goes_with_a_model_that_is_replaced_is_said(tmp_path, capsys):
    with replacing(tmp_path):
        (tmp_path / "manifest.json").touch()
    assert capsys.readouterr().err == ""
    for name in ("manifest.sig", "brain.onnx"):
        (tmp_path / name).touch()
    with replacing(tmp_path):
        (tmp_path / "manifest.sig").unlink()
    assert "was replaced, with its signature." in " ".join(capsys.readouterr().err.split())
    with replacing(tmp_path):
        (tmp_path / "brain.onnx").unlink()
    assert "was replaced, with its brain mask." in " ".join(capsys.readouterr().err.split())
    with replacing(tmp_path):
        pass
    assert capsys.readouterr().err.rstrip().endswith("was replaced.")
