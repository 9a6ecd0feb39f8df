"""The network that hospitals get, full size: ResNet50-3D in fp16 becomes an engine for three generations of cards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deploy.export.graph import write_onnx
from deploy.model.manifest import OutputShapes
from deploy.tensorrt.builder import Shapes, Tuning, build_plan
from deploy.tensorrt.flavours import choose_target
from tests.deploy.conftest import ignore
from toolkit.config import Architecture, Grid, NetworkSettings
from toolkit.training.network.network import build_network, fold_batchnorm


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> None:
    """Not here."""


@pytest.mark.slow
def test_resnet50_is_built_in_half_precision_without_a_gpu(tmp_path: Path) -> None:
    grid = Grid()
    torch.manual_seed(0)
    network = fold_batchnorm(build_network(NetworkSettings(), False).eval())
    outputs = write_onnx(network, grid, "fp16", tmp_path / "model_fp16.onnx")
    assert outputs == OutputShapes(features=2048, evidence=(4, 4, 4))
    target = choose_target("rtx", ("8.6", "8.9", "12.0"), None)
    shapes = Shapes((4, *grid.shape), 8, 8)
    built = build_plan((tmp_path / "model_fp16.onnx").read_bytes(), target, shapes, Tuning(None, None), ignore)
    # 1 in the stem, 3 in each of 3 + 4 + 6 + 3 blocks, 4 shortcuts
    assert (built.half, built.convolutions) == (53, 53)
    # 46.2 million weights of two bytes; in fp32 it would be twice that.
    assert 2 * 46.1e6 < len(built.plan) < 2.1 * 46.3e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "convolutions", "megabytes", "outputs"),
    [
        ("densenet121", 120, 22, OutputShapes(features=1024, evidence=(3, 4, 3))),
        ("seresnet50", 53, 97, OutputShapes(features=2048, evidence=(4, 4, 4))),
        ("efficientnet-b0", 81, 9, OutputShapes(features=1280, evidence=(3, 4, 3))),
    ],
)
def test_other_architectures_are_built_in_half_precision(
    arch: Architecture, convolutions: int, megabytes: int, outputs: OutputShapes, tmp_path: Path
) -> None:
    grid = Grid()
    torch.manual_seed(0)
    network = fold_batchnorm(build_network(NetworkSettings(arch=arch), False).eval())
    assert write_onnx(network, grid, "fp16", tmp_path / "model_fp16.onnx") == outputs
    target = choose_target("rtx", ("8.9",), None)
    shapes = Shapes((4, *grid.shape), 8, 8)
    built = build_plan((tmp_path / "model_fp16.onnx").read_bytes(), target, shapes, Tuning(None, None), ignore)
    assert (built.half, built.convolutions) == (convolutions, convolutions)
    assert 1e6 * megabytes < len(built.plan) < 1e6 * (megabytes + 12)  # weights of two bytes, and the engine's own code
