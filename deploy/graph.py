"""The network as an ONNX graph, in fp32 and fp16."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from deploy.manifest import OutputShapes
from deploy.model import Precision
from deploy.runtimes import RuntimeOutputs
from deploy.runtimes.onnx import INPUT
from toolkit.config import Grid
from toolkit.errors import ModelError
from toolkit.training.ensemble import Ensemble, members_of
from toolkit.training.network import CHANNELS, Backbone, GradeNet
from toolkit.training.stem import BlockStem, takes_blocks

_LARGEST = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB


class HalfBackbone(nn.Module):
    """A backbone in fp16 that takes float32, made for tensor cores; pooling and head behind it stay in float32."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if takes_blocks(backbone.conv1):
            backbone.conv1 = BlockStem(backbone.conv1)
        self.backbone = backbone.half()

    def forward(self, scan: Tensor) -> Tensor:
        """float32 (B, 4, X, Y, Z) -> float16 (B, F, x, y, z)."""
        return self.backbone(scan.half())  # type: ignore[no-any-return]


def write_onnx(network: GradeNet | Ensemble, grid: Grid, precision: Precision, path: Path) -> OutputShapes:
    """Write the graph with input `scan` and outputs `logits`, `features`, `evidence`, all float32, any batch size.

    Args:
        network: BatchNorm folded, eval mode, on the CPU; in fp16 its backbones are changed in place.
        grid: its shape is fixed in the graph.
        precision: of the backbone.
        path: the file.

    Returns:
        The shapes that the graph states.

    Raises:
        ModelError: the graph is too large for one file, is invalid, fixes the batch size, or holds a number that fp16
            cannot.
    """
    members = members_of(network)
    if precision == "fp16":
        for member in members:
            member.backbone = HalfBackbone(member.backbone)  # type: ignore[assignment]
    size = sum(x.numel() * x.element_size() for x in network.parameters())
    if size > _LARGEST:
        raise ModelError(
            f"{len(members)} networks make a graph of {size / 1e9:.1f} GB, and ONNX holds {_LARGEST / 1e9:.1f} GB in a"
            " file; export one of them with --member best, or train fewer folds or repeats."
        )
    example = torch.zeros(2, CHANNELS, *grid.shape)  # two: a batch of one would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=list(RuntimeOutputs._fields),
            dynamic_shapes={"scan": {0: batch}},
        )
    if program is None:
        raise ModelError("torch.onnx.export gave no graph; check the versions of torch and onnxscript.")
    graph = program.model_proto
    strip(graph)
    _check(graph, path.name)
    onnx.save(graph, path)
    _, features, evidence = ([dim.dim_value for dim in x.type.tensor_type.shape.dim[1:]] for x in graph.graph.output)
    return OutputShapes(features=features[0], evidence=(evidence[0], evidence[1], evidence[2]))


def strip(message: Any) -> None:
    """Clear notes and metadata of a graph and all its parts: the exporter writes file paths of this machine there."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                strip(child)


def _check(graph: Any, name: str) -> None:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name} is no valid ONNX graph: {error}") from error
    for value in (*graph.graph.input, *graph.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ModelError(
                f"{name} fixes the batch size of {value.name}; check the versions of torch and onnxscript."
            )
    for tensor in graph.graph.initializer:
        array = to_array(tensor)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ModelError(f"{name}: the weight {tensor.name} does not fit {array.dtype}; train with weight decay.")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of operators that this network has none of, such as torchvision's, and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
