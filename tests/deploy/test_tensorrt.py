"""The TensorRT runner on the stand-ins of `fakes.py`: buffers, shapes, order, repair, errors. No GPU computes here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorrt_rtx_bindings as rtx
from cuda.bindings import runtime as cudart

from deploy.model.folder import Model, open_model
from deploy.runtime import Choice, RuntimeOutputs
from deploy.runtimes import tensorrt as runner
from deploy.runtimes.open import open_runtime
from deploy.tensorrt import cuda, flavours
from deploy.tensorrt.engine_files import read_record
from tests.deploy.conftest import SETTINGS
from tests.deploy.fakes import MAGIC, FakeCuda, fake_tensorrt
from toolkit.errors import ModelError, OutOfMemory, RuntimeUnavailable

SHAPE = (4, *SETTINGS.data.shape)


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> None:
    """Not here: the self-test's scan is where this network is unsure."""


@pytest.fixture(scope="module")
def exported(wide: Path) -> Path:
    return wide


@dataclass
class Box:
    """A machine with GPUs that are not there."""

    cuda: FakeCuda
    api: Any
    cache: Path


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Box]:
    def make(**options: Any) -> Box:
        gpu = FakeCuda()
        api = fake_tensorrt(gpu, **options)
        monkeypatch.setattr(cuda, "cudart", gpu)
        monkeypatch.setattr(flavours, "_installed", lambda name: name == "tensorrt")
        monkeypatch.setattr(flavours, "import_module", lambda _: api)
        monkeypatch.setattr(runner, "user_cache", lambda _: tmp_path / "cache")
        return Box(gpu, api, tmp_path / "cache")

    return make


@pytest.fixture
def answers(folder: Path) -> Callable[[np.ndarray], RuntimeOutputs]:
    """ONNX Runtime's own answers from the graph in fp16."""
    session = onnxruntime.InferenceSession(folder / "model_fp16.onnx", providers=["CPUExecutionProvider"])
    return lambda scans: RuntimeOutputs(*session.run(list(RuntimeOutputs._fields), {"scan": scans}))


def scans(seed: int, batch: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE), np.float32)


def same(found: RuntimeOutputs, wanted: RuntimeOutputs) -> None:
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(x, y)


def only_record(folder: Path) -> Path:
    (path,) = (folder / "engines").glob("*.json")
    return path


def test_outputs_are_the_engines(box: Any, folder: Path, answers: Any) -> None:
    here = box()
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    assert (runtime.name, runtime.device, runtime.precision) == ("tensorrt", "cuda:0", "fp16")
    assert re.fullmatch(r"TensorRT 11.4.0.106 on cuda:0 in fp16: engine built in \d s\.", runtime.chosen)
    before = here.cuda.launches
    kept = runtime.infer(scans(0, 3))
    for seed, batch in ((0, 3), (1, 3), (2, 1), (3, 2), (4, 2)):
        same(runtime.infer(scans(seed, batch)), answers(scans(seed, batch)))
    assert here.cuda.launches > before  # CUDA graphs, not single calls
    same(kept, answers(scans(0, 3)))  # outputs are copies: later batches leave them alone
    with pytest.raises(ModelError, match="a batch of 4 was given"):
        runtime.infer(scans(0, 4))


def test_batches_overlap_and_keep_their_order(box: Any, folder: Path, answers: Any) -> None:
    here = box()
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    runtime.infer(scans(9, 2))
    assert len(here.api.seen.contexts) == 1  # the second slot's memory is taken when there is use for it
    taken: list[int] = []

    def batches() -> Any:
        for seed in range(5):
            taken.append(seed)
            yield scans(seed, 2)

    given = [(len(taken), outputs) for outputs in runtime.infer_all(batches())]
    assert [count for count, _ in given] == [3, 4, 5, 5, 5]  # two under way, the third waits in the hand
    for seed, (_, outputs) in enumerate(given):
        same(outputs, answers(scans(seed, 2)))
    assert len(here.api.seen.contexts) == 2


def test_without_graphs_it_runs_all_the_same(box: Any, folder: Path, answers: Any) -> None:
    here = box()
    here.cuda.can_capture = False
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    same(runtime.infer(scans(0, 3)), answers(scans(0, 3)))
    assert here.cuda.launches == 0


def test_the_device_asked_for(box: Any, folder: Path) -> None:
    here = box()
    runtime = open_runtime(open_model(folder), Choice("tensorrt", "cuda:1"))
    assert runtime.device == "cuda:1"
    assert here.cuda.current == 1
    record = read_record(only_record(folder))
    assert (record.gpu, record.compute_capabilities) == ("NVIDIA A100", ("8.0",))
    here.cuda.current = 0
    runtime.infer(scans(0, 1))
    assert here.cuda.current == 1
    with pytest.raises(RuntimeUnavailable, match="on device cuda:2, but CUDA shows 2 GPUs"):
        open_runtime(open_model(folder), Choice("tensorrt", "cuda:2"))


def test_an_engine_is_compared_once_before_it_answers(box: Any, folder: Path) -> None:
    here = box()
    open_runtime(open_model(folder), Choice("tensorrt"))
    record = read_record(only_record(folder))
    assert record.parity.startswith("passed on cuda:0: probability within ")
    assert record.parity.endswith(" of cpu in fp32")
    contexts = len(here.api.seen.contexts)
    again = open_runtime(open_model(folder), Choice("tensorrt"))
    assert again.chosen.endswith(f"engine taken from {folder / 'engines'}.")
    assert len(here.api.seen.contexts) == contexts
    assert here.api.seen.builds == 1


def test_an_engine_that_answers_otherwise_is_refused(box: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box()
    real = runner._Slot.finish

    def wrong(slot: Any) -> RuntimeOutputs:
        outputs = real(slot)
        return outputs._replace(logits=outputs.logits + np.float32([0, 1]))

    monkeypatch.setattr(runner._Slot, "finish", wrong)
    with pytest.raises(ModelError, match="tensorrt fp16 cuda:0: patient self-test differs by"):
        open_runtime(open_model(folder), Choice("tensorrt"))
    assert read_record(only_record(folder)).parity == "not run (no GPU)"


def test_a_refused_engine_is_built_again_once(box: Any, folder: Path) -> None:
    box()
    open_runtime(open_model(folder), Choice("tensorrt"))
    plan = only_record(folder).with_suffix(".plan").read_bytes()
    here = box(refuses=(plan,))  # as after a change of driver
    here.api.seen.builds = 1
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    assert re.search(r"engine built in \d s, since TensorRT 11.4.0.106 refuses the engine of", runtime.chosen)
    assert "the engine was built for another device" in runtime.chosen
    assert only_record(folder).with_suffix(".plan").read_bytes() != plan
    graph = plan[len(MAGIC) + 2 :]
    box(refuses=tuple(MAGIC + k.to_bytes(2, "big") + graph for k in range(9)))
    with pytest.raises(RuntimeUnavailable, match=r"refuses the engine of .* another device"):
        open_runtime(open_model(folder), Choice("tensorrt"))


def test_a_damaged_engine_is_built_again_with_a_note(box: Any, folder: Path) -> None:
    box()
    open_runtime(open_model(folder), Choice("tensorrt"))
    plan = only_record(folder).with_suffix(".plan")
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "since " in open_runtime(open_model(folder), Choice("tensorrt")).chosen


def test_a_folder_that_cannot_be_written_sends_engines_to_the_users_cache(box: Any, folder: Path) -> None:
    here = box()
    (folder / "engines").touch()  # root may write anywhere, so a file is in the way
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    assert runtime.engine.folder == here.cache
    assert not open_runtime(open_model(folder), Choice("tensorrt")).engine.built


def test_want_of_memory_is_told_apart(box: Any, folder: Path) -> None:
    here = box()
    runtime = open_runtime(open_model(folder), Choice("tensorrt"))
    for context in here.api.seen.contexts:
        context.fails = "Error Code 2: OutOfMemory (Requested size was 8 bytes.)"
    with pytest.raises(OutOfMemory, match="does not suffice for a batch of 2"):
        runtime.infer(scans(0, 2))
    for context in here.api.seen.contexts:
        context.fails = "Error Code 1: Myelin"
    with pytest.raises(RuntimeUnavailable, match="failed with a batch of 3: Error Code 1: Myelin; choose") as error:
        runtime.infer(scans(0, 3))
    assert not isinstance(error.value, OutOfMemory)
    here.cuda.memory = 1000
    with pytest.raises(OutOfMemory, match=r"not enough memory for \d+ bytes of GPU memory"):
        open_runtime(open_model(folder), Choice("tensorrt")).infer(scans(0, 3))


def test_no_gpu_and_no_bindings(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cudart", None)
    assert cuda.cards() == ()
    with pytest.raises(RuntimeUnavailable, match="CUDA shows 0 GPUs; check the driver and cuda-bindings"):
        open_runtime(model, Choice("tensorrt", "cuda"))


def test_the_real_bindings_answer_without_a_driver() -> None:
    code, _ = cudart.cudaGetDeviceCount()
    if code == cudart.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a GPU")
    assert cuda.cards() == ()
    with pytest.raises(RuntimeUnavailable, match=r"CUDA failed at the choice of cuda:0: .*driver"):
        cuda.select(0)


def test_fakes_offer_nothing_that_is_not_there() -> None:
    names = [name for name, _ in inspect.getmembers(FakeCuda) if name.startswith("cuda")]
    assert len(names) > 20
    for name in names:
        assert hasattr(cudart, name), name
    for kind in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        for member in getattr(FakeCuda, kind):
            assert getattr(getattr(cudart, kind), member.name) == member.value
    fake = fake_tensorrt(FakeCuda())
    for name in ("Builder", "OnnxParser", "Runtime", "ILogger", "IProgressMonitor"):
        methods = {method for method in vars(getattr(fake, name)) if not method.startswith("_")}
        assert methods <= set(dir(getattr(rtx, name))), name
