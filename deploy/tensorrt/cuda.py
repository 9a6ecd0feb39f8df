"""The few calls of the CUDA runtime that a runner needs, through cuda-bindings; a failure becomes a sentence."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from deploy.runtime import Array
from deploy.tensorrt.flavours import Card
from toolkit.errors import OutOfMemory, RuntimeUnavailable

try:
    from cuda.bindings import runtime as cudart
except ImportError:  # no GPU is used then
    cudart = None

FLOAT = 4  # bytes of a float32


def cards() -> tuple[Card, ...]:
    """The GPUs that CUDA shows, in its order; none without a driver or without cuda-bindings."""
    if cudart is None:
        return ()
    code, count = cudart.cudaGetDeviceCount()
    if code != cudart.cudaError_t.cudaSuccess:
        return ()
    found = [_call("the GPU's properties", cudart.cudaGetDeviceProperties, index) for index in range(count)]
    return tuple(Card(gpu.name.decode(), f"{gpu.major}.{gpu.minor}") for gpu in found)


def select(index: int) -> None:
    """Make a GPU the current one of this thread."""
    _call(f"the choice of cuda:{index}", cudart.cudaSetDevice, index)


class Stream:
    """Work on the current GPU, one piece after the other; freed with the object."""

    def __init__(self) -> None:
        made = _call("a stream", cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)
        self.handle = int(made)
        weakref.finalize(self, cudart.cudaStreamDestroy, made)

    def wait(self) -> None:
        """Until all that was given to it is done."""
        _call("the work on the GPU", cudart.cudaStreamSynchronize, self.handle)

    def upload(self, device: Buffer, host: Array) -> None:
        """Copy page-locked host memory to the GPU."""
        self._copy(device.address, host.ctypes.data, host.nbytes, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, host: Array, device: Buffer) -> None:
        """Copy from the GPU to page-locked host memory."""
        self._copy(host.ctypes.data, device.address, host.nbytes, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def capture(self, work: Callable[[], None]) -> Graph | None:
        """Record what `work` gives to this stream, to be launched at once later; None where that cannot be recorded."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call("the recording of a CUDA graph", cudart.cudaStreamBeginCapture, self.handle, mode)
        try:
            work()
        except RuntimeUnavailable:
            _, graph = cudart.cudaStreamEndCapture(self.handle)
            cudart.cudaGetLastError()  # else the next call would answer with it
            return None
        code, graph = cudart.cudaStreamEndCapture(self.handle)
        if code != cudart.cudaError_t.cudaSuccess:
            cudart.cudaGetLastError()
            return None
        return Graph(_call("a CUDA graph", cudart.cudaGraphInstantiate, graph, 0), graph)

    def launch(self, graph: Graph) -> None:
        """Start what was recorded."""
        _call("a CUDA graph's start", cudart.cudaGraphLaunch, graph.executable, self.handle)

    def _copy(self, to: int, source: int, count: int, kind: Any) -> None:
        _call(f"a copy of {count} bytes", cudart.cudaMemcpyAsync, to, source, count, kind, self.handle)


class Graph:
    """Recorded work; freed with the object."""

    def __init__(self, executable: Any, graph: Any) -> None:
        self.executable = executable
        weakref.finalize(self, cudart.cudaGraphDestroy, graph)
        weakref.finalize(self, cudart.cudaGraphExecDestroy, executable)


class Buffer:
    """Memory of the current GPU for so many float32; freed with the object."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        count = prod(shape) * FLOAT
        made = _call(f"{count} bytes of GPU memory", cudart.cudaMalloc, count)
        self.address = int(made)
        weakref.finalize(self, cudart.cudaFree, made)


def pinned(shape: tuple[int, ...]) -> Array:
    """Page-locked float32 memory of the host, from which the GPU copies by itself; freed with the last view of it."""
    count = prod(shape) * FLOAT
    made = _call(f"{count} bytes of page-locked memory", cudart.cudaHostAlloc, count, cudart.cudaHostAllocDefault)
    memory = (ctypes.c_float * prod(shape)).from_address(int(made))
    weakref.finalize(memory, cudart.cudaFreeHost, made)
    return np.ctypeslib.as_array(memory).reshape(shape)


def page_lock(address: int, count: int) -> None:
    """Let the GPU copy by itself from memory of the host that is there already, until `page_unlock`."""
    _call(
        f"{count} bytes of page-locked memory", cudart.cudaHostRegister, address, count, cudart.cudaHostRegisterPortable
    )


def page_unlock(address: int) -> None:
    """The end of `page_lock`; before the memory is given back."""
    cudart.cudaHostUnregister(address)


def _call(what: str, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """The value of a CUDA call.

    Raises:
        OutOfMemory: the memory does not suffice.
        RuntimeUnavailable: any other failure.
    """
    code, *values = function(*arguments)
    if code == cudart.cudaError_t.cudaSuccess:
        return values[0] if values else None
    cudart.cudaGetLastError()  # clear it
    if code == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise OutOfMemory(f"there is not enough memory for {what}; take a smaller batch.")
    _, text = cudart.cudaGetErrorString(code)
    raise RuntimeUnavailable(f"CUDA failed at {what}: {text.decode()}; check the driver, or choose the device cpu.")
