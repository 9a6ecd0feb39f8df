"""Graphs of networks that are not the usual one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.graph import write_onnx
from deploy.model import Precision
from toolkit.config import Grid, NetworkSettings
from toolkit.training.network import build_network, fold_batchnorm

GRID = Grid(spacing=6.0, shape=(24, 32, 24))


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("fp16", 2e-2)])
def test_group_norm_is_exported_as_it_computes(precision: Precision, tolerance: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(NetworkSettings(depth=10, norm="group"), cosine_head=False).eval()
    scans = torch.randn(3, 4, *GRID.shape)
    with torch.inference_mode():
        expected = network(scans)
    shapes = write_onnx(fold_batchnorm(network), GRID, precision, tmp_path / "model.onnx")
    assert (shapes.features, shapes.evidence) == (512, (1, 1, 1))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for mine, theirs in zip(session.run(None, {"scan": scans.numpy()}), expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=tolerance * float(theirs.abs().max()))
