"""The network as an ONNX graph, in fp32 and fp16, written node by node.

Walking through the network's modules takes a second for 46 million weights, where tracing it twice took twenty. The
gate of the export proves each graph against the network itself.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from deploy.model.folder import Precision
from deploy.model.manifest import OutputShapes
from deploy.runtime import RuntimeOutputs
from deploy.runtimes.onnx import INPUT
from toolkit.config import Grid
from toolkit.errors import ModelError
from toolkit.training.network.ensemble import Ensemble, members_of
from toolkit.training.network.network import CHANNELS, Backbone, CosineHead, GradeNet, LinearHead
from toolkit.training.network.stem import block_padding, block_weight, takes_blocks

OPSET, IR_VERSION = 20, 10
_LARGEST = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB
_SPACE = [2, 3, 4]  # the axes x, y, z
_SMALLEST = 1e-12  # length of the features; floor as in torch's normalize


class _Map(NamedTuple):
    """A feature map in the graph: (B, channels, *size)."""

    name: str
    channels: int
    size: tuple[int, ...]


class _Writer:
    """Nodes and weights of a graph that is being written; weights are stored in its precision."""

    def __init__(self, precision: Precision, file: str) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self._file = file

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node; the name of its output."""
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def weight(self, name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> str:
        """Add a weight; its name.

        Raises:
            ModelError: it holds a number that is not finite in this precision.
        """
        array = tensor.detach().to(dtype or self.dtype).contiguous().numpy()
        if not np.isfinite(array).all():
            raise ModelError(f"{self._file}: the weight {name} does not fit {array.dtype}; train with weight decay.")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def numbers(self, *values: int) -> str:
        """A list of integers, such as axes or a shape; its name."""
        name = f"numbers_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


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
    members, writer = members_of(network), _Writer(precision, path.name)
    size = sum(x.numel() for x in network.parameters()) * writer.dtype.itemsize
    if size > _LARGEST:
        raise ModelError(
            f"{len(members)} networks make a graph of {size / 1e9:.1f} GB, and ONNX holds {_LARGEST / 1e9:.1f} GB in a"
            " file; export one of them with --member best, or train fewer folds or repeats."
        )
    features, evidence = _write_members(writer, members, grid)
    shapes = OutputShapes(features=features, evidence=(evidence[0], evidence[1], evidence[2]))
    graph = _model(writer, grid, shapes)
    _check(graph, path.name)
    path.write_bytes(graph.SerializeToString())
    return shapes


def _write_members(writer: _Writer, members: list[GradeNet], grid: Grid) -> tuple[int, tuple[int, ...]]:
    """All nodes; the number of features and the size of the evidence map."""
    x = _Map(INPUT, CHANNELS, grid.shape)
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


def _member(writer: _Writer, network: GradeNet, x: _Map, name: str, outs: tuple[str, ...]) -> _Map:
    """One network; `outs` are the names of its logits, features and evidence."""
    x = _backbone(writer, network.backbone, x, f"{name}backbone.")
    if writer.dtype == torch.float16:
        x = x._replace(name=writer.node("Cast", x.name, to=TensorProto.FLOAT))
    writer.node("ReduceMean", x.name, writer.numbers(*_SPACE), out=outs[1], keepdims=0)  # (B, F)
    if isinstance(network.head, CosineHead):
        _cosine_head(writer, network.head, x, f"{name}head.", outs)
    else:
        _linear_head(writer, network.head, x, f"{name}head.", outs)
    return x


def _linear_head(writer: _Writer, head: LinearHead, x: _Map, name: str, outs: tuple[str, ...]) -> None:
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


def _cosine_head(writer: _Writer, head: CosineHead, x: _Map, name: str, outs: tuple[str, ...]) -> None:
    directions = head.scale * nn.functional.normalize(head.weight, dim=1)  # (2, F)
    logits, features, evidence = outs
    floor = writer.weight(f"{name}floor", torch.tensor(_SMALLEST), torch.float32)
    length = writer.node("Max", writer.node("ReduceL2", features, writer.numbers(1), keepdims=1), floor)  # (B, 1)
    weight = writer.weight(f"{name}weight", directions, torch.float32)
    writer.node("Gemm", writer.node("Div", features, length), weight, out=logits, transB=1)
    weighed = _weigh(writer, x, f"{name}evidence", directions[1] - directions[0])  # (B, x, y, z)
    writer.node("Div", weighed, writer.node("Unsqueeze", length, writer.numbers(2, 3)), out=evidence)


def _weigh(writer: _Writer, x: _Map, name: str, weight: Tensor) -> str:
    """The sum of a feature map's channels by weight (F,): (B, x, y, z)."""
    given = writer.weight(f"{name}.weight", weight[:, None, None, None], torch.float32)
    return writer.node("ReduceSum", writer.node("Mul", x.name, given), writer.numbers(1), keepdims=0)


def _backbone(writer: _Writer, net: Backbone, x: _Map, name: str) -> _Map:
    if writer.dtype == torch.float16 and takes_blocks(net.conv1):
        x = _block_stem(writer, net.conv1, x, f"{name}conv1")
    else:
        x = _conv(writer, net.conv1, x, f"{name}conv1")
    x = _relu(writer, _norm(writer, net.bn1, x, f"{name}bn1"))
    pool = net.maxpool
    kernel, strides, pads = ([n] * 3 for n in (pool.kernel_size, pool.stride, pool.padding))
    pooled = writer.node("MaxPool", x.name, kernel_shape=kernel, strides=strides, pads=pads * 2)
    x = _Map(pooled, x.channels, _sizes(x.size, kernel, strides, pads * 2))
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(net, stage)):
            x = _block(writer, block, x, f"{name}{stage}.{number}.")
    return x


def _block(writer: _Writer, block: nn.Module, x: _Map, name: str) -> _Map:
    """MONAI's basic or bottleneck block: two or three convolutions and a shortcut."""
    parts = dict(block.named_children())
    numbers = [n for n in "123" if f"conv{n}" in parts]
    out = x
    for n in numbers:
        conv, norm = parts[f"conv{n}"], parts[f"bn{n}"]
        out = _norm(writer, norm, _conv(writer, conv, out, f"{name}conv{n}"), f"{name}bn{n}")
        if n != numbers[-1]:
            out = _relu(writer, out)
    shortcut: Any = block.downsample
    if isinstance(shortcut, partial):  # shortcut A
        x = _subsample(writer, x, shortcut.keywords["planes"], shortcut.keywords["stride"])
    elif shortcut is not None:
        conv, norm = shortcut
        x = _norm(writer, norm, _conv(writer, conv, x, f"{name}downsample.0"), f"{name}downsample.1")
    return _relu(writer, out._replace(name=writer.node("Add", out.name, x.name)))


def _conv(writer: _Writer, conv: nn.Module, x: _Map, name: str) -> _Map:
    if not isinstance(conv, nn.Conv3d):
        raise ModelError(f"{name} is a {type(conv).__name__}, which the export cannot write.")
    kernel, strides, pads = ([int(n) for n in size] for size in (conv.kernel_size, conv.stride, conv.padding))
    given = [writer.weight(f"{name}.weight", conv.weight)]
    if conv.bias is not None:
        given.append(writer.weight(f"{name}.bias", conv.bias))
    out = writer.node("Conv", x.name, *given, kernel_shape=kernel, strides=strides, pads=pads * 2)
    return _Map(out, conv.out_channels, _sizes(x.size, kernel, strides, pads * 2))


def _block_stem(writer: _Writer, conv: nn.Conv3d, x: _Map, name: str) -> _Map:
    """The first convolution over blocks of voxels, as `toolkit.training.network.stem` explains."""
    if odd := [n % 2 for n in x.size] if any(n % 2 for n in x.size) else []:
        size = tuple(n + more for n, more in zip(x.size, odd, strict=True))
        x = _Map(writer.node("Pad", x.name, writer.numbers(0, 0, 0, 0, 0, 0, 0, *odd)), x.channels, size)
    half = [n // 2 for n in x.size]
    split = [d for n in half for d in (n, 2)]
    parts = writer.node("Reshape", x.name, writer.numbers(-1, x.channels, *split))
    parts = writer.node("Transpose", parts, perm=[0, 2, 4, 6, 3, 5, 7, 1])  # (B, x, y, z, 2, 2, 2, C)
    parts = writer.node("Reshape", parts, writer.numbers(-1, *half, 8 * x.channels))
    blocks = writer.node("Transpose", parts, perm=[0, 4, 1, 2, 3])  # (B, 8 C, x, y, z)
    weight = block_weight(conv.weight)
    kernel, pads = list(weight.shape[2:]), list(block_padding())
    given = [writer.weight(f"{name}.weight", weight)]
    if conv.bias is not None:
        given.append(writer.weight(f"{name}.bias", conv.bias))
    out = writer.node("Conv", blocks, *given, kernel_shape=kernel, strides=[1] * 3, pads=pads)
    return _Map(out, conv.out_channels, _sizes(tuple(half), kernel, [1] * 3, pads))


def _norm(writer: _Writer, norm: nn.Module, x: _Map, name: str) -> _Map:
    """Nothing where BatchNorm was folded; GroupNorm as instance norm over the groups, its statistics the scan's own."""
    if isinstance(norm, nn.Identity):
        return x
    if not isinstance(norm, nn.GroupNorm):
        raise ModelError(f"{name} is a {type(norm).__name__}, which the export cannot write; fold it first.")
    groups = norm.num_groups
    ones, zeros = (
        writer.weight(f"{name}.{kind}", torch.full((groups,), float(kind == "one"))) for kind in ("one", "zero")
    )
    parts = writer.node("Reshape", x.name, writer.numbers(0, groups, -1))  # (B, G, ...)
    parts = writer.node("InstanceNormalization", parts, ones, zeros, epsilon=norm.eps)
    out = writer.node("Reshape", parts, writer.numbers(0, x.channels, *x.size))
    scale, offset = (
        writer.weight(f"{name}.{kind}", getattr(norm, kind)[:, None, None, None]) for kind in ("weight", "bias")
    )
    return x._replace(name=writer.node("Add", writer.node("Mul", out, scale), offset))


def _subsample(writer: _Writer, x: _Map, planes: int, stride: int) -> _Map:
    """Shortcut A: every so many voxels, then channels of zeros."""
    ends = [np.iinfo(np.int64).max] * 3
    name = writer.node("Slice", x.name, *(writer.numbers(*given) for given in ([0] * 3, ends, _SPACE, [stride] * 3)))
    name = writer.node("Pad", name, writer.numbers(0, 0, 0, 0, 0, 0, planes - x.channels, 0, 0, 0))
    return _Map(name, planes, tuple(-(-n // stride) for n in x.size))


def _relu(writer: _Writer, x: _Map) -> _Map:
    return x._replace(name=writer.node("Relu", x.name))


def _sizes(size: tuple[int, ...], kernel: list[int], strides: list[int], pads: list[int]) -> tuple[int, ...]:
    """Of a convolution's or pooling's output; pads at the beginning of each axis, then at the end of each."""
    around = [before + after for before, after in zip(pads[:3], pads[3:], strict=True)]
    return tuple((n + p - k) // s + 1 for n, k, s, p in zip(size, kernel, strides, around, strict=True))


def _model(writer: _Writer, grid: Grid, shapes: OutputShapes) -> Any:
    ends = {
        INPUT: (CHANNELS, *grid.shape),
        "logits": (2,),
        "features": (shapes.features,),
        "evidence": shapes.evidence,
    }
    scan, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in ends.items()
    )
    graph = helper.make_graph(writer.nodes, "grade", [scan], outputs, initializer=writer.weights)
    return helper.make_model(
        graph, producer_name="grade", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )


def _check(graph: Any, name: str) -> None:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name} is no valid ONNX graph: {error}") from error
