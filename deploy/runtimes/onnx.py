"""ONNX Runtime on a CPU or an NVIDIA GPU; only with the device `auto` may the CPU stand in, and it says so."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from deploy.model.folder import ONNX, Draft, Precision
from deploy.runtime import Array, Choice, DeviceScans, RuntimeOutputs, check_scans, checked
from toolkit.errors import ModelError, OutOfMemory, RuntimeUnavailable
from toolkit.files import first_line

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
INPUT = "scan"
FUSED = "fuse_conv_bias"
# Scans up to which kernels that are ready sooner are better than faster ones. On H200s the first batch takes 0.8 s in
# place of 2 to 3.5 s, or of 5 to 10 s where CUDA's cache on disk is empty; a later scan takes 0.24 ms more, of eight.
FEW = 1000
_SILENT = 4  # fatal errors only: whatever else goes wrong is raised
# ONNX Runtime's errors share no base class but Exception.
LOAD_ERRORS = (state.InvalidGraph, state.InvalidProtobuf, state.NoModel, state.NoSuchFile)
RUN_ERRORS = (
    state.EPFail,
    state.EngineError,
    state.Fail,
    state.InvalidArgument,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)
_WANT_OF_MEMORY = re.compile("out of memory|failed to allocate memory|alloc_failed", re.IGNORECASE)


@dataclass
class OnnxRuntime:
    """See `deploy.runtime.Runtime`.

    Attributes:
        options: of its session.
        unfused: opens the session that takes this one's place where the card cannot fuse biases with convolutions;
            None: nothing is fused.
    """

    model: Draft
    device: str
    precision: Precision
    chosen: str
    session: Any
    name: str = "onnx"
    options: Any = None
    unfused: Callable[[], Any] | None = None
    _bound: BoundBatch | None = field(default=None, init=False)

    @property
    def engine_hash(self) -> str:
        """See `deploy.runtime.Runtime`."""
        return self.model.manifest.files[ONNX[self.precision]]

    @property
    def place(self) -> tuple[str, int]:
        """Device and index, as ONNX Runtime names them."""
        name, _, index = self.device.partition(":")
        return name, int(index or 0)

    def open_beside(self, graph: bytes) -> Any:
        """A session of another, small graph on the same device, in full float32."""
        provider = (CPU, {}) if self.device == "cpu" else (CUDA, {"device_id": str(self.place[1]), "use_tf32": "0"})
        return _session(graph, Path("the preprocessing"), self.options, provider, self.device)

    def infer(self, scans: Array | DeviceScans) -> RuntimeOutputs:
        """See `deploy.runtime.Runtime.infer`; also takes scans that are on the device already."""
        if isinstance(scans, np.ndarray):
            check_scans(scans, self.model.manifest)
        while True:
            try:
                if not isinstance(scans, np.ndarray):
                    found = run_there(self.session, scans, self.place)
                elif self.device == "cpu":
                    found = self.session.run(list(RuntimeOutputs._fields), {INPUT: scans})
                else:
                    found = self._on_card(scans).run(scans)
                return checked(RuntimeOutputs(*found), len(scans), self.model.manifest)
            except RUN_ERRORS as error:
                no_memory = _WANT_OF_MEMORY.search(str(error)) is not None
                if self.unfused is None or no_memory:
                    kind = OutOfMemory if no_memory else RuntimeUnavailable
                    raise kind(
                        f"ONNX Runtime failed on {self.device} with a batch of {len(scans)}: {first_line(error)};"
                        " a smaller batch needs less memory."
                    ) from error
            # cuDNN cannot fuse in every layout (an H200 failed without NHWC), and may not on every card.
            self.session, self.unfused, self._bound = self.unfused(), None, None

    def _on_card(self, scans: Array) -> BoundBatch:
        """Memory on the device for a batch of this size."""
        if self._bound is None or self._bound.batch != len(scans):
            self._bound = None  # its memory is free before the next is taken
            self._bound = BoundBatch(self.session, scans, "cuda", int(self.device.removeprefix("cuda:")))
        return self._bound


def run_there(session: Any, scans: Any, place: tuple[str, int]) -> list[Array]:
    """Outputs, in the order of `RuntimeOutputs`, on the host, for scans in the device's memory."""
    binding = session.io_binding()
    binding.bind_input(INPUT, *place, np.float32, list(scans.shape), scans.address)
    for name in RuntimeOutputs._fields:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()  # type: ignore[no-any-return]


class BoundBatch:
    """Input memory on the device for one batch size, allocated once and refilled for each batch."""

    def __init__(self, session: Any, scans: Array, device: str, index: int) -> None:
        self.batch = len(scans)
        self._session = session
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(scans), device, index)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._input)
        for name in RuntimeOutputs._fields:
            self._binding.bind_output(name)

    def run(self, scans: Array) -> list[Array]:
        """Outputs, in the order of `RuntimeOutputs`, on the host."""
        self._input.update_inplace(np.ascontiguousarray(scans))
        self._session.run_with_iobinding(self._binding)
        return self._binding.copy_outputs_to_cpu()  # type: ignore[no-any-return]


def open_onnx(model: Draft, choice: Choice) -> OnnxRuntime:
    """Open a model in ONNX Runtime; as `deploy.runtimes.open.open_runtime`."""
    offered = onnxruntime.get_available_providers()
    if choice.device == "cpu":
        return _open(model, choice, "cpu", "as asked for")
    if choice.device != "auto":
        return _open_gpu(model, choice, offered, "as asked for")
    if CUDA not in offered:
        return _open(model, choice, "cpu", "this ONNX Runtime is built without CUDA")
    try:
        return _open_gpu(model, choice, offered, "a GPU is there")
    except RuntimeUnavailable as error:
        return _open(model, choice, "cpu", str(error).partition(";")[0])


def _open_gpu(model: Draft, choice: Choice, offered: Sequence[str], reason: str) -> OnnxRuntime:
    if CUDA not in offered:
        raise RuntimeUnavailable(
            f"device {choice.device} was asked for, but this ONNX Runtime {onnxruntime.__version__} is built without"
            " CUDA; install onnxruntime-gpu and remove onnxruntime, or choose the device cpu."
        )
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find; the session's failure says enough
            onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels
    return _open(model, choice, f"cuda:{choice.device.partition(':')[2] or 0}", reason)


def _open(model: Draft, choice: Choice, device: str, reason: str) -> OnnxRuntime:
    on_gpu = device != "cpu"
    precision: Precision = ("fp16" if on_gpu else "fp32") if choice.precision == "auto" else choice.precision
    graph, path = model.onnx(precision), model.folder / ONNX[precision]
    options = onnxruntime.SessionOptions()
    onnxruntime.set_default_logger_severity(_SILENT)
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = choice.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the readers need the cores as well
    if on_gpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    blocks = model.manifest.network.blocks
    soon = on_gpu and choice.scans is not None and choice.scans <= FEW
    provider = _provider(device, precision, blocks, soon)
    session = _session(graph, path, options, provider, device)
    plain = {name: value for name, value in provider[1].items() if name != FUSED}

    def again() -> Any:
        return _session(model.onnx(precision), path, options, (CUDA, plain), device)

    if not on_gpu:
        chosen = f"ONNX Runtime on the CPU in {precision}: {reason}."
    else:
        ready = ", with the kernels that are ready soonest" if soon else ""
        chosen = f"ONNX Runtime on {device} in {precision}{ready}: {reason}."
    unfused = again if FUSED in provider[1] else None
    return OnnxRuntime(model, device, precision, chosen, session, options=options, unfused=unfused)


def _provider(device: str, precision: Precision, blocks: bool, soon: bool = False) -> tuple[str, dict[str, str]]:
    if device == "cpu":
        return CPU, {}
    # Measured on an H200, ms per scan in batches of 8, biases not fused: EXHAUSTIVE 0.71, without NHWC 0.86; with the
    # search left at DEFAULT 6.95 (H100).
    options = {
        "device_id": device.removeprefix("cuda:"),
        "cudnn_conv_algo_search": "HEURISTIC" if soon else "EXHAUSTIVE",
        "prefer_nhwc": "1",
    }
    if precision == "fp32":
        # It is asked for where it has to be exact. In fp16 this would forbid the tensor cores: 6.69 in place of 1.01.
        options["use_tf32"] = "0"
    elif blocks and not soon:
        # 0.47 in place of 0.71. A first convolution of four channels (`network/stem.py`) would lose by it.
        options[FUSED] = "1"
    return CUDA, options


def _session(graph: bytes, path: Path, options: Any, provider: tuple[str, dict[str, str]], device: str) -> Any:
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[provider], enable_fallback=0)
    except LOAD_ERRORS as error:
        raise ModelError(f"ONNX Runtime cannot load {path}: {first_line(error)}; export again.") from error
    except RUN_ERRORS as error:
        raise RuntimeUnavailable(_unavailable(device, first_line(error))) from error
    taken = session.get_providers()
    if taken[0] != provider[0]:
        raise RuntimeUnavailable(_unavailable(device, f"it took {taken[0]} in place of {provider[0]}"))
    return session


def _unavailable(device: str, reason: str) -> str:
    if "fallback to CPU EP" in reason:  # which hides that the provider's library could not be loaded
        reason = "its CUDA provider did not start"
    return (
        f"ONNX Runtime {onnxruntime.__version__} cannot use {device}: {reason}; check that driver, CUDA and cuDNN"
        " are of the versions it needs, or choose the device cpu."
    )
