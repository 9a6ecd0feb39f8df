"""What a runtime takes, gives and refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.model.folder import Model, Precision
from deploy.runtime import Array, Choice, RuntimeOutputs, checked
from deploy.runtimes import onnx as onnx_runtime
from deploy.runtimes.halving import Halving
from deploy.runtimes.onnx import BoundBatch
from deploy.runtimes.open import open_runtime
from deploy.selftest import LIMITS, probability
from tests.deploy.conftest import SETTINGS
from tests.narrow import FEATURES
from toolkit.errors import ModelError, OutOfMemory, RuntimeUnavailable

SHAPE = (4, *SETTINGS.data.shape)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_gpu_that_is_not_there_is_an_error(model: Model, name: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"device cuda was asked for.*choose the device cpu"):
        open_runtime(model, Choice(name, "cuda"))


@pytest.mark.usefixtures("without_cuda")
def test_auto_says_what_it_chose(model: Model) -> None:
    runtime = open_runtime(model, Choice())
    assert (runtime.name, runtime.device, runtime.precision) == ("onnx", "cpu", "fp32")
    assert runtime.chosen == "ONNX Runtime on the CPU in fp32: this ONNX Runtime is built without CUDA."


class _OnCpu:
    """A session that silently runs elsewhere."""

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        # The message of onnxruntime-gpu 1.31 on a machine without CUDA.
        (
            "nodes are assigned to the default CPU EP, but fallback to CPU EP has been explicitly disabled",
            "did not start",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected", "no CUDA-capable device"),
        (None, "it took CPUExecutionProvider in place of CUDAExecutionProvider"),
    ],
)
def test_a_gpu_that_does_not_start_is_never_replaced_in_silence(
    failure: str | None, reason: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnxruntime.InferenceSession

    half = (model.folder / "model_fp16.onnx").read_bytes()

    def session(graph: bytes, options: object, providers: list[tuple[str, dict[str, str]]], **rest: object) -> object:
        if providers[0][0] == "CPUExecutionProvider":
            return real(graph, options, providers=providers, **rest)
        assert providers[0][1]["device_id"] in ("0", "1")
        # DEFAULT costs eight to ten times as much on these networks, and says so in the log only.
        assert providers[0][1]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
        # use_tf32 = 0 also forbids fp16 the tensor cores, which is seven to ten times slower.
        assert ("use_tf32" in providers[0][1]) == (graph != half)
        assert providers[0][1]["prefer_nhwc"] == "1"
        # Two thirds of the time, where the first convolution is one of blocks; nearly twice the time where it is not.
        assert ("fuse_conv_bias" in providers[0][1]) == (graph == half)
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert rest == {"enable_fallback": 0}
        if failure is None:
            return _OnCpu()
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(failure)

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(RuntimeUnavailable, match=rf"cannot use cuda:[01]: .*{reason}.*or choose the device cpu"):
            open_runtime(model, Choice("onnx", device))
    chosen = open_runtime(model, Choice()).chosen
    assert chosen.startswith("ONNX Runtime on the CPU in fp32: ")
    assert reason in chosen


class _Fails:
    """A session that cannot compute."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def run(self, *_: object) -> list[Array]:
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(self._sentence)


def test_a_card_that_cannot_fuse_biases_does_without(model: Model) -> None:
    """cuDNN's sentence where a convolution and its bias cannot be one; without fusing the answer is the same."""
    scans = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
    exact = open_runtime(model, Choice("onnx", "cpu", "fp32"))
    opened = []

    def unfused() -> object:
        opened.append(True)
        return exact.session  # type: ignore[attr-defined]

    failing = _Fails("Non-zero status code returned while running Conv node. Name:'node_conv3d'")
    runtime = onnx_runtime.OnnxRuntime(model, "cpu", "fp32", "chosen.", failing, unfused=unfused)
    for _ in range(2):
        np.testing.assert_array_equal(runtime.infer(scans).logits, exact.infer(scans).logits)
    assert opened == [True]
    for runtime, kind in (
        (onnx_runtime.OnnxRuntime(model, "cpu", "fp32", "chosen.", failing), RuntimeUnavailable),
        (onnx_runtime.OnnxRuntime(model, "cpu", "fp32", "", _Fails("out of memory"), unfused=unfused), OutOfMemory),
    ):
        with pytest.raises(kind):
            runtime.infer(scans)
    assert opened == [True]


@pytest.mark.parametrize(
    ("precision", "blocks", "more"),
    [("fp16", True, {"fuse_conv_bias": "1"}), ("fp16", False, {}), ("fp32", True, {"use_tf32": "0"})],
)
def test_options_that_differ(precision: Precision, blocks: bool, more: dict[str, str]) -> None:
    name, options = onnx_runtime._provider("cuda:1", precision, blocks)
    common = {"device_id": "1", "cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"}
    assert (name, options) == ("CUDAExecutionProvider", common | more)
    _, soon = onnx_runtime._provider("cuda:1", precision, blocks, soon=True)
    more = {name: value for name, value in more.items() if name != onnx_runtime.FUSED}
    assert soon == common | more | {"cudnn_conv_algo_search": "HEURISTIC"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["onnx", "torch"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gpu_answers_as_the_cpu(model: Model, name: str, precision: Precision) -> None:
    scans = np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)
    calibration = model.manifest.calibration
    wanted = probability(open_runtime(model, Choice("onnx", "cpu", "fp32")).infer(scans), calibration)
    runtime = open_runtime(model, Choice(name, "cuda", precision))
    assert (runtime.device, runtime.precision) == ("cuda:0", precision)
    for batch in (1, 3, 2):  # the memory on the GPU is taken anew
        found = probability(runtime.infer(scans[:batch]), calibration)
        np.testing.assert_allclose(found, wanted[:batch], rtol=0, atol=LIMITS[precision])


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        pytest.param(
            Choice("tensorrt"),
            "on device auto, but CUDA shows 0 GPUs",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (Choice("tensorrt", "cpu"), "TensorRT runs on a GPU only"),
        (Choice("tensorrt", "cuda", "fp32"), "TensorRT engines are half precision"),
        (Choice("openvino"), "runtime 'openvino' is unknown"),
        (Choice(device="tpu"), "device 'tpu' is unknown"),
        (Choice("torch", "cpu", "fp16"), "fp16 on a GPU only"),
    ],
)
def test_what_is_not_there_is_explained(model: Model, choice: Choice, sentence: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=sentence):
        open_runtime(model, choice)


@pytest.mark.parametrize("name", ["onnx", "torch"])
@pytest.mark.parametrize(
    "scans",
    [
        np.zeros((4, *SHAPE), np.float32),  # max_batch is 3
        np.zeros((0, *SHAPE), np.float32),
        np.zeros(SHAPE, np.float32),
        np.zeros((1, 3, *SHAPE[1:]), np.float32),
        np.zeros((1, *SHAPE), np.float64),
    ],
)
def test_a_wrong_batch_is_refused(model: Model, name: str, scans: np.ndarray) -> None:
    with pytest.raises(ModelError, match="a batch of"):
        open_runtime(model, Choice(name, "cpu")).infer(scans)


def test_outputs_of_another_shape_are_refused(model: Model) -> None:
    shapes = [(2, 2), (2, FEATURES), (2, 1, 1, 1)]
    outputs = RuntimeOutputs(*(np.zeros(shape, np.float32) for shape in shapes))
    assert checked(outputs, 2, model.manifest) is outputs
    with pytest.raises(ModelError, match="features"):
        checked(outputs._replace(features=np.zeros((2, FEATURES - 1), np.float32)), 2, model.manifest)
    with pytest.raises(ModelError, match="logits"):
        checked(outputs, 3, model.manifest)


def test_bound_memory_gives_the_same_answers(model: Model) -> None:
    """What the GPU path does, on the CPU's memory."""
    session = open_runtime(model, Choice("onnx", "cpu")).session
    rng = np.random.default_rng(0)
    first = rng.standard_normal((2, *SHAPE), np.float32)
    bound = BoundBatch(session, first, "cpu", 0)
    for scans in (first, rng.standard_normal((2, *SHAPE), np.float32), first):
        wanted = session.run(list(RuntimeOutputs._fields), {"scan": scans})
        for x, y in zip(bound.run(scans), wanted, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        # onnxruntime: its arena, CUDA, cuDNN
        ("bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 17179869184", OutOfMemory),
        ("CUDA failure 2: out of memory ; GPU=0", OutOfMemory),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", OutOfMemory),
        ("CUDA failure 700: an illegal memory access was encountered", RuntimeUnavailable),
    ],
)
def test_want_of_memory_is_told_apart(message: str, kind: type[Exception], model: Model) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(message)

    runtime = replace(open_runtime(model, Choice("onnx", "cpu")), session=Failing())
    with pytest.raises(RuntimeUnavailable, match="with a batch of 1") as error:
        runtime.infer(np.zeros((1, *SHAPE), np.float32))
    assert type(error.value) is kind


class Small:
    """A runtime whose memory takes so many scans; the first logit of its answer is the scan's first voxel."""

    name, device, precision, chosen = "onnx", "cuda:0", "fp16", "Small."

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def infer(self, scans: np.ndarray) -> RuntimeOutputs:
        self.asked.append(len(scans))
        if len(scans) > self.most:
            raise OutOfMemory("too much")
        first = scans.reshape(len(scans), -1)[:, :1]
        return RuntimeOutputs(np.repeat(first, 2, 1), first, first)


def test_batches_are_halved_when_memory_does_not_suffice() -> None:
    small = Small(3)
    runtime = Halving(small)
    assert (runtime.name, runtime.device, runtime.precision, runtime.chosen) == ("onnx", "cuda:0", "fp16", "Small.")
    scans = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1, 1)
    assert runtime.infer(scans).logits[:, 0].tolist() == list(range(8))
    assert small.asked == [8, 4, 2, 2, 2, 2]
    assert runtime.infer(scans[:5]).features[:, 0].tolist() == list(range(5))
    assert small.asked[6:] == [2, 2, 1]  # remembered
    assert runtime.most == 2
    with pytest.raises(OutOfMemory):
        Halving(Small(0)).infer(scans)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_scan_is_answered_in_a_batch_as_alone(model: Model, name: str) -> None:
    runtime = open_runtime(model, Choice(name, "cpu"))
    scans = np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)
    together = runtime.infer(scans)
    for row in range(3):
        for whole, alone in zip(together, runtime.infer(scans[row : row + 1]), strict=True):
            np.testing.assert_allclose(whole[row], alone[0], rtol=1e-5, atol=5e-5)
