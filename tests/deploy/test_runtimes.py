"""What a runtime takes, gives and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.model import Model
from deploy.runtimes import Choice, RuntimeOutputs, checked, open_runtime
from toolkit.errors import ModelError, RuntimeUnavailable

from .conftest import SETTINGS

SHAPE = (4, *SETTINGS.data.shape)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_gpu_that_is_not_there_is_an_error(model: Model, name: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"device cuda was asked for.*choose the device cpu"):
        open_runtime(model, Choice(name, "cuda"))


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

    def session(path: Path, options: object, providers: list[tuple[str, dict[str, str]]], **rest: object) -> object:
        if providers[0][0] == "CPUExecutionProvider":
            return real(path, options, providers=providers, **rest)
        assert providers[0][1]["device_id"] in ("0", "1")
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


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (Choice("tensorrt"), "on device auto, but CUDA shows 0 GPUs"),
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
    shapes = [(2, 2), (2, 512), (2, 1, 1, 1)]
    outputs = RuntimeOutputs(*(np.zeros(shape, np.float32) for shape in shapes))
    assert checked(outputs, 2, model.manifest) is outputs
    with pytest.raises(ModelError, match="features"):
        checked(outputs._replace(features=np.zeros((2, 511), np.float32)), 2, model.manifest)
    with pytest.raises(ModelError, match="logits"):
        checked(outputs, 3, model.manifest)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_scan_is_answered_in_a_batch_as_alone(model: Model, name: str) -> None:
    runtime = open_runtime(model, Choice(name, "cpu"))
    scans = np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)
    together = runtime.infer(scans)
    for row in range(3):
        for whole, alone in zip(together, runtime.infer(scans[row : row + 1]), strict=True):
            np.testing.assert_allclose(whole[row], alone[0], rtol=1e-5, atol=5e-5)
