"""Nodes of an ONNX graph, and what backbones are made of: convolution, normalisation, pooling, activations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from deploy.model.folder import Precision
from toolkit.errors import ModelError

SPACE = [2, 3, 4]  # the axes x, y, z


class Map(NamedTuple):
    """A feature map in the graph: (B, channels, *size)."""

    name: str
    channels: int
    size: tuple[int, ...]


class Writer:
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


def conv(writer: Writer, given: nn.Module, x: Map, name: str, padding: nn.Module | None = None) -> Map:
    """A convolution; `padding` is a module of zeros around its input, in addition to its own.

    Raises:
        ModelError: it is none, or the padding is of another kind.
    """
    if not isinstance(given, nn.Conv3d):
        raise ModelError(f"{name} is a {type(given).__name__}, which the export cannot write.")
    kernel, strides, own = ([int(n) for n in size] for size in (given.kernel_size, given.stride, given.padding))
    pads = [n + more for n, more in zip(own * 2, _around(padding, name), strict=True)]
    weights = [writer.weight(f"{name}.weight", given.weight)]
    if given.bias is not None:
        weights.append(writer.weight(f"{name}.bias", given.bias))
    attributes: dict[str, Any] = {"group": given.groups} if given.groups > 1 else {}
    out = writer.node("Conv", x.name, *weights, kernel_shape=kernel, strides=strides, pads=pads, **attributes)
    return Map(out, given.out_channels, sizes(x.size, kernel, strides, pads))


def _around(padding: nn.Module | None, name: str) -> list[int]:
    """Zeros before each axis, then after each; torch names the last axis first."""
    if padding is None or isinstance(padding, nn.Identity):
        return [0] * 6
    if not isinstance(padding, nn.ConstantPad3d) or padding.value != 0:
        raise ModelError(f"{name} is padded by a {type(padding).__name__}, which the export cannot write.")
    return [int(padding.padding[i]) for i in (4, 2, 0, 5, 3, 1)]


def norm(writer: Writer, given: nn.Module, x: Map, name: str) -> Map:
    """Nothing where BatchNorm was folded, else its gain and offset; GroupNorm takes the statistics of the scan.

    Raises:
        ModelError: it is none of these.
    """
    if isinstance(given, nn.Identity):
        return x
    if isinstance(given, nn.BatchNorm3d) and given.running_mean is not None and given.running_var is not None:
        gain = given.weight * torch.rsqrt(given.running_var + given.eps)
        return _scale(writer, x, name, gain, given.bias - given.running_mean * gain)
    if not isinstance(given, nn.GroupNorm):
        raise ModelError(f"{name} is a {type(given).__name__}, which the export cannot write.")
    groups = given.num_groups
    ones, zeros = (
        writer.weight(f"{name}.{kind}", torch.full((groups,), float(kind == "one"))) for kind in ("one", "zero")
    )
    parts = writer.node("Reshape", x.name, writer.numbers(0, groups, -1))  # (B, G, ...)
    parts = writer.node("InstanceNormalization", parts, ones, zeros, epsilon=given.eps)
    x = x._replace(name=writer.node("Reshape", parts, writer.numbers(0, x.channels, *x.size)))
    return _scale(writer, x, name, given.weight, given.bias)


def _scale(writer: Writer, x: Map, name: str, gain: Tensor, offset: Tensor) -> Map:
    """Each channel times its gain (C,) plus its offset (C,)."""
    pairs = (("weight", gain), ("bias", offset))
    scale, shift = (writer.weight(f"{name}.{kind}", values[:, None, None, None]) for kind, values in pairs)
    return x._replace(name=writer.node("Add", writer.node("Mul", x.name, scale), shift))


def relu(writer: Writer, x: Map) -> Map:
    """max(x, 0)."""
    return x._replace(name=writer.node("Relu", x.name))


def swish(writer: Writer, x: Map) -> Map:
    """X times its sigmoid."""
    return x._replace(name=writer.node("Mul", x.name, writer.node("Sigmoid", x.name)))


def max_pool(writer: Writer, given: nn.MaxPool3d, x: Map) -> Map:
    """Max pooling; a last window that may reach out does so by a padding, which no maximum takes."""
    kernel, strides, pads = ([int(n)] * 3 for n in (given.kernel_size, given.stride, given.padding))  # type: ignore[arg-type]
    after = [-(n + 2 * p - k) % s for n, p, k, s in zip(x.size, pads, kernel, strides, strict=True)]
    pads += [p + more for p, more in zip(pads, after if given.ceil_mode else [0] * 3, strict=True)]
    out = writer.node("MaxPool", x.name, kernel_shape=kernel, strides=strides, pads=pads)
    return Map(out, x.channels, sizes(x.size, kernel, strides, pads))


def spatial_mean(writer: Writer, x: Map) -> str:
    """(B, C, 1, 1, 1), one axis after the other: a sum over all voxels would not fit half precision."""
    name = x.name
    for axis in reversed(SPACE):
        name = writer.node("ReduceMean", name, writer.numbers(axis), keepdims=1)
    return name


def sizes(size: tuple[int, ...], kernel: list[int], strides: list[int], pads: list[int]) -> tuple[int, ...]:
    """Of a convolution's or pooling's output.

    Args:
        size: of its input.
        kernel: voxels on each axis.
        strides: voxels on each axis.
        pads: at the beginning of each axis, then at the end of each.
    """
    around = [before + after for before, after in zip(pads[:3], pads[3:], strict=True)]
    return tuple((n + p - k) // s + 1 for n, k, s, p in zip(size, kernel, strides, around, strict=True))
