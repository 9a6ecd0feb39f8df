"""The graph answers as the network does, whatever the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from deploy.export.graph import write_onnx
from deploy.model.folder import Precision
from deploy.model.graph_check import check_graph
from deploy.model.manifest import ModelSpec, NetworkRecord, OutputShapes
from toolkit.config import Grid, NetworkSettings
from toolkit.data.patients import CLASSES, MODALITIES
from toolkit.errors import ModelError
from toolkit.training.network.ensemble import Ensemble, members_of
from toolkit.training.network.network import GradeNet, build_network, fold_batchnorm

GRID = Grid(spacing=6.0, shape=(24, 32, 24))
ODD = Grid(spacing=6.0, shape=(33, 25, 36))
LARGE = Grid(spacing=6.0, shape=(32, 48, 64))
LARGE_ODD = Grid(spacing=6.0, shape=(33, 47, 36))


def network(seed: int, cosine_head: bool = False, **settings: Any) -> GradeNet:
    """Random weights, BatchNorm statistics that are not those of a fresh network, a head with a bias."""
    torch.manual_seed(seed)
    made = build_network(NetworkSettings(**settings), cosine_head, 12.0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
    if not cosine_head:
        nn.init.uniform_(made.head.linear.bias)  # type: ignore[union-attr, arg-type]
    return made.eval()


def spec(made: GradeNet | Ensemble, grid: Grid, shapes: OutputShapes) -> ModelSpec:
    """As far as the graph's check looks."""
    record = NetworkRecord(depth=10, stem_stride=2, cosine_head=False, members=len(members_of(made)))
    given = {"modalities": MODALITIES, "classes": CLASSES, "grid": grid, "network": record, "outputs": shapes}
    return ModelSpec.model_construct(**given)


def compare(made: GradeNet | Ensemble, grid: Grid, precision: Precision, path: Path) -> None:
    scans = torch.randn(3, 4, *grid.shape)
    with torch.inference_mode():
        expected = made(scans)
    shapes = write_onnx(fold_batchnorm(made), grid, precision, path)
    assert (shapes.features, shapes.evidence) == (expected.features.shape[1], tuple(expected.evidence.shape[1:]))
    check_graph(path.read_bytes(), spec(made, grid, shapes), path.name)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for count in (1, 3):
        found = session.run(None, {"scan": scans[:count].numpy()})
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                mine, theirs[:count].numpy(), rtol=0, atol=tolerance * max(1, float(theirs.abs().max()))
            )


@pytest.mark.parametrize(
    ("settings", "grid", "precision"),
    [
        ({"depth": 10}, ODD, "fp32"),
        ({"depth": 10}, ODD, "fp16"),
        ({"depth": 10, "cosine_head": True}, GRID, "fp32"),
        ({"depth": 10, "norm": "group"}, GRID, "fp32"),
        ({"depth": 10, "norm": "group"}, GRID, "fp16"),
        ({"depth": 10, "stem_stride": 1}, GRID, "fp16"),
        ({"depth": 18}, GRID, "fp32"),  # shortcut A: every other voxel, and channels of zeros
        ({"depth": 50}, GRID, "fp32"),
        ({"arch": "densenet121"}, LARGE, "fp32"),
        ({"arch": "densenet121", "norm": "group"}, LARGE_ODD, "fp16"),
        ({"arch": "densenet121"}, LARGE_ODD, "fp16"),
        ({"arch": "seresnet50"}, GRID, "fp32"),
        ({"arch": "seresnet50", "cosine_head": True}, ODD, "fp16"),
        ({"arch": "efficientnet-b0"}, LARGE, "fp32"),
        ({"arch": "efficientnet-b0"}, LARGE_ODD, "fp16"),
        ({"arch": "efficientnet-b0", "norm": "group"}, LARGE, "fp32"),
    ],
    ids=str,
)
def test_the_graph_answers_as_the_network(
    settings: dict[str, Any], grid: Grid, precision: Precision, tmp_path: Path
) -> None:
    compare(network(0, **settings), grid, precision, tmp_path / "model.onnx")


@pytest.mark.parametrize(("cosine_head", "precision"), [(False, "fp32"), (True, "fp16")])
def test_an_ensemble_answers_as_its_mean(cosine_head: bool, precision: Precision, tmp_path: Path) -> None:
    members = [network(seed, cosine_head, depth=10) for seed in range(2)]
    compare(Ensemble(members).eval(), GRID, precision, tmp_path / "model.onnx")


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    made = network(0, depth=10)
    folded = fold_batchnorm(made)
    folded.backbone.bn1 = nn.InstanceNorm3d(64)
    with pytest.raises(ModelError, match=r"backbone\.bn1 is a InstanceNorm3d, which the export cannot write"):
        write_onnx(folded, GRID, "fp32", tmp_path / "model.onnx")
    folded = fold_batchnorm(made)
    folded.backbone.layer1[0].conv2.weight.data[0] = 1e6
    with pytest.raises(ModelError, match=r"backbone\.layer1\.0\.conv2\.weight does not fit float16"):
        write_onnx(folded, GRID, "fp16", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_only_plain_operators_with_a_free_batch(tmp_path: Path) -> None:
    write_onnx(fold_batchnorm(network(0, depth=10)), GRID, "fp16", tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx")
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 20)]
    assert not graph.functions
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
