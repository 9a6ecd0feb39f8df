"""Engines: built by the real TensorRT for RTX without a GPU, found again, and rebuilt when anything is off."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx_bindings as rtx
from onnx import numpy_helper

from deploy.model.folder import Model, open_model, write_manifest
from deploy.tensorrt.engine import find_engine, provide_engine
from deploy.tensorrt.engine_files import Engine, EngineRecord, read_record
from deploy.tensorrt.flavours import Target, choose_target
from tests.deploy.conftest import SETTINGS, ignore
from tests.deploy.fakes import FakeCuda, fake_tensorrt
from toolkit.config import ExportSettings
from toolkit.errors import ModelError, SettingsError

H100 = "NVIDIA H100 80GB HBM3"
ROOT = Path(__file__).parents[3]
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def target() -> Target:
    return choose_target("rtx", ("8.6", "12.0", "8.9"), None)


@pytest.fixture(scope="module")
def first(exported: Path, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("engines")
    return provide_engine(open_model(exported), target, SETTINGS.export, (folder,), ignore)


@pytest.fixture
def copy(first: Engine, tmp_path: Path) -> Path:
    """A folder with an engine that a test may damage."""
    folder = tmp_path / "engines"
    folder.mkdir()
    for path in first.folder.glob(f"{first.record.name}.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def provide(model: Model, target: Target, folder: Path, settings: ExportSettings = SETTINGS.export) -> Engine:
    return provide_engine(model, target, settings, (folder,), ignore)


def with_graph(folder: Path, graph: bytes) -> Model:
    """The model with another graph in fp16, as if it had been exported so."""
    (folder / "model_fp16.onnx").write_bytes(graph)
    manifest = open_model(folder).manifest
    digest = hashlib.sha256(graph).hexdigest()
    write_manifest(folder, manifest.model_copy(update={"files": manifest.files | {"model_fp16.onnx": digest}}))
    return open_model(folder)


def test_an_engine_is_half_precision_and_says_what_it_is(first: Engine, model: Model) -> None:
    record = first.record
    assert first.built
    assert first.note == ""
    # resnet10: a stem, 4 blocks of two convolutions, 3 shortcuts.
    assert (record.half, record.convolutions, record.half_share, record.proof) == (12, 12, 1.0, "network")
    assert record.onnx == hashlib.sha256((model.folder / "model_fp16.onnx").read_bytes()).hexdigest()
    assert record.plan == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert (record.flavour, record.version, record.gpu) == ("rtx", rtx.__version__, None)
    assert record.compute_capabilities == ("8.6", "8.9", "12.0")
    assert record.batches == (1, 3, 3)
    assert record.parity == "not run (no GPU)"
    assert {path.name for path in first.folder.iterdir()} == {
        ".lock",
        f"{record.name}.plan",
        f"{record.name}.json",
    }
    assert record.name.startswith(f"rtx-{rtx.__version__}-sm86-sm89-sm120-")


def test_the_engine_is_found_again(first: Engine, model: Model, target: Target) -> None:
    before = first.path.stat().st_mtime_ns
    again = provide(model, target, first.folder)
    assert not again.built
    assert again.plan == first.plan
    assert first.path.stat().st_mtime_ns == before
    one = choose_target("rtx", ("8.9",), None)  # a card of those that it was built for
    assert not provide(model, one, first.folder).built


def edit(field: str, value: object) -> Damage:
    def damage(plan: Path) -> None:
        path = plan.with_suffix(".json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda plan: plan.write_bytes(plan.read_bytes()[:1000]), "cut off or altered"),
        (lambda plan: plan.write_bytes(plan.read_bytes()[:-1]), "cut off or altered"),
        (lambda plan: plan.write_bytes(b""), "cut off or altered"),
        (lambda plan: plan.write_bytes(np.random.default_rng(0).bytes(5000)), "cut off or altered"),
        (lambda plan: plan.unlink(), "missing"),
        (lambda plan: plan.with_suffix(".json").write_text("{"), "is not an engine's record"),
        (lambda plan: plan.with_suffix(".json").write_bytes(b"\xff\x00"), "is not an engine's record"),
        (lambda plan: plan.with_suffix(".json").unlink(), ""),
        (edit("half", 0), "was altered"),
        (edit("version", "1.6"), "was altered"),
        (edit("onnx", "0" * 64), "was altered"),
        (edit("plan", "0" * 64), "was altered"),
        (edit("parity", "passed"), "was altered"),
        (edit("batches", [1, 2]), "is not an engine's record"),
        (edit("comment", "mine"), "is not an engine's record"),
    ],
)
def test_a_damaged_engine_is_built_again(
    damage: Damage, reason: str, copy: Path, model: Model, target: Target, first: Engine
) -> None:
    damage(copy / f"{first.record.name}.plan")
    again = provide(model, target, copy)
    assert again.built
    assert reason in again.note
    assert not provide(model, target, copy).built
    assert read_record(copy / f"{first.record.name}.json").plan == hashlib.sha256(again.plan).hexdigest()


def test_changed_weights_are_built_anew(copy: Path, folder: Path, target: Target, first: Engine) -> None:
    graph = onnx.load(folder / "model_fp16.onnx")
    tensor = next(x for x in graph.graph.initializer if x.name == "head.linear.bias")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32([0, 1]), tensor.name))
    changed = provide(with_graph(folder, graph.SerializeToString()), target, copy)
    assert changed.built
    assert "was built from other weights" in changed.note
    assert changed.plan != first.plan
    assert changed.record.name != first.record.name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "1.6.0"}, "was built by TensorRT for RTX 1.6.0, and here is"),
        ({"flavour": "tensorrt", "gpu": "NVIDIA H100"}, "was built by TensorRT 1.7"),
        ({"compute_capabilities": ("7.5",)}, "was built for cards of 7.5, not for cards of 8.6, 8.9, 12.0"),
        ({"batches": (1, 3, 5)}, "was built with max_batch 5, not 3"),
        ({"half": 3}, "has 3 of 12 convolution layers in half precision only"),
    ],
)
def test_a_foreign_engine_is_left_alone(
    change: dict[str, object], reason: str, first: Engine, model: Model, target: Target, tmp_path: Path
) -> None:
    other = first.record.model_copy(update=change).sealed()
    (tmp_path / f"{other.name}.plan").write_bytes(first.plan)
    (tmp_path / f"{other.name}.json").write_text(other.model_dump_json())
    found, note = find_engine(model, target, SETTINGS.export, (tmp_path,))
    assert found is None
    assert reason in note


def test_what_was_asked_of_the_build_counts(copy: Path, model: Model, target: Target) -> None:
    wanted = ExportSettings(max_batch=3, opt_batch=1, workspace_gb=0.5, opt_level=1)
    built = provide(model, target, copy, wanted)
    assert "was built with opt_batch 3, not 1" in built.note
    assert built.record.batches == (1, 1, 3)
    assert not provide(model, target, copy, wanted).built
    with pytest.raises(SettingsError, match="opt_batch = 8, but the model takes batches up to 3"):
        provide(model, target, copy, ExportSettings(max_batch=8, opt_batch=8, opt_level=0))


def test_fp32_layers_are_refused_unless_accepted(folder: Path, target: Target, tmp_path: Path) -> None:
    model = with_graph(folder, (folder / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"only 0 of 12 convolution layers.*--allow-fp32-layers"):
        provide(model, target, tmp_path / "engines")
    assert {path.name for path in (tmp_path / "engines").iterdir()} == {".lock"}
    accepted = provide(model, target, tmp_path / "engines", ExportSettings(max_batch=3, allow_fp32_layers=True))
    assert accepted.record.half_share == 0


def test_a_graph_that_cannot_be_read_is_a_sentence(folder: Path, target: Target, tmp_path: Path) -> None:
    model = with_graph(folder, b"no graph")
    with pytest.raises(ModelError, match=r"model_fp16\.onnx is no graph of `grade export`: .*export the model again"):
        provide(model, target, tmp_path / "engines")


def test_an_interrupt_stops_the_build_and_leaves_nothing(model: Model, target: Target, tmp_path: Path) -> None:
    stages: list[str] = []

    def stop(text: str) -> None:
        stages.append(text)
        if len(stages) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provide_engine(model, target, SETTINGS.export, (tmp_path,), stop)
    assert len(stages) == 3
    assert stages[0].endswith(tuple("0123456789"))
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


BUILD = """
import sys
from pathlib import Path
from deploy.tensorrt.engine import provide_engine
from deploy.tensorrt.flavours import choose_target
from deploy.model.folder import open_model
from toolkit.config import ExportSettings
target = choose_target("rtx", ("8.9",), None)
sys.stdin.readline()
engine = provide_engine(open_model(Path(sys.argv[1])), target, ExportSettings(max_batch=3), (Path(sys.argv[2]),), print)
print("built" if engine.built else "found", engine.record.plan)
"""


def test_two_processes_at_once_build_one(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(exported), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    words = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(w[-2] for w in words) == ["built", "found"]
    assert words[0][-1] == words[1][-1]


def test_a_folder_that_cannot_be_written_is_passed_over(model: Model, target: Target, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.touch()
    engine = provide_engine(model, target, SETTINGS.export, (occupied / "engines", tmp_path / "cache"), ignore)
    assert engine.folder == tmp_path / "cache"
    with pytest.raises(ModelError, match=r"no engine can be written to .*occupied/engines; make one"):
        provide_engine(model, target, SETTINGS.export, (occupied / "engines",), ignore)


@pytest.mark.parametrize("version", ["10.13.0.35", "11.4.0.106"])
def test_tensorrt_10_and_11_are_built_the_same_way(version: str, model: Model, tmp_path: Path) -> None:
    """On a fake `tensorrt`, which has no precision flag to set."""
    api = fake_tensorrt(FakeCuda(), version)
    target = Target("tensorrt", version, H100, ("9.0",), api)
    stages: list[str] = []
    settings = ExportSettings(max_batch=3, workspace_gb=2)
    engine = provide_engine(model, target, settings, (tmp_path,), stages.append)
    shape = (4, *SETTINGS.data.shape)
    assert api.seen.profile == ("scan", (1, *shape), (3, *shape), (3, *shape))
    assert api.seen.network_flags == (2 if version.startswith("10") else 1)
    assert api.seen.flags == ["-TF32"]
    assert api.seen.workspace == 2 * 2**30
    assert stages == ["Timing: 1 of 2", "Timing: 2 of 2"]
    assert (engine.record.half, engine.record.convolutions, engine.record.proof) == (3, 3, "inspector")
    assert (engine.record.gpu, engine.record.compute_capabilities) == (H100, ("9.0",))
    (timings,) = tmp_path.glob("*.timings")
    assert timings.read_bytes() == f"timings of {version}".encode()
    other = replace(target, version=version)
    provide_engine(model, other, ExportSettings(max_batch=3, opt_level=5), (tmp_path,), ignore)
    assert api.seen.timings == [b"", f"timings of {version}".encode()]
    timings.write_bytes(b"of another card")
    provide_engine(model, other, ExportSettings(max_batch=3, opt_level=4), (tmp_path,), ignore)
    assert api.seen.timings[2:] == [b"of another card", b""]


def test_a_record_names_its_file() -> None:
    digest = "ab" * 32
    record = EngineRecord(
        created="2026-11-25T00:00:00+00:00",
        onnx=digest,
        plan=digest,
        flavour="tensorrt",
        version="11.4.0.106",
        gpu="NVIDIA H100",
        compute_capabilities=("9.0",),
        batches=(1, 8, 8),
        workspace_gb=None,
        opt_level=None,
        convolutions=53,
        half=53,
        proof="inspector",
        seconds=1.0,
    )
    other = record.model_copy(update={"batches": (1, 4, 8)})
    assert record.name.startswith("tensorrt-11.4.0.106-sm90-")
    assert record.name != other.name
    assert record.name == record.model_copy(update={"plan": "cd" * 32}).name
