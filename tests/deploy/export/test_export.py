"""The model folder that export writes, and what a failed export leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy.export import export
from deploy.export.export import export_run
from deploy.lanes import Lanes
from deploy.model.folder import Model, Precision, file_hashes, open_model
from deploy.model.manifest import OutputShapes
from deploy.predict.verdict import read_space
from deploy.runtime import Choice
from deploy.runtimes.open import open_runtime
from tests.deploy.conftest import SETTINGS, ignore
from toolkit.config import Grid
from toolkit.data.patients import Cohort
from toolkit.data.scan import read_scan
from toolkit.errors import ModelError
from toolkit.evaluation.familiarity import Bound, Familiarity
from toolkit.files import put
from toolkit.training.network.network import GradeNet
from toolkit.training.runs.run import Run

Writer = Callable[[GradeNet, Grid, Precision, Path], OutputShapes]


def reuse(exported: Path, shapes: OutputShapes, shift: float) -> Writer:
    """In place of the slow exporter: the graphs that are there, the HGG logit of fp16 shifted."""

    def write(network: GradeNet, grid: Grid, precision: Precision, path: Path) -> OutputShapes:
        graph = onnx.load(exported / path.name)
        if precision == "fp16":
            for tensor in graph.graph.initializer:
                if tensor.name == "head.linear.bias":
                    tensor.CopyFrom(
                        numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32([0, shift]), tensor.name)
                    )
        onnx.save(graph, path)
        return shapes

    return write


def test_everything_is_there_and_listed(model: Model) -> None:
    names = {"model.onnx", "model_fp16.onnx", "weights.safetensors", "selftest.npz", "model_card.md", "familiarity.npz"}

    assert set(model.manifest.files) == names
    assert {path.name for path in model.folder.iterdir()} == names | {"manifest.json", "manifest.sha256"}
    assert model.manifest.files == file_hashes(model.folder)
    assert (model.folder / "selftest.npz").stat().st_size < 1_000_000
    assert len({path.stat().st_mode for path in model.folder.iterdir()}) == 1
    assert model.manifest.training.validation == {"LGG": 3, "HGG": 3}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_has_free_batch_and_float32_ends(model: Model, precision: Precision) -> None:
    graph = onnx.load_from_string(model.onnx(precision)).graph
    ends = {x.name: x.type.tensor_type for x in (*graph.input, *graph.output)}
    assert list(ends) == ["scan", "logits", "features", "evidence"]
    assert all(end.elem_type == onnx.TensorProto.FLOAT and end.shape.dim[0].dim_param for end in ends.values())
    convolutions = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    wanted = onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.FLOAT16
    assert {x.data_type for x in graph.initializer if x.name in convolutions} == {wanted}
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_path_leaves_the_machine(model: Model, precision: Precision) -> None:
    content = model.onnx(precision)
    for trace in (b"network.py", b"site-packages", b"stack_trace", b"namespace", str(Path.cwd()).encode()):
        assert trace not in content


def test_runtimes_answer_as_the_trained_network(model: Model, run: Run, cohort: Cohort) -> None:
    scans = np.stack([read_scan(patient, SETTINGS.data.grid).data for patient in cohort.patients[:3]])
    with torch.inference_mode():
        wanted = run.load_best()(torch.from_numpy(scans))  # neither folded nor exported
    for choice, tolerance in (
        (Choice("torch", "cpu"), 1e-4),
        (Choice("onnx", "cpu"), 1e-4),
        (Choice("onnx", "cpu", "fp16"), 2e-2),
    ):
        found = open_runtime(model, choice).infer(scans)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=tolerance)


def test_a_gpu_is_judged_with_both_kinds_of_kernels_and_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Choice] = []

    def opened(_: object, choice: Choice) -> SimpleNamespace:
        asked.append(choice)
        return SimpleNamespace(device="cpu" if choice.device == "cpu" else device)

    monkeypatch.setattr(export, "open_onnx", opened)
    monkeypatch.setattr(export, "open_runtime", opened)
    choices = {Choice("onnx", "cpu", "fp32", 3), Choice("onnx", "auto", "fp16", 3)}  # opened at the same time
    others = {Choice("tensorrt", "cuda", "fp16"), Choice("onnx", "cuda:0", "fp16", scans=1)}
    device = "cpu"
    with Lanes(2, threads=3) as lanes:
        assert not export._judged(None, False, lanes).on_gpu  # type: ignore[arg-type]
        assert len(asked) == 2
        assert set(asked) == choices
        device = "cuda:0"
        judged = export._judged(None, True, lanes)  # type: ignore[arg-type]
        assert len(asked) == 6
        assert set(asked[2:]) == choices | others
    assert [one.device for one in judged.all] == ["cpu", "cuda:0", "cuda:0", "cuda:0"]
    assert len(judged.others) == 2


def test_a_failed_gate_leaves_the_old_model(
    run: Run, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_hashes(folder)
    shapes = open_model(exported).manifest.outputs
    monkeypatch.setattr("deploy.export.export.write_onnx", reuse(exported, shapes, shift=0.1))
    with pytest.raises(ModelError, match=r"onnx fp16 cpu.*differs by 0\.0\d+ in probability, more than 0\.005"):
        export_run(run, folder, SETTINGS.export, None, ignore)
    assert file_hashes(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_new_model_takes_the_place_of_the_old(
    run: Run, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "engines").mkdir()  # of the old weights
    old = open_model(folder).fingerprint
    shapes = open_model(exported).manifest.outputs
    monkeypatch.setattr("deploy.export.export.write_onnx", reuse(exported, shapes, shift=0))
    stages: list[str] = []
    new = export_run(run, folder, SETTINGS.export.model_copy(update={"max_batch": 2}), None, stages.append).model
    new.verify()
    assert new.fingerprint != old
    assert new.manifest.max_batch == 2
    assert not (folder / "engines").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    parity = stages.index("parity: patient 6 of 6")
    assert stages[parity + 1 : parity + 3] == ["parity: extreme scans and batches", "self-test"]
    assert stages[-1] == "limits and card"


@pytest.mark.parametrize("exchange", [True, False])
def test_folders_change_places(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model", ".model.1.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange:  # as on a file system that cannot
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    put(tmp_path / ".model.1.tmp", tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == [".model.1.tmp"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"model", ".model.1.tmp"} if exchange else {"model"})


def test_what_is_no_model_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(ModelError, match="something other than a model"):
        export_run(run, tmp_path / "photos", SETTINGS.export, None, ignore)
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["my_notes.txt", "engines/run.sh", "old/model.onnx"])
def test_a_file_that_is_not_ours_is_not_deleted(name: str, run: Run, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(ModelError, match=f"holds {name}, which is not of a model; move it"):
        export_run(run, folder, SETTINGS.export, None, ignore)
    assert (folder / name).read_text() == "mine"


def test_a_validation_patient_that_is_gone_is_named(
    run: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run.folder, moved)
    first = run.validation_patients().patients[0]
    text = (moved / "split.csv").read_text()
    (moved / "split.csv").write_text(text.replace(str(first.folder), str(tmp_path / "elsewhere" / first.id)))
    shapes = open_model(exported).manifest.outputs
    monkeypatch.setattr("deploy.export.export.write_onnx", reuse(exported, shapes, shift=0))
    with pytest.raises(ModelError, match=f"needs patient {first.id}"):
        export_run(Run(moved, run.settings), tmp_path / "model", SETTINGS.export, None, ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_says_what_the_manifest_says(model: Model, run: Run) -> None:
    text = (model.folder / "model_card.md").read_text()
    calibration = model.manifest.calibration
    assert f"HGG from {calibration.threshold:.4g} on" in text
    assert "LGG always (too few patients)" in text
    assert "not known, with 6 training and 6 validation patients" in text
    assert "| training patients | 3 | 3 |" in text
    checklist = text[text.index("## Reporting checklist") :]
    rows = [line for line in checklist.splitlines() if line.startswith("| ")]
    assert len(rows) == 21
    assert all(row.count("|") == 3 for row in rows)
    assert sum("**Gap**" in row for row in rows) == 8
    assert model.manifest.training.labels.startswith("Grades from the ")
    assert text.count(model.manifest.training.labels) == 2
    assert "The sites of these patients are not known" in text
    assert str(run.folder.parent) not in text


def test_the_card_says_how_the_limits_were_found(
    run: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Familiarity(
        distance_rate=0.1,
        distance_confidence=0.95,
        distance_by="tail",
        image_rate=0.025,
        training=75,
        validation=25,
        distance=12.5,
        bounds=(Bound(name="volume", low=900, high=2000),),
    )
    space = read_space(open_model(exported))
    monkeypatch.setattr(
        "deploy.export.export.write_onnx", reuse(exported, open_model(exported).manifest.outputs, shift=0)
    )
    monkeypatch.setattr("deploy.export.export.learn_familiarity", lambda *_: (limits, space))
    text = (
        export_run(run, tmp_path / "model", SETTINGS.export, None, ignore).model.folder / "model_card.md"
    ).read_text()
    assert (
        "feature distance over 12.5, which with 95 % confidence at most 10 % of familiar patients are"
        " (by the tail of the distances of 25 validation patients), or any of 1 image statistics"
        " outside its range, which 2.5 % are on average over cohorts"
    ) in text
