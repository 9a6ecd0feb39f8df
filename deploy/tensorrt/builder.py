"""ONNX graph in fp16 -> serialized engine: strongly typed, so that every layer computes in the graph's own types.

There is no precision flag anywhere: TensorRT 11 has none, and TensorRT 10 ignores it in a strongly typed network. Where
types are annotated they are those of `tensorrt`; TensorRT for RTX has the same interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from deploy.tensorrt.flavours import TITLES, Target, capability_member
from toolkit.errors import ModelError, RuntimeUnavailable

if TYPE_CHECKING:
    import tensorrt as trt

Proof = Literal["inspector", "network"]
_SHOWN_ERRORS = 3


class Shapes(NamedTuple):
    """Of the engine's one optimisation profile: batches of 1 to `most`, tuned for `best`; a scan is (4, X, Y, Z)."""

    scan: tuple[int, ...]
    best: int
    most: int


class Tuning(NamedTuple):
    """How hard to search.

    Attributes:
        workspace_gb: GiB of GPU memory that the search may take; None: all of it.
        opt_level: 0 (quick build) to 5 (quick engine); None: TensorRT's own default.
        timings: a kept timing cache; another card's or version's is ignored.
    """

    workspace_gb: float | None
    opt_level: int | None
    timings: bytes | None = None


class Built(NamedTuple):
    """A serialized engine.

    Attributes:
        plan: the bytes.
        half: convolution layers that compute in half precision.
        convolutions: all convolution layers.
        proof: where that was read: in the engine, or in the strongly typed network that it was built from.
        timings: the timing cache, to be kept for the next build; None where there is none.
    """

    plan: bytes
    half: int
    convolutions: int
    proof: Proof
    timings: bytes | None


def build_plan(graph: bytes, target: Target, shapes: Shapes, tuning: Tuning, on_stage: Callable[[str], None]) -> Built:
    """Build an engine.

    Args:
        graph: ONNX, in fp16, with float32 ends.
        target: flavour and cards.
        shapes: of the profile.
        tuning: how hard to search.
        on_stage: called with TensorRT's phase and how far it is.

    Raises:
        ModelError: TensorRT cannot read the graph.
        RuntimeUnavailable: the build failed.
        KeyboardInterrupt: the user stopped it.
    """
    api, log = target.api, logger(target.api)
    log.errors.clear()
    builder: trt.Builder | None = api.Builder(log)
    if builder is None:
        raise RuntimeUnavailable(f"{_title(target)} did not start{log.said()}.")
    network: trt.INetworkDefinition = builder.create_network(
        1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # TensorRT 11 always is, and ignores this
    )
    parser: trt.OnnxParser = api.OnnxParser(network, log)
    if not parser.parse(graph):
        reasons = "; ".join(parser.get_error(k).desc() for k in range(min(parser.num_errors, _SHOWN_ERRORS)))
        raise ModelError(f"{_title(target)} cannot read the graph: {reasons or 'no reason given'}; export again.")
    monitor = _monitor(api, on_stage)
    config = _config(builder, network, target, shapes, tuning)
    config.progress_monitor = monitor
    kept = _set_timings(config, target, tuning.timings)
    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise RuntimeUnavailable(f"{_title(target)} built no engine{log.said()}.")
    data = bytes(plan)
    counted = _inspected(data, target) if target.flavour == "tensorrt" else None
    half, convolutions = counted or _count(api, network)
    proof: Proof = "inspector" if counted else "network"
    return Built(data, half, convolutions, proof, bytes(kept.serialize()) if kept is not None else None)


def _config(
    builder: trt.Builder, network: trt.INetworkDefinition, target: Target, shapes: Shapes, tuning: Tuning
) -> trt.IBuilderConfig:
    api = target.api
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # what is float32 in the graph is meant to be exact
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED  # else the inspector tells names only
    if tuning.workspace_gb is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, int(tuning.workspace_gb * 2**30))
    if tuning.opt_level is not None:
        config.builder_optimization_level = tuning.opt_level
    profile: trt.IOptimizationProfile = builder.create_optimization_profile()
    profile.set_shape(
        network.get_input(0).name, *((batch, *shapes.scan) for batch in (1, shapes.best, shapes.most))
    )  # (B, 4, X, Y, Z) at least, best, at most
    config.add_optimization_profile(profile)
    if target.flavour == "rtx":
        _set_capabilities(config, target)
    return config


def _set_capabilities(config: Any, target: Target) -> None:
    """Name the cards to build for; only TensorRT for RTX can, and then needs none of them."""
    config.num_compute_capabilities = len(target.compute_capabilities)
    for number, capability in enumerate(target.compute_capabilities):
        config.set_compute_capability(capability_member(target.api, capability), number)


def _set_timings(config: trt.IBuilderConfig, target: Target, timings: bytes | None) -> trt.ITimingCache | None:
    """Take up the timings of an earlier build. For RTX they change nothing, and asking for them asks for a GPU.

    Source: TensorRT for RTX 1.1, release notes, limitations.
    """
    if target.flavour == "rtx":
        return None
    kept: trt.ITimingCache = config.create_timing_cache(timings or b"")
    if not config.set_timing_cache(kept, ignore_mismatch=False):
        kept = config.create_timing_cache(b"")
        config.set_timing_cache(kept, ignore_mismatch=False)
    return kept


def _count(api: Any, network: trt.INetworkDefinition) -> tuple[int, int]:
    """Convolutions whose output is Half, and all; a strongly typed network is built in just these types."""
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    kinds = (api.LayerType.CONVOLUTION, api.LayerType.DECONVOLUTION)
    types = [layer.get_output(0).dtype for layer in layers if layer.type in kinds]
    return sum(found == api.DataType.HALF for found in types), len(types)


def _inspected(plan: bytes, target: Target) -> tuple[int, int] | None:
    engine = deserialize(target, plan)
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    return inspected_convolutions(inspector.get_engine_information(target.api.LayerInformationFormat.JSON))


def inspected_convolutions(text: str) -> tuple[int, int] | None:
    """Convolutions whose output is half precision, and all, from the engine inspector's JSON.

    Args:
        text: as `EngineInspector.get_engine_information` gives it. TensorRT 10 tells a tensor's type in
            `Format/Datatype`, in words; TensorRT 11 in `DataType`.

    Returns:
        None where no layer is called a convolution, for the whole graph may be compiled into one.
    """
    layers: list[Any] = json.loads(text).get("Layers", [])
    outputs = [
        layer["Outputs"][0]
        for layer in layers
        if isinstance(layer, dict)
        and layer.get("Outputs")
        and "Convolution" in f"{layer.get('LayerType')} {layer.get('ParameterType')}"
    ]
    types = [str(output.get("DataType") or output.get("Format/Datatype")) for output in outputs]
    half = sum("half" in found.lower() or "fp16" in found.lower() for found in types)
    return (half, len(types)) if types else None


def deserialize(target: Target, plan: bytes) -> trt.ICudaEngine:
    """The engine of a plan, on the current GPU.

    Raises:
        RuntimeUnavailable: TensorRT does not take it; it gives no engine then, and its log the reason.
    """
    log = logger(target.api)
    log.errors.clear()
    runtime: trt.Runtime | None = target.api.Runtime(log)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan) if runtime is not None else None
    if engine is None:
        raise RuntimeUnavailable(f"{_title(target)} refuses the engine of {len(plan)} bytes{log.said()}.")
    return engine


@cache
def logger(api: Any) -> Any:
    """The one log of a process: TensorRT keeps the first that it is given, whatever comes later."""

    class Log(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def said(self) -> str:
            """The first errors since the list was cleared, to follow on a sentence."""
            first = [message.strip().rstrip(".") for message in self.errors[:_SHOWN_ERRORS]]
            return f": {'; '.join(first)}" if first else "; it gives no reason"

    return Log()


def _monitor(api: Any, on_stage: Callable[[str], None]) -> Any:
    """Tell TensorRT's phases; an interrupt cancels the build, since no exception may pass through C++."""

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                on_stage(f"{phase_name}: {min(step + 1, self._steps[phase_name])} of {self._steps[phase_name]}")
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _title(target: Target) -> str:
    return f"{TITLES[target.flavour]} {target.version}"
