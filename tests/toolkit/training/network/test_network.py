from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from toolkit.config import NetworkSettings
from toolkit.training.network.network import (
    CosineHead,
    GradeNet,
    LinearHead,
    build_network,
    fold_batchnorm,
)


def small(depth: int = 10, cosine: bool = False, **more: float) -> GradeNet:
    torch.manual_seed(0)
    return build_network(NetworkSettings(depth=depth, **more), cosine, 12.0)  # type: ignore[arg-type]


def randomise_batchnorm(network: GradeNet) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)


class Corner(nn.Module):
    """A feature map that is zero but in one corner."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, scan: Tensor) -> Tensor:
        feature_map = torch.zeros(len(scan), 6, 3, 4, 5)
        feature_map[:, :, 0, 0, 0] = scan[:, :1, 0, 0, 0] * torch.arange(1.0, 7)
        return feature_map * self.unit


@pytest.mark.parametrize("depth", [10, 50])
@pytest.mark.parametrize("cosine", [False, True])
def test_spatial_mean_of_evidence_is_the_difference_of_the_logits(depth: int, cosine: bool) -> None:
    network = small(depth, cosine).eval()
    if not cosine:
        nn.init.constant_(network.head.linear.bias[:1], -0.7)
        nn.init.constant_(network.head.linear.bias[1:], 0.4)
    out = network(torch.randn(2, 4, 64, 33, 64))
    assert out.evidence.shape == (2, 2, 2, 2)
    assert out.features.shape == (2, 2048 if depth == 50 else 512)
    torch.testing.assert_close(
        out.evidence.mean(dim=(1, 2, 3)), out.logits[:, 1] - out.logits[:, 0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("head", [LinearHead(6), CosineHead(6, 12.0)])
def test_evidence_lies_where_the_network_looks(head: LinearHead | CosineHead) -> None:
    network = GradeNet(Corner(), head, 0.4).eval()  # type: ignore[arg-type]
    out = network(torch.full((2, 4, 1, 1, 1), 3.0))
    bias = (head.linear.bias[1] - head.linear.bias[0]).item() if isinstance(head, LinearHead) else 0.0
    elsewhere = out.evidence.clone()
    elsewhere[:, 0, 0, 0] = bias
    torch.testing.assert_close(elsewhere, torch.full_like(elsewhere, bias))
    assert (out.evidence[:, 0, 0, 0] - bias).abs().min() > 1e-3
    torch.testing.assert_close(out.evidence.mean(dim=(1, 2, 3)), out.logits[:, 1] - out.logits[:, 0])


def test_cosine_logits_by_hand() -> None:
    head = CosineHead(2, 10.0)
    head.weight.data = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(head(torch.tensor([[3.0, 4.0]])), torch.tensor([[6.0, 8.0]]))  # 10 * (3/5, 4/5)


def test_scale_travels_with_the_weights() -> None:
    state = small(cosine=True).state_dict()
    other = build_network(NetworkSettings(depth=10), True)
    other.load_state_dict(state)
    assert isinstance(other.head, CosineHead)
    assert other.head.scale == 12


def test_dropout_leaves_features_and_evidence_alone() -> None:
    network = small(dropout=0.9)
    network.backbone.eval()
    scan = torch.randn(2, 4, 16, 16, 16)
    first, second = network(scan), network(scan)
    assert not torch.equal(first.logits, second.logits)
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.evidence, second.evidence)


def test_head_stays_in_float32_under_autocast() -> None:
    network = small().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(torch.randn(1, 4, 16, 16, 16))
        assert network.backbone(torch.randn(1, 4, 16, 16, 16)).dtype == torch.bfloat16
        expected = out.features.double() @ network.head.linear.weight.double().T
    assert {x.dtype for x in out} == {torch.float32}
    torch.testing.assert_close(out.logits.double(), expected, atol=1e-6, rtol=1e-5)


def test_every_layer_keeps_channels_last() -> None:
    network = small().to(memory_format=torch.channels_last_3d)
    scan = torch.randn(2, 4, 64, 64, 64).to(memory_format=torch.channels_last_3d)
    lost: list[str] = []
    seen: list[str] = []

    def look(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(type(module).__name__)
        if not output.is_contiguous(memory_format=torch.channels_last_3d):
            lost.append(type(module).__name__)

    for module in network.backbone.modules():
        module.register_forward_hook(look)
    network.backbone(scan)
    assert "MaxPool3d" in seen
    assert lost == []


@pytest.mark.parametrize("stride, size", [(2, 2), (1, 4)])
def test_stem_stride(stride: int, size: int) -> None:
    assert small(stem_stride=stride).eval()(torch.randn(1, 4, 64, 64, 64)).evidence.shape == (1, size, size, size)


def test_parameter_count_of_resnet50() -> None:
    count = 4 * 64 * 7**3 + 2 * 64  # stem and its BatchNorm
    came = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):  # He et al. 2016, table 1
        for block in range(blocks):
            count += came * planes + 27 * planes**2 + 4 * planes**2 + 2 * (planes + planes + 4 * planes)
            count += (came * 4 * planes + 2 * 4 * planes) if block == 0 else 0  # shortcut B, no bias
            came = 4 * planes
    assert sum(p.numel() for p in small(50).parameters()) == count + 2 * 2048 + 2


def test_shortcut_a_passes_the_gradient() -> None:
    backbone = small(18).backbone.eval()
    for parameter in backbone.layer2[0].parameters():
        nn.init.zeros_(parameter)  # the block's own path is shut
    x = torch.randn(1, 64, 4, 4, 4, requires_grad=True)
    out = backbone.layer2[0](x)
    assert torch.equal(out[:, :64], x[:, :, ::2, ::2, ::2].relu())
    assert out[:, 64:].abs().max() == 0
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == (out > 0).sum()


@pytest.mark.parametrize("depth, norms", [(10, 12), (50, 53)])  # stem, two or three a block, one a shortcut
def test_group_norm_in_every_block(depth: int, norms: int) -> None:
    torch.manual_seed(0)
    network = build_network(NetworkSettings(depth=depth, norm="group", dropout=0.0), False).train()
    found = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert len(found) == norms
    assert {module.num_groups for module in found} == {32}
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    scans = torch.randn(3, 4, 32, 32, 32)  # each scan is normalised by itself, in training too
    torch.testing.assert_close(network(scans).logits[1:2], network(scans[1:2]).logits, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(fold_batchnorm(network)(scans), network.eval()(scans), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("depth, cosine", [(10, False), (18, True), (50, False)])
def test_folded_network_answers_the_same(depth: int, cosine: bool) -> None:
    network = small(depth, cosine).eval()
    randomise_batchnorm(network)
    folded = fold_batchnorm(network.train())
    network.eval()
    scan = torch.randn(2, 4, 32, 32, 32)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    for mine, theirs in zip(folded(scan), network(scan), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)
