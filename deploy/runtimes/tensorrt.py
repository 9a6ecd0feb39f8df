"""TensorRT, or TensorRT for RTX, on an NVIDIA GPU: an engine of the model, found or built, without torch.

A batch goes through page-locked memory, and its copies and layers are recorded as one CUDA graph. Two slots, each with
a stream, context and memory of its own, let one batch be copied while another is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.machine import user_cache
from deploy.model.folder import ENGINES, Draft, Precision
from deploy.model.manifest import ModelSpec
from deploy.parity import check_parity
from deploy.runtime import Array, Choice, RuntimeOutputs, check_scans, checked
from deploy.runtimes.onnx import INPUT, open_onnx
from deploy.selftest import load_selftest
from deploy.tensorrt import cuda
from deploy.tensorrt.builder import deserialize, logger
from deploy.tensorrt.engine import find_engine, provide_engine, rebuild_engine
from deploy.tensorrt.engine_files import NOT_RUN, Engine, store_engine
from deploy.tensorrt.flavours import TITLES, Card, Target, usable_targets
from toolkit.config import ExportSettings
from toolkit.errors import GradeError, ModelError, OutOfMemory, RuntimeUnavailable
from toolkit.files import write_file

if TYPE_CHECKING:
    import tensorrt as trt

SLOTS = 2


@dataclass
class TensorRtRuntime:
    """See `deploy.runtime.Runtime`."""

    model: Draft
    device: str
    chosen: str
    engine: Engine
    open_slot: partial[_Slot]
    precision: Precision = "fp16"
    name: str = "tensorrt"
    _slots: list[_Slot] = field(default_factory=list)

    @property
    def engine_hash(self) -> str:
        """See `deploy.runtime.Runtime`."""
        return self.engine.record.plan

    def infer(self, scans: Array) -> RuntimeOutputs:
        """See `deploy.runtime.Runtime.infer`."""
        (outputs,) = self.infer_all([scans])
        return outputs

    def infer_all(self, batches: Iterable[Array]) -> Iterator[RuntimeOutputs]:
        """Outputs of batches, in their order; while one is computed, the next is copied.

        Args:
            batches: each as `infer` takes it; one is taken ahead of the outputs given.

        Raises:
            ModelError: as `infer`.
            RuntimeUnavailable: as `infer`.
        """
        cuda.select(_index(self.device))
        busy: deque[_Slot] = deque()
        for number, scans in enumerate(batches):
            check_scans(scans, self.model.manifest)
            if len(busy) == SLOTS:
                yield self._checked(busy.popleft())
            if number % SLOTS == len(self._slots):
                self._slots.append(self.open_slot())
            slot = self._slots[number % SLOTS]
            slot.start(scans)
            busy.append(slot)
        while busy:
            yield self._checked(busy.popleft())

    def _checked(self, slot: _Slot) -> RuntimeOutputs:
        outputs = slot.finish()
        return checked(outputs, len(outputs.logits), self.model.manifest)


class _Slot:
    """One stream with all that a batch needs."""

    def __init__(self, engine: trt.ICudaEngine, target: Target, manifest: ModelSpec, jit: Path) -> None:
        most = manifest.max_batch
        shapes = {
            INPUT: (most, len(manifest.modalities), *manifest.grid.shape),
            "logits": (most, len(manifest.classes)),
            "features": (most, manifest.outputs.features),
            "evidence": (most, *manifest.outputs.evidence),
        }
        self._log = logger(target.api)
        self._log.errors.clear()
        self._jit = _Jit(engine, target, jit) if target.flavour == "rtx" else None
        context: trt.IExecutionContext | None = (
            engine.create_execution_context(self._jit.config) if self._jit else engine.create_execution_context()
        )
        if context is None:
            raise _failure(self._log, most)
        self._context = context
        self._stream = cuda.Stream()
        self._device = {name: cuda.Buffer(shape) for name, shape in shapes.items()}
        self._host = {name: cuda.pinned(shape) for name, shape in shapes.items()}
        for name, buffer in self._device.items():
            context.set_tensor_address(name, buffer.address)
        self._batch = 0
        self._graph: cuda.Graph | None = None

    def start(self, scans: Array) -> None:
        """Give a batch (B, 4, X, Y, Z) to the GPU, and do not wait for it."""
        self._host[INPUT][: len(scans)] = scans
        if len(scans) != self._batch:
            self._prepare(len(scans))
        if self._graph is None:
            self._enqueue()
        else:
            self._stream.launch(self._graph)

    def finish(self) -> RuntimeOutputs:
        """Wait for the batch; copies of its outputs."""
        self._stream.wait()
        return RuntimeOutputs(*(self._host[name][: self._batch].copy() for name in RuntimeOutputs._fields))

    def _prepare(self, batch: int) -> None:
        """Run a batch size once, since TensorRT allocates and compiles at the first run, then record it.

        A graph is good for the shape that its context had, so there is one: that of the size last asked for.
        """
        self._batch, self._graph = 0, None
        self._context.set_input_shape(INPUT, (batch, *self._host[INPUT].shape[1:]))
        self._batch = batch
        self._enqueue()
        self._stream.wait()
        self._graph = self._stream.capture(self._enqueue)
        if self._jit:
            self._jit.keep()

    def _enqueue(self) -> None:
        self._log.errors.clear()
        self._stream.upload(self._device[INPUT], self._host[INPUT][: self._batch])
        if not self._context.execute_async_v3(self._stream.handle):
            raise _failure(self._log, self._batch)
        for name in RuntimeOutputs._fields:
            self._stream.download(self._host[name][: self._batch], self._device[name])


class _Jit:
    """TensorRT for RTX compiles an engine for the card at its first run; the result is kept next to the engine."""

    def __init__(self, engine: Any, target: Target, path: Path) -> None:
        self.config = engine.create_runtime_config()
        # At once, not behind the first batches: a CUDA graph would keep the slower kernels that stand in until then.
        strategy = target.api.DynamicShapesKernelSpecializationStrategy
        self.config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        self._cache = self.config.create_runtime_cache()
        self._path = path
        if path.is_file():
            self._cache.deserialize(path.read_bytes())  # it refuses by itself what is another card's or version's
        self.config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what was compiled, if its folder takes it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, bytes(self._cache.serialize()))
        except (OSError, GradeError):
            return  # it is compiled again next time


def open_tensorrt(model: Draft, choice: Choice) -> TensorRtRuntime:
    """Open a model in TensorRT; as `deploy.runtimes.open.open_runtime`.

    An engine that is not there, or is another card's, version's or model's, is built first; one that was never compared
    on this card is compared with ONNX Runtime in fp32 before it may answer.
    """
    if choice.precision == "fp32":
        raise RuntimeUnavailable("TensorRT engines are half precision; choose the precision fp16, or the runtime onnx.")
    index = _index(choice.device)
    found = cuda.cards()
    if index >= len(found):
        raise RuntimeUnavailable(
            f"TensorRT was asked for on device {choice.device}, but CUDA shows {len(found)} GPUs; check the driver and"
            " cuda-bindings, or choose the runtime onnx."
        )
    cuda.select(index)
    target, engine, loaded = _load(model, found[index], choice.own_engines)
    device = f"cuda:{index}"
    jit = user_cache("engines") / f"{engine.record.name}-{found[index].name.replace(' ', '_')}.jit"
    how = f"built in {engine.record.seconds:.0f} s" if engine.built else f"taken from {engine.folder}"
    why = f", since {engine.note.rstrip('.')}" if engine.note else ""
    chosen = f"{TITLES[target.flavour]} {target.version} on {device} in fp16: engine {how}{why}."
    runtime = TensorRtRuntime(model, device, chosen, engine, partial(_Slot, loaded, target, model.manifest, jit))
    if engine.record.parity == NOT_RUN:
        _prove(model, runtime)
    return runtime


def _load(model: Draft, card: Card, own: bool) -> tuple[Target, Engine, trt.ICudaEngine]:
    """An engine that TensorRT takes; one that was found and is refused is rebuilt, once."""
    settings = ExportSettings(max_batch=model.manifest.max_batch)
    folders = (user_cache("engines"),) if own else (model.folder / ENGINES, user_cache("engines"))
    targets = usable_targets(card)
    there = ((target, find_engine(model, target, settings, folders)[0]) for target in targets)
    target, engine = next(((target, engine) for target, engine in there if engine), (targets[0], None))
    engine = engine or provide_engine(model, target, settings, folders, _ignore)
    try:
        return target, engine, deserialize(target, engine.plan)
    except RuntimeUnavailable as error:
        if engine.built:
            raise
        note = str(error)
    engine = rebuild_engine(model, target, settings, folders, note)
    return target, engine, deserialize(target, engine.plan)


def _prove(model: Draft, runtime: TensorRtRuntime) -> None:
    """Compare with fp32 on this card, and write that down, so that it is done once.

    Raises:
        ModelError: it differs by more than it may.
    """
    reference = open_onnx(model, Choice("onnx", "auto", "fp32"))
    scan, _ = load_selftest(model)
    found = check_parity(model, reference, [runtime], [("self-test", scan)], 1).comparisons[0]
    parity = f"passed on {runtime.device}: probability within {found.difference:.2g} of {reference.device} in fp32"
    record = runtime.engine.record.model_copy(update={"parity": parity}).sealed()
    engine = replace(runtime.engine, record=record)
    try:
        store_engine(engine, engine.folder)
    except ModelError:
        return  # a folder that cannot be written: it is compared again next time
    runtime.engine = engine


def _index(device: str) -> int:
    if device == "cpu":
        raise RuntimeUnavailable("TensorRT runs on a GPU only; choose the device cuda, or the runtime onnx.")
    return int(device.partition(":")[2] or 0)


def _failure(log: Any, batch: int) -> RuntimeUnavailable:
    said = log.said()
    if "memory" in said.lower():
        return OutOfMemory(f"the GPU's memory does not suffice for a batch of {batch}{said}; take a smaller one.")
    return RuntimeUnavailable(f"TensorRT failed with a batch of {batch}{said}; choose the runtime onnx.")


def _ignore(_: str) -> None:
    """In place of a progress line."""
