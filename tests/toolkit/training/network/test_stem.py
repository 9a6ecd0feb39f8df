"""The first convolution over blocks answers as the one over voxels."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from deploy.export.graph import write_onnx
from toolkit.config import Grid, NetworkSettings
from toolkit.training.network.network import build_network, fold_batchnorm
from toolkit.training.network.stem import block_weight, convolve_blocks, takes_blocks, to_blocks


def stem(bias: bool = False) -> nn.Conv3d:
    torch.manual_seed(0)
    return nn.Conv3d(4, 6, 7, stride=2, padding=3, bias=bias, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(10, 12, 8), (9, 12, 7), (2, 1, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_same_answer_and_gradients(shape: tuple[int, int, int], layout: torch.memory_format) -> None:
    conv = stem()
    scan = torch.randn(2, 4, *shape, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    wanted = conv(scan)
    found = convolve_blocks(scan, block_weight(conv.weight), None)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    back = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, (scan, conv.weight), back),
        torch.autograd.grad(wanted, (scan, conv.weight), back),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_blocks_by_hand() -> None:
    """Two channels of 2 x 2 x 2 voxels: the voxel at (x, y, z) of channel c becomes channel 8 x + 4 y + 2 z + c."""
    scan = torch.arange(16.0).reshape(1, 2, 2, 2, 2)
    blocks = to_blocks(scan)
    assert blocks.shape == (1, 16, 1, 1, 1)
    assert blocks.flatten().tolist() == [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
    assert to_blocks(torch.ones(1, 4, 6, 4, 2)).is_contiguous(memory_format=torch.channels_last_3d)


def test_which_convolutions_take_blocks() -> None:
    assert takes_blocks(stem())
    assert not takes_blocks(build_network(NetworkSettings(depth=10, stem_stride=1), False).backbone.conv1)


def test_bias() -> None:
    conv = stem(bias=True)
    scan = torch.randn(1, 4, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(
        convolve_blocks(scan, block_weight(conv.weight), conv.bias), conv(scan), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(("stride", "channels"), [(2, 32), (1, 4)])
def test_half_precision_graph_begins_with_blocks(stride: int, channels: int, tmp_path: Path) -> None:
    network = build_network(NetworkSettings(depth=10, stem_stride=stride), False).eval()  # type: ignore[arg-type]
    for precision, wanted in (("fp32", 4), ("fp16", channels)):
        write_onnx(fold_batchnorm(network), Grid(spacing=6.0, shape=(24, 32, 24)), precision, tmp_path / "g.onnx")  # type: ignore[arg-type]
        graph = onnx.load(tmp_path / "g.onnx").graph
        first = next(node for node in graph.node if node.op_type == "Conv")
        weight = next(tensor for tensor in graph.initializer if tensor.name == first.input[1])
        assert weight.dims[1] == wanted
