"""A stand-in for a Triton server: Triton's own protocol over gRPC, ONNX Runtime behind it, no batching."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.formats.triton import read_config


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves the ONNX models of a repository as their configs say."""

    def __init__(self, repository: Path) -> None:
        self.batches: list[int] = []
        self._configs = {path.parent.name: read_config(path) for path in repository.glob("*/config.pbtxt")}
        self._sessions = {
            name: onnxruntime.InferenceSession(repository / name / "1/model.onnx", providers=["CPUExecutionProvider"])
            for name in self._configs
        }

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The parsed config, or Triton's error for an unknown model."""
        if request.name not in self._configs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return service_pb2.ModelConfigResponse(config=self._configs[request.name])

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Refuses shapes that the config does not allow, as Triton does."""
        config = self._configs[request.model_name]
        (given,) = request.inputs
        shape = tuple(given.shape)
        if given.name != config.input[0].name or shape[1:] != tuple(config.input[0].dims):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected shape for input '{given.name}': {shape}")
        self.batches.append(shape[0])
        scans = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(shape)
        names = [output.name for output in request.outputs]
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in zip(names, self._sessions[request.model_name].run(names, {given.name: scans}), strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(np.ascontiguousarray(array, np.float32).tobytes())
        return response


@contextmanager
def serving(repository: Path) -> Iterator[tuple[Server, str]]:
    """The server and its address."""
    server = Server(repository)
    machine = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, machine)
    port = machine.add_insecure_port("127.0.0.1:0")
    machine.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        machine.stop(None).wait()
