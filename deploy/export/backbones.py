"""Backbones as nodes of an ONNX graph, block by block."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from deploy.export.nodes import SPACE, Map, Writer, conv, max_pool, norm, relu, sizes, spatial_mean, swish
from toolkit.errors import ModelError
from toolkit.training.network.backbones import (
    AnyBackbone,
    Backbone,
    DenseBackbone,
    EfficientBackbone,
    Halving,
    SqueezeBackbone,
)
from toolkit.training.network.stem import block_padding, block_weight, takes_blocks


def write_backbone(writer: Writer, net: AnyBackbone, x: Map, name: str) -> Map:
    """A network up to its last feature map.

    Args:
        writer: takes the nodes.
        net: in eval mode; BatchNorm folded or not.
        x: the scan.
        name: in front of the weights' names.

    Raises:
        ModelError: it holds what the export cannot write.
    """
    if isinstance(net, Backbone):
        return _resnet(writer, net, x, name)
    if isinstance(net, DenseBackbone):
        return _densenet(writer, net.features, x, f"{name}features.")
    if isinstance(net, SqueezeBackbone):
        return _senet(writer, net, x, name)
    return _efficientnet(writer, net, x, name)


def _resnet(writer: Writer, net: Backbone, x: Map, name: str) -> Map:
    x = relu(writer, norm(writer, net.bn1, _stem(writer, net.conv1, x, f"{name}conv1"), f"{name}bn1"))
    x = max_pool(writer, net.maxpool, x)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(net, stage)):
            x = _residual(writer, block, x, f"{name}{stage}.{number}.")
    return x


def _densenet(writer: Writer, parts: Any, x: Map, name: str) -> Map:
    x = norm(writer, parts.norm0, _stem(writer, parts.conv0, x, f"{name}conv0"), f"{name}norm0")
    x = max_pool(writer, parts.pool0, relu(writer, x))
    for number in (1, 2, 3, 4):
        for layer, block in getattr(parts, f"denseblock{number}").named_children():
            x = _dense(writer, block.layers, x, f"{name}denseblock{number}.{layer}.layers.")
        if number < 4:
            x = _transition(writer, getattr(parts, f"transition{number}"), x, f"{name}transition{number}.")
    return relu(writer, norm(writer, parts.norm5, x, f"{name}norm5"))


def _dense(writer: Writer, parts: Any, x: Map, name: str) -> Map:
    """A layer of a dense block: its few new channels behind all there are."""
    new = x
    for n in "12":
        new = relu(writer, norm(writer, getattr(parts, f"norm{n}"), new, f"{name}norm{n}"))
        new = conv(writer, getattr(parts, f"conv{n}"), new, f"{name}conv{n}")
    return Map(writer.node("Concat", x.name, new.name, axis=1), x.channels + new.channels, x.size)


def _transition(writer: Writer, parts: Any, x: Map, name: str) -> Map:
    x = relu(writer, norm(writer, parts.norm, x, f"{name}norm"))
    x = conv(writer, parts.conv, x, f"{name}conv")
    if not isinstance(parts.pool, Halving):
        raise ModelError(f"{name}pool is a {type(parts.pool).__name__}, which the export cannot write.")
    out = writer.node("AveragePool", x.name, kernel_shape=[2] * 3, strides=[2] * 3)
    return Map(out, x.channels, tuple(n // 2 for n in x.size))


def _senet(writer: Writer, net: SqueezeBackbone, x: Map, name: str) -> Map:
    first = net.layer0
    x = _stem(writer, first.conv1, x, f"{name}layer0.conv1")
    x = max_pool(writer, first.pool, relu(writer, norm(writer, first.bn1, x, f"{name}layer0.bn1")))
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(net, stage)):
            x = _squeezed(writer, block, x, f"{name}{stage}.{number}.")
    return x


def _squeezed(writer: Writer, block: Any, x: Map, name: str) -> Map:
    """MONAI's bottleneck with squeeze and excitation: how much each channel counts is worked out from all of them."""
    out = x
    for part in ("conv1", "conv2", "conv3"):
        out = _unit(writer, getattr(block, part), out, f"{name}{part}.")
        if part != "conv3":
            out = relu(writer, out)
    first, _, second, _ = block.se_layer.fc
    share = writer.node("Reshape", spatial_mean(writer, out), writer.numbers(0, out.channels))  # (B, C)
    share = writer.node("Relu", _linear(writer, first, share, f"{name}se_layer.fc.0"))
    share = writer.node("Sigmoid", _linear(writer, second, share, f"{name}se_layer.fc.2"))
    share = writer.node("Unsqueeze", share, writer.numbers(*SPACE))  # (B, C, 1, 1, 1)
    shortcut = x if isinstance(block.project, nn.Identity) else _unit(writer, block.project, x, f"{name}project.")
    whole = writer.node("Add", writer.node("Mul", out.name, share), shortcut.name)
    return relu(writer, out._replace(name=whole))


def _unit(writer: Writer, unit: Any, x: Map, name: str) -> Map:
    """MONAI's `Convolution`, up to its normalisation."""
    return norm(writer, unit.adn.N, conv(writer, unit.conv, x, f"{name}conv"), f"{name}adn.N")


def _linear(writer: Writer, layer: nn.Linear, x: str, name: str) -> str:
    """(B, C) -> (B, D)."""
    weights = (writer.weight(f"{name}.weight", layer.weight), writer.weight(f"{name}.bias", layer.bias))
    return writer.node("Gemm", x, *weights, transB=1)


def _efficientnet(writer: Writer, net: EfficientBackbone, x: Map, name: str) -> Map:
    x = conv(writer, net._conv_stem, x, f"{name}_conv_stem", net._conv_stem_padding)
    x = swish(writer, norm(writer, net._bn0, x, f"{name}_bn0"))
    for stage, blocks in net._blocks.named_children():
        for number, block in blocks.named_children():
            x = _inverted(writer, block, x, f"{name}_blocks.{stage}.{number}.")
    x = conv(writer, net._conv_head, x, f"{name}_conv_head", net._conv_head_padding)
    return swish(writer, norm(writer, net._bn1, x, f"{name}_bn1"))


def _inverted(writer: Writer, block: Any, x: Map, name: str) -> Map:
    """MONAI's inverted bottleneck: more channels, each convolved alone, squeeze and excitation, fewer channels."""

    def step(x: Map, kind: str, after: str = "") -> Map:
        x = conv(writer, getattr(block, kind), x, f"{name}{kind}", getattr(block, f"{kind}_padding"))
        return norm(writer, getattr(block, after), x, f"{name}{after}") if after else x

    out = x if block.expand_ratio == 1 else swish(writer, step(x, "_expand_conv", "_bn0"))
    out = swish(writer, step(out, "_depthwise_conv", "_bn1"))
    share = Map(spatial_mean(writer, out), out.channels, (1, 1, 1))
    share = step(swish(writer, step(share, "_se_reduce")), "_se_expand")
    out = out._replace(name=writer.node("Mul", writer.node("Sigmoid", share.name), out.name))
    out = step(out, "_project_conv", "_bn2")
    if block.id_skip and block.stride == 1 and block.in_channels == block.out_channels:
        out = out._replace(name=writer.node("Add", out.name, x.name))
    return out


def _stem(writer: Writer, given: nn.Module, x: Map, name: str) -> Map:
    if writer.dtype == torch.float16 and isinstance(given, nn.Conv3d) and takes_blocks(given):
        return _block_stem(writer, given, x, name)
    return conv(writer, given, x, name)


def _residual(writer: Writer, block: nn.Module, x: Map, name: str) -> Map:
    """MONAI's basic or bottleneck block: two or three convolutions and a shortcut."""
    parts = dict(block.named_children())
    numbers = [n for n in "123" if f"conv{n}" in parts]
    out = x
    for n in numbers:
        out = conv(writer, parts[f"conv{n}"], out, f"{name}conv{n}")
        out = norm(writer, parts[f"bn{n}"], out, f"{name}bn{n}")
        if n != numbers[-1]:
            out = relu(writer, out)
    shortcut: Any = block.downsample
    if isinstance(shortcut, partial):  # shortcut A
        x = _subsample(writer, x, shortcut.keywords["planes"], shortcut.keywords["stride"])
    elif shortcut is not None:
        x = norm(writer, shortcut[1], conv(writer, shortcut[0], x, f"{name}downsample.0"), f"{name}downsample.1")
    return relu(writer, out._replace(name=writer.node("Add", out.name, x.name)))


def _block_stem(writer: Writer, given: nn.Conv3d, x: Map, name: str) -> Map:
    """The first convolution over blocks of voxels, as `toolkit.training.network.stem` explains."""
    if odd := [n % 2 for n in x.size] if any(n % 2 for n in x.size) else []:
        size = tuple(n + more for n, more in zip(x.size, odd, strict=True))
        x = Map(writer.node("Pad", x.name, writer.numbers(0, 0, 0, 0, 0, 0, 0, *odd)), x.channels, size)
    half = [n // 2 for n in x.size]
    split = [d for n in half for d in (n, 2)]
    parts = writer.node("Reshape", x.name, writer.numbers(-1, x.channels, *split))
    parts = writer.node("Transpose", parts, perm=[0, 2, 4, 6, 3, 5, 7, 1])  # (B, x, y, z, 2, 2, 2, C)
    parts = writer.node("Reshape", parts, writer.numbers(-1, *half, 8 * x.channels))
    blocks = writer.node("Transpose", parts, perm=[0, 4, 1, 2, 3])  # (B, 8 C, x, y, z)
    weight = block_weight(given.weight)
    kernel, pads = list(weight.shape[2:]), list(block_padding())
    weights = [writer.weight(f"{name}.weight", weight)]
    if given.bias is not None:
        weights.append(writer.weight(f"{name}.bias", given.bias))
    out = writer.node("Conv", blocks, *weights, kernel_shape=kernel, strides=[1] * 3, pads=pads)
    return Map(out, given.out_channels, sizes(tuple(half), kernel, [1] * 3, pads))


def _subsample(writer: Writer, x: Map, planes: int, stride: int) -> Map:
    """Shortcut A: every so many voxels, then channels of zeros."""
    ends = [np.iinfo(np.int64).max] * 3
    name = writer.node("Slice", x.name, *(writer.numbers(*given) for given in ([0] * 3, ends, SPACE, [stride] * 3)))
    name = writer.node("Pad", name, writer.numbers(0, 0, 0, 0, 0, 0, planes - x.channels, 0, 0, 0))
    return Map(name, planes, tuple(-(-n // stride) for n in x.size))
