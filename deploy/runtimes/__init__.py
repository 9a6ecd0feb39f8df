"""What executes a model: one protocol, and `open_runtime`, which imports only the runtime asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from deploy.machine import user_cache
from deploy.manifest import ModelSpec
from deploy.model import Draft, Precision
from toolkit.errors import ModelError, RuntimeUnavailable

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


class RuntimeOutputs(NamedTuple):
    """What a runtime says about a batch; float32 throughout.

    Attributes:
        logits: (B, 2), LGG and HGG.
        features: (B, F), the pooled feature map.
        evidence: (B, x, y, z), class activation map of HGG minus LGG.
    """

    logits: Array
    features: Array
    evidence: Array


class Runtime(Protocol):
    """An opened model on one device.

    Attributes:
        name: `onnx`, `tensorrt` or `torch`.
        device: `cpu` or `cuda:N`.
        precision: of the backbone; pooling, head and all outputs are float32.
        chosen: one sentence, what runs where and why.
        engine_hash: SHA-256 of the file that it executes.
    """

    name: str
    device: str
    precision: Precision
    chosen: str

    @property
    def engine_hash(self) -> str:
        """See above."""

    def infer(self, scans: Array) -> RuntimeOutputs:
        """Run a batch.

        Args:
            scans: float32 (B, 4, X, Y, Z), B from 1 to the manifest's max_batch.

        Raises:
            ModelError: a batch or an answer of another shape.
            RuntimeUnavailable: the device failed, for example for want of memory.
        """


class Choice(NamedTuple):
    """What a user asks of a runtime.

    Attributes:
        name: `auto`, `onnx`, `tensorrt` or `torch`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` is fp16 on a GPU and fp32 on a CPU.
        threads: of the CPU; 0 leaves the number to the runtime, which takes all cores.
    """

    name: str = "auto"
    device: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    threads: int = 0


def open_runtime(model: Draft, choice: Choice) -> Runtime:
    """Open a model in a runtime.

    Args:
        model: its graph or weights are checked against their hash and loaded.
        choice: only `auto` leaves a choice; what was chosen, and why, is in the runtime's `chosen`.

    Raises:
        RuntimeUnavailable: the runtime or device asked for is not there.
        ModelError: the model was altered, or cannot be loaded.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", choice.device):
        raise RuntimeUnavailable(f"device '{choice.device}' is unknown; write auto, cpu, cuda or cuda:N.")
    if choice.name == "auto":
        return _open_auto(model, choice)
    if choice.name == "onnx":
        from deploy.runtimes.onnx import open_onnx

        return open_onnx(model, choice)
    if choice.name == "torch":
        from deploy.runtimes.torch import open_torch

        return open_torch(model, choice)
    if choice.name == "tensorrt":
        from deploy.runtimes.tensorrt import open_tensorrt

        return open_tensorrt(model, choice)
    raise RuntimeUnavailable(f"runtime '{choice.name}' is unknown; choose one of auto, onnx, tensorrt, torch.")


def _open_auto(model: Draft, choice: Choice) -> Runtime:
    """ONNX Runtime, or TensorRT where `grade bench` found that faster; which, and why, is in `chosen`."""
    on_onnx = choice._replace(name="onnx")
    if choice.device == "cpu" or fastest_runtime(model) == "onnx":
        return open_runtime(model, on_onnx)
    try:
        runtime, reason = open_runtime(model, choice._replace(name="tensorrt")), "the fastest here, by grade bench"
    except RuntimeUnavailable as error:
        runtime, reason = open_runtime(model, on_onnx), f"TensorRT was the fastest by grade bench, but {error}"
    runtime.chosen = f"{runtime.chosen.rstrip('.')}; {reason.rstrip('.')}."
    return runtime


def fastest_runtime(model: Draft) -> str:
    """What `grade bench` found the fastest here for this model; `onnx` where it was not run."""
    try:
        found: Any = json.loads(bench_file(model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "onnx"
    name = found.get("fastest") if isinstance(found, dict) else None
    return name if name in ("onnx", "tensorrt") else "onnx"


def bench_file(model: Draft) -> Path:
    """Where `grade bench` keeps what it measured of a model for this user."""
    return user_cache("bench") / f"{model.fingerprint}.json"


def check_scans(scans: Array, manifest: ModelSpec) -> None:
    """Refuse a batch that the model was not exported for.

    Raises:
        ModelError: the dtype, the number of scans or their shape is not the manifest's.
    """
    wanted = (len(manifest.modalities), *manifest.grid.shape)
    if scans.ndim != 5 or scans.shape[1:] != wanted or scans.dtype != np.float32:
        raise ModelError(f"a batch of {scans.dtype} {scans.shape} was given; the model takes float32 (B, *{wanted}).")
    if not 1 <= len(scans) <= manifest.max_batch:
        raise ModelError(
            f"a batch of {len(scans)} was given; the model takes 1 to {manifest.max_batch}, set by export.max_batch."
        )


def checked(outputs: RuntimeOutputs, batch: int, manifest: ModelSpec) -> RuntimeOutputs:
    """The outputs, if they have the shapes that the manifest tells.

    Raises:
        ModelError: they have not.
    """
    shapes = ((batch, len(manifest.classes)), (batch, manifest.outputs.features), (batch, *manifest.outputs.evidence))
    for name, array, shape in zip(RuntimeOutputs._fields, outputs, shapes, strict=True):
        if array.shape != shape or array.dtype != np.float32:
            raise ModelError(
                f"the runtime's {name} are {array.dtype} {array.shape}, not float32 {shape}; export again."
            )
    return outputs
