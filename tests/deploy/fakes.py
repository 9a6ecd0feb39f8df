"""Stand-ins for a GPU: the part of the CUDA runtime and of TensorRT that `deploy` calls, on the CPU.

They show that buffers, shapes, order and errors are handled, not that a GPU computes. A test checks their names against
the real modules. A fake engine computes with ONNX Runtime, when its stream is waited for: a wait left out is seen.
"""

# ruff: noqa: N802, N815 - the names are NVIDIA's

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

MAGIC = b"FAKEPLAN"
FLOAT = 4


class CudaError(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """In place of `cuda.bindings.runtime`: its functions give a code and a value."""

    cudaError_t = CudaError
    cudaMemcpyKind = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self, names: tuple[bytes, ...] = (b"NVIDIA H100 80GB HBM3", b"NVIDIA A100"), memory: int = 10**9):
        self.names, self.memory = names, memory
        self.current = 0
        self.launches = 0
        self.can_capture = True
        self.held: dict[int, Any] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.captured: dict[int, list[Callable[[], None]]] = {}

    def give(self, stream: int, work: Callable[[], None]) -> CudaError:
        if stream in self.captured:
            if not self.can_capture:
                return CudaError.cudaErrorStreamCaptureUnsupported
            self.captured[stream].append(work)
        else:
            self.queues[stream].append(work)
        return CudaError.cudaSuccess

    def cudaGetDeviceCount(self):
        return CudaError.cudaSuccess, len(self.names)

    def cudaGetDeviceProperties(self, index):
        major = 9 if b"H100" in self.names[index] else 8
        return CudaError.cudaSuccess, SimpleNamespace(name=self.names[index], major=major, minor=0)

    def cudaSetDevice(self, index):
        self.current = index
        return (CudaError.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags):
        handle = 1000 + len(self.queues)
        self.queues[handle] = []
        return CudaError.cudaSuccess, handle

    def cudaStreamDestroy(self, stream):
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        work, self.queues[stream] = self.queues[stream], []
        for step in work:
            step()
        return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.captured[stream] = []
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        graph = self.captured.pop(stream)
        return (CudaError.cudaSuccess, graph) if self.can_capture else (CudaError(900), None)

    def cudaGraphInstantiate(self, graph, flags):
        return CudaError.cudaSuccess, graph

    def cudaGraphLaunch(self, executable, stream):
        self.launches += 1
        self.queues[stream].extend(executable)
        return (CudaError.cudaSuccess,)

    def cudaGraphDestroy(self, graph):
        return (CudaError.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable):
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, count):
        if count > self.memory:
            return CudaError.cudaErrorMemoryAllocation, None
        memory = ctypes.create_string_buffer(count)
        self.held[ctypes.addressof(memory)] = memory
        return CudaError.cudaSuccess, ctypes.addressof(memory)

    def cudaHostAlloc(self, count, flags):
        return self.cudaMalloc(count)

    def cudaFree(self, address):
        self.held.pop(address)
        return (CudaError.cudaSuccess,)

    def cudaFreeHost(self, address):
        return self.cudaFree(address)

    def cudaMemcpyAsync(self, to, source, count, kind, stream):
        return (self.give(stream, lambda: ctypes.memmove(to, source, count)),)

    def cudaGetErrorString(self, code):
        return CudaError.cudaSuccess, code.name.encode()

    def cudaGetLastError(self):
        return (CudaError.cudaSuccess,)


class _Module(SimpleNamespace):
    """Hashable, as a module is."""

    def __hash__(self):
        return id(self)


class Kind(IntEnum):
    CONVOLUTION = 0
    DECONVOLUTION = 1
    ACTIVATION = 2


class Type(IntEnum):
    FLOAT = 0
    HALF = 1


def fake_tensorrt(cuda: FakeCuda, version: str = "11.4.0.106", refuses: tuple[bytes, ...] = ()) -> Any:
    """In place of the module `tensorrt` 10 or 11: no precision flag, no compute capabilities.

    Args:
        cuda: whose memory and streams its engines use.
        version: decides the inspector's schema.
        refuses: plans that `deserialize_cuda_engine` gives None for.
    """
    seen = SimpleNamespace(flags=[], timings=[], builds=0, contexts=[])

    class ILogger:
        Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2})

    class IProgressMonitor:
        pass

    class Config:
        progress_monitor: Any = None

        def clear_flag(self, flag):
            seen.flags.append(f"-{flag.name}")

        def set_memory_pool_limit(self, pool, size):
            seen.workspace = size

        def add_optimization_profile(self, profile):
            self.profile = profile

        def create_timing_cache(self, content):
            return SimpleNamespace(serialize=lambda: b"timings of " + version.encode(), content=content)

        def set_timing_cache(self, cache, ignore_mismatch):
            assert not ignore_mismatch
            seen.timings.append(cache.content)
            return not cache.content or cache.content == b"timings of " + version.encode()

    class Profile:
        def set_shape(self, name, least, best, most):
            self.shapes = (name, least, best, most)

    class Builder:
        def __init__(self, log):
            pass

        def create_network(self, flags):
            seen.network_flags = flags
            return SimpleNamespace(get_input=lambda _: SimpleNamespace(name="scan"))

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            seen.builds += 1
            seen.profile = config.profile.shapes
            config.progress_monitor.phase_start("Timing", None, 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Timing", step):
                    return None
            config.progress_monitor.phase_finish("Timing")
            return MAGIC + seen.builds.to_bytes(2, "big") + network.content

    class OnnxParser:
        num_errors = 0

        def __init__(self, network, log):
            self._network = network

        def parse(self, content):
            graph = onnx.load_from_string(content).graph
            types = {x.name: x.data_type for x in graph.initializer}
            layers = [
                SimpleNamespace(
                    type=Kind.CONVOLUTION if node.op_type == "Conv" else Kind.ACTIVATION,
                    get_output=lambda _, node=node: SimpleNamespace(
                        dtype=Type.HALF if types.get(node.input[1]) == onnx.TensorProto.FLOAT16 else Type.FLOAT
                    ),
                )
                for node in graph.node
            ]
            self._network.content = content
            self._network.num_layers = len(layers)
            self._network.get_layer = layers.__getitem__
            return True

    class Context:
        def __init__(self, engine):
            self.engine, self.addresses, self.fails = engine, {}, ""
            seen.contexts.append(self)

        def set_tensor_address(self, name, address):
            self.addresses[name] = address

        def set_input_shape(self, name, shape):
            self.shape = shape

        def execute_async_v3(self, stream):
            if self.fails:
                self.engine.log.log(ILogger.Severity.ERROR, self.fails)
                return False
            return cuda.give(stream, lambda: self.engine.compute(self.addresses, self.shape)) == CudaError.cudaSuccess

    class Engine:
        def __init__(self, graph, log):
            self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            self.log = log

        def create_execution_context(self):
            return Context(self)

        def create_engine_inspector(self):
            key, words = ("DataType", "Half") if version.startswith("11") else ("Format/Datatype", "linear FP16 format")
            layer = {"LayerType": "CaskConvolution", "Outputs": [{"Name": "x", key: words}]}
            return SimpleNamespace(get_engine_information=lambda _: json.dumps({"Layers": [layer] * 3}))

        def compute(self, addresses, shape):
            scans = np.frombuffer(ctypes.string_at(addresses["scan"], FLOAT * int(np.prod(shape))), np.float32)
            names = ["logits", "features", "evidence"]
            for name, found in zip(names, self.session.run(names, {"scan": scans.reshape(shape)}), strict=True):
                content = np.ascontiguousarray(found, np.float32).tobytes()
                ctypes.memmove(addresses[name], content, len(content))

    class Runtime:
        def __init__(self, log):
            self._log = log

        def deserialize_cuda_engine(self, plan):
            if not plan.startswith(MAGIC) or plan in refuses:
                self._log.log(ILogger.Severity.ERROR, "the engine was built for another device.")
                return None
            return Engine(plan[len(MAGIC) + 2 :], self._log)

    return _Module(
        __version__=version,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        Builder=Builder,
        OnnxParser=OnnxParser,
        Runtime=Runtime,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1 if version.startswith("10") else 0),
        BuilderFlag=IntEnum("BuilderFlag", {"TF32": 7}),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED=2),
        LayerInformationFormat=SimpleNamespace(JSON=1),
        LayerType=Kind,
        DataType=Type,
        seen=seen,
    )
