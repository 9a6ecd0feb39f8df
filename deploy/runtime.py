"""What executes a model: the contract between prediction and the runtimes, which import nothing of each other."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from deploy.model.folder import Precision
from deploy.model.manifest import ModelSpec
from toolkit.data.box import Box
from toolkit.errors import ModelError

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


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

    @property
    def logit(self) -> Float64:
        """HGG minus LGG, float64 (B,): what is calibrated."""
        exact: Float64 = self.logits.astype(np.float64)
        return exact[:, 1] - exact[:, 0]


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
            RuntimeUnavailable: the device failed, for example because memory ran out.
        """


def label(runtime: Runtime) -> str:
    """What answers, in three words, such as `onnx fp32 cpu`."""
    return f"{runtime.name} {runtime.precision} {runtime.device}"


class DeviceScans(Protocol):
    """A batch of scans, float32 (B, 4, X, Y, Z), in the memory of a device."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> DeviceScans: ...

    def on_host(self) -> Array:
        """A copy for a runtime that takes it from the host."""


class Preparer(Protocol):
    """What makes scans in the memory of the device that answers them.

    Attributes:
        scans: a whole batch, filled row by row; given to `infer` of the runtime that it belongs to.
    """

    @property
    def scans(self) -> DeviceScans:
        """See above."""

    def fill(self, row: int, box: Box) -> None:
        """Make the scan of a box in a row of the batch; the box is no longer needed then."""

    def put(self, row: int, scan: Array) -> None:
        """Copy a finished scan (4, X, Y, Z) to a row of the batch."""


class Choice(NamedTuple):
    """What a user asks of a runtime.

    Attributes:
        name: `auto`, `onnx`, `tensorrt` or `torch`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` is fp16 on a GPU and fp32 on a CPU.
        threads: of the CPU; 0 leaves the number to the runtime, which takes all cores.
        own_engines: take TensorRT engines from this user's cache alone: those of a model folder are not signed.
        scans: how many will be answered, None: many; for few a GPU takes the kernels that are ready soonest.
    """

    name: str = "auto"
    device: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    threads: int = 0
    own_engines: bool = False
    scans: int | None = None


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
