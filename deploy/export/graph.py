"""The network as an ONNX graph, in fp32 and fp16, written node by node.

Walking through the network's modules takes a second for 46 million weights, where tracing it twice took twenty. The
gate of the export proves each graph against the network itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from deploy.export.backbones import write_backbone
from deploy.export.nodes import SPACE, Map, Writer
from deploy.model.folder import Precision
from deploy.model.manifest import OutputShapes
from deploy.runtime import RuntimeOutputs
from deploy.runtimes.onnx import INPUT
from toolkit.config import Grid
from toolkit.errors import ModelError
from toolkit.training.network.backbones import CHANNELS
from toolkit.training.network.ensemble import Ensemble, members_of
from toolkit.training.network.network import CosineHead, GradeNet, LinearHead

OPSET, IR_VERSION = 20, 10
_LARGEST = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB
_SMALLEST = 1e-12  # length of the features; floor as in torch's normalize


def write_onnx(network: GradeNet | Ensemble, grid: Grid, precision: Precision, path: Path) -> OutputShapes:
    """Write the graph with input `scan` and outputs `logits`, `features`, `evidence`, all float32, any batch size.

    Args:
        network: BatchNorm folded, eval mode, on the CPU.
        grid: its shape is fixed in the graph.
        precision: of the backbone; pooling and head compute in float32.
        path: the file.

    Returns:
        The shapes that the graph states.

    Raises:
        ModelError: the graph is too large for one file, is invalid, or holds a number that fp16 cannot.
    """
    members, writer = members_of(network), Writer(precision, path.name)
    size = sum(x.numel() for x in network.parameters()) * writer.dtype.itemsize
    if size > _LARGEST:
        raise ModelError(
            f"{len(members)} networks make a graph of {size / 1e9:.1f} GB, and ONNX holds {_LARGEST / 1e9:.1f} GB in a"
            " file; export one of them with --member best, or train fewer folds or repeats."
        )
    features, evidence = _write_members(writer, members, grid)
    shapes = OutputShapes(features=features, evidence=(evidence[0], evidence[1], evidence[2]))
    content = _model(writer, grid, shapes).SerializeToString()
    _check(content, path.name)
    path.write_bytes(content)
    return shapes


def _write_members(writer: Writer, members: list[GradeNet], grid: Grid) -> tuple[int, tuple[int, ...]]:
    """All nodes; the number of features and the size of the evidence map."""
    x = Map(INPUT, CHANNELS, grid.shape)
    if writer.dtype == torch.float16:
        x = x._replace(name=writer.node("Cast", INPUT, to=TensorProto.FLOAT16))
    if len(members) == 1:
        last = _member(writer, members[0], x, "", RuntimeOutputs._fields)
        return last.channels, last.size
    answers = []
    for number, member in enumerate(members):
        names = tuple(f"{name}_{number}" for name in RuntimeOutputs._fields)
        last = _member(writer, member, x, f"members.{number}.", names)
        answers.append(names)
    logits, features, evidence = (list(one) for one in zip(*answers, strict=True))
    count = writer.weight("members", torch.tensor(float(len(members))), torch.float32)
    writer.node("Div", writer.node("Sum", *logits), count, out="logits")
    writer.node("Concat", *features, out="features", axis=1)
    writer.node("Div", writer.node("Sum", *evidence), count, out="evidence")
    return last.channels * len(members), last.size


def _member(writer: Writer, network: GradeNet, x: Map, name: str, outs: tuple[str, ...]) -> Map:
    """One network; `outs` are the names of its logits, features and evidence."""
    x = write_backbone(writer, network.backbone, x, f"{name}backbone.")
    if writer.dtype == torch.float16:
        x = x._replace(name=writer.node("Cast", x.name, to=TensorProto.FLOAT))
    writer.node("ReduceMean", x.name, writer.numbers(*SPACE), out=outs[1], keepdims=0)  # (B, F)
    if isinstance(network.head, CosineHead):
        _cosine_head(writer, network.head, x, f"{name}head.", outs)
    else:
        _linear_head(writer, network.head, x, f"{name}head.", outs)
    return x


def _linear_head(writer: Writer, head: LinearHead, x: Map, name: str, outs: tuple[str, ...]) -> None:
    weight, bias = head.linear.weight, head.linear.bias
    logits, features, evidence = outs
    given = [
        writer.weight(f"{name}linear.weight", weight, torch.float32),
        writer.weight(f"{name}linear.bias", bias, torch.float32),
    ]
    writer.node("Gemm", features, *given, out=logits, transB=1)
    weighed = _weigh(writer, x, f"{name}evidence", weight[1] - weight[0])
    offset = writer.weight(f"{name}evidence.bias", bias[1] - bias[0], torch.float32)
    writer.node("Add", weighed, offset, out=evidence)


def _cosine_head(writer: Writer, head: CosineHead, x: Map, name: str, outs: tuple[str, ...]) -> None:
    directions = head.scale * nn.functional.normalize(head.weight, dim=1)  # (2, F)
    logits, features, evidence = outs
    floor = writer.weight(f"{name}floor", torch.tensor(_SMALLEST), torch.float32)
    length = writer.node("Max", writer.node("ReduceL2", features, writer.numbers(1), keepdims=1), floor)  # (B, 1)
    weight = writer.weight(f"{name}weight", directions, torch.float32)
    writer.node("Gemm", writer.node("Div", features, length), weight, out=logits, transB=1)
    weighed = _weigh(writer, x, f"{name}evidence", directions[1] - directions[0])  # (B, x, y, z)
    writer.node("Div", weighed, writer.node("Unsqueeze", length, writer.numbers(2, 3)), out=evidence)


def _weigh(writer: Writer, x: Map, name: str, weight: Tensor) -> str:
    """The sum of a feature map's channels by weight (F,): (B, x, y, z)."""
    given = writer.weight(f"{name}.weight", weight[:, None, None, None], torch.float32)
    return writer.node("ReduceSum", writer.node("Mul", x.name, given), writer.numbers(1), keepdims=0)


def _model(writer: Writer, grid: Grid, shapes: OutputShapes) -> Any:
    ends = {
        INPUT: (CHANNELS, *grid.shape),
        "logits": (2,),
        "features": (shapes.features,),
        "evidence": shapes.evidence,
    }
    scan, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in ends.items()
    )
    graph = helper.make_graph(writer.nodes, "grade", [scan], outputs)
    model = helper.make_model(
        graph, producer_name="grade", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.graph.initializer.extend(writer.weights)  # last, since both of these copy what they are given
    return model


def _check(content: bytes, name: str) -> None:
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name} is no valid ONNX graph: {error}") from error
