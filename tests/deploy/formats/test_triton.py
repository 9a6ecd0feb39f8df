"""The Triton repository, read back by Triton's protobuf, and the client against a stand-in for the server."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("tritonclient.grpc")

from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc import model_config_pb2 as pb

from deploy.formats.triton import read_config, write_repository
from deploy.formats.triton_client import grade_patients, open_triton
from deploy.model.folder import Model, open_model, write_manifest
from deploy.predict.pipeline import PredictOptions, predict
from deploy.results.record import Record
from deploy.runtime import Choice
from deploy.selftest import load_selftest
from deploy.tensorrt.engine_files import Engine, EngineRecord, store_engine
from tests.deploy.conftest import ignore
from tests.deploy.triton_server import Server, serving
from toolkit.config import PredictSettings
from toolkit.data.patients import Patient
from toolkit.errors import ModelError, RuntimeUnavailable

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def repository(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    written = write_repository(open_model(exported), out)
    assert written == (("grade_onnx", "grade_onnx_fp16"), ())
    return out


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[tuple[Server, str]]:
    with serving(repository) as started:
        yield started


def predicted(patients: tuple[Patient, ...], model: Model, out: Path) -> list[Record]:
    records: list[Record] = []
    predict(patients, model, PredictOptions(out, Choice("onnx", "cpu"), PredictSettings()), ignore, records.append)
    return records


@pytest.mark.parametrize(
    ("name", "graph", "kind"),
    [
        ("grade_onnx", "model.onnx", pb.ModelInstanceGroup.KIND_AUTO),
        ("grade_onnx_fp16", "model_fp16.onnx", pb.ModelInstanceGroup.KIND_GPU),
    ],
)
def test_a_config_says_what_the_graph_says(name: str, graph: str, kind: int, repository: Path, model: Model) -> None:
    config = read_config(repository / name / "config.pbtxt")
    assert (repository / name / "1/model.onnx").read_bytes() == (model.folder / graph).read_bytes()
    stated = onnx.load(repository / name / "1/model.onnx").graph
    for ours, theirs in zip((*config.input, *config.output), (*stated.input, *stated.output), strict=True):
        assert ours.name == theirs.name
        assert ours.data_type == pb.TYPE_FP32
        assert theirs.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert list(ours.dims) == [dim.dim_value for dim in theirs.type.tensor_type.shape.dim[1:]]
    assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 3)
    assert list(config.dynamic_batching.preferred_batch_size) == [3]
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert [(group.kind, group.count) for group in config.instance_group] == [(kind, 1)]
    assert config.version_policy.latest.num_versions == 1
    assert config.parameters["grade_model"].string_value == model.fingerprint


def test_the_warm_up_is_the_self_test(repository: Path, model: Model) -> None:
    config = read_config(repository / "grade_onnx/config.pbtxt")
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 3]
    for warmup in config.model_warmup:
        given = warmup.inputs["scan"]
        content = (repository / "grade_onnx/warmup" / given.input_data_file).read_bytes()
        scan = np.frombuffer(content, np.float32).reshape(tuple(given.dims))
        np.testing.assert_array_equal(scan, load_selftest(model)[0])


def record(model: Model, plan: bytes, **changes: object) -> EngineRecord:
    given = {
        "created": "2026-01-01T00:00:00+00:00",
        "onnx": model.manifest.files["model_fp16.onnx"],
        "plan": hashlib.sha256(plan).hexdigest(),
        "flavour": "tensorrt",
        "version": "11.4.0.106",
        "gpu": "NVIDIA H100 80GB HBM3",
        "compute_capabilities": ("9.0",),
        "batches": (1, 2, 3),
        "workspace_gb": None,
        "opt_level": None,
        "convolutions": 12,
        "half": 12,
        "proof": "inspector",
        "seconds": 1.0,
    }
    return EngineRecord.model_validate(given | changes).sealed()


def test_engines_go_along_each_for_its_card(folder: Path, tmp_path: Path) -> None:
    model = open_model(folder)
    engines = (
        record(model, b"a"),
        record(model, b"b", gpu="NVIDIA A100", compute_capabilities=("8.0",)),
        record(model, b"c", gpu=None, flavour="rtx", version="1.7.1.116", compute_capabilities=("8.6", "12.0")),
        record(model, b"d", gpu="NVIDIA T4", compute_capabilities=("7.5",), onnx="0" * 64),
        record(model, b"e", gpu="NVIDIA L40S", compute_capabilities=("8.9",), version="10.16.0.1"),
    )
    for number, made in enumerate(engines):
        store_engine(Engine(folder / "engines", made, b"abcde"[number : number + 1], True), folder / "engines")
    written = write_repository(model, tmp_path / "repository")
    config = read_config(tmp_path / "repository/grade_tensorrt/config.pbtxt")
    # The records are gone through by name: 10.16 comes before 11.4, and a server has one TensorRT.
    assert written.names == ("grade_onnx", "grade_onnx_fp16", "grade_tensorrt")
    served = {capability: name.removesuffix(".plan") for capability, name in config.cc_model_filenames.items()}
    assert served == {"8.9": engines[4].name}
    assert config.parameters["tensorrt"].string_value == "10.16.0.1"
    assert len(written.notes) == 4
    assert sum("a server has one version, here 10.16.0.1" in sentence for sentence in written.notes) == 2

    for suffix in ("plan", "json"):
        (folder / "engines" / f"{engines[4].name}.{suffix}").unlink()
    written = write_repository(model, tmp_path / "repository")
    config = read_config(tmp_path / "repository/grade_tensorrt/config.pbtxt")
    assert dict(config.cc_model_filenames) == {"9.0": f"{engines[0].name}.plan", "8.0": f"{engines[1].name}.plan"}
    plans = tmp_path / "repository/grade_tensorrt/1"
    assert {path.name: path.read_bytes() for path in plans.iterdir()} == {
        f"{engines[0].name}.plan": b"a", f"{engines[1].name}.plan": b"b"
    }  # fmt: skip
    assert (config.backend, list(config.dynamic_batching.preferred_batch_size)) == ("tensorrt", [2, 3])
    assert config.default_model_filename in config.cc_model_filenames.values()
    notes = " ".join(written.notes)
    assert "which Triton does not run" in notes
    assert "built from other weights" in notes


def test_other_models_of_the_repository_stay(model: Model, tmp_path: Path) -> None:
    (tmp_path / "lungs/1").mkdir(parents=True)
    (tmp_path / "grade_onnx").mkdir()
    (tmp_path / "grade_onnx/notes.txt").touch()
    with pytest.raises(ModelError, match="something other than a model of a Triton repository"):
        write_repository(model, tmp_path)
    shutil.rmtree(tmp_path / "grade_onnx")
    write_repository(model, tmp_path)
    write_repository(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lungs", "grade_onnx", "grade_onnx_fp16"}


def test_the_client_grades_as_grade_predict_does(
    server: tuple[Server, str], patients: tuple[Patient, ...], model: Model, tmp_path: Path
) -> None:
    shutil.copytree(patients[0].folder, tmp_path / "bad")
    next((tmp_path / "bad").glob("*_t2.nii*")).unlink()
    everybody = (patients[0], Patient("bad", tmp_path / "bad"), *patients[1:])
    wanted = predicted(everybody, model, tmp_path / "results")
    with InferenceServerClient(server[1]) as client:
        runtime = open_triton(model, client, "grade_onnx")
        found = list(grade_patients(everybody, runtime, workers=3))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.patient, ours.grade, ours.verdict) == (theirs.patient, theirs.grade, theirs.verdict)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-6)
        assert ours.threshold == model.manifest.calibration.threshold
        assert ours.inputs == theirs.inputs
    assert "t2 missing" in found[1].reason
    assert found[0].runtime == "triton fp32 server"
    assert set(server[0].batches) == {1}  # the server makes the batches


def test_another_model_on_the_server_is_refused(server: tuple[Server, str], folder: Path, model: Model) -> None:
    write_manifest(folder, model.manifest.model_copy(update={"created": "2020-01-01T00:00:00+00:00"}))
    with InferenceServerClient(server[1]) as client:
        with pytest.raises(ModelError, match="the server's grade_onnx is model"):
            open_triton(open_model(folder), client, "grade_onnx")
        with pytest.raises(RuntimeUnavailable, match=r"no model grade_tensorrt: .*unknown model"):
            open_triton(model, client, "grade_tensorrt")
    with InferenceServerClient("127.0.0.1:1") as nobody, pytest.raises(RuntimeUnavailable, match="no model grade_onnx"):
        open_triton(model, nobody, "grade_onnx")


def test_the_example_runs(
    server: tuple[Server, str],
    patients: tuple[Patient, ...],
    model: Model,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = os.path.commonpath([patient.folder for patient in patients])
    monkeypatch.setattr(sys, "argv", ["triton_client.py", cohort, "--model", str(model.folder), "--url", server[1]])
    runpy.run_path(str(ROOT / "examples/triton_client.py"), run_name="__main__")
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert sorted(row[0] for row in rows) == sorted(patient.id for patient in patients)
    assert {row[1] for row in rows} == {"LGG", "HGG"}
