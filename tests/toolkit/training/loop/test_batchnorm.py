from __future__ import annotations

import copy

import pytest
import torch

from toolkit.config import NetworkSettings
from toolkit.training.loop.batchnorm import RunningStatistics, freeze_statistics
from toolkit.training.network.network import GradeNet, build_network


def small() -> GradeNet:
    torch.manual_seed(0)
    return build_network(NetworkSettings(depth=10), False)


def test_frozen_statistics_stay() -> None:
    network = small().train()
    freeze_statistics(network)
    scan = torch.randn(2, 4, 32, 32, 32)
    network(scan)
    assert torch.equal(network.backbone.bn1.running_mean, torch.zeros(64))
    network.train()(scan)
    assert not torch.equal(network.backbone.bn1.running_mean, torch.zeros(64))


@pytest.mark.parametrize("owners", [(0, 1), (0, 0, 1), (0, 1, 1, 2), (1, 1)])
def test_several_ranks_end_where_one_would(owners: tuple[int, ...]) -> None:
    """Batches are dealt to ranks, each of which starts from the same network; a rank may get none."""
    alone = small().train()
    scans = torch.rand(3, 4, 16, 16, 16)
    alone(scans)
    networks = [copy.deepcopy(alone) for _ in range(max(owners) + 1)]
    batches = [scale * torch.rand(2, 4, 16, 16, 16) for scale in range(1, len(owners) + 1)]
    for batch in batches:
        alone(batch)
    kept = [RunningStatistics(network, [owner == rank for owner in owners]) for rank, network in enumerate(networks)]
    for owner, batch in zip(owners, batches, strict=True):
        networks[owner](batch)
    total = torch.stack([one.contribution() for one in kept]).sum(0)
    for one in kept:
        one.put(total)
    for network in networks:
        for (name, mine), expected in zip(network.named_buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_frozen_statistics_need_no_putting_together() -> None:
    network = small().train()
    freeze_statistics(network)
    statistics = RunningStatistics(network, [True])
    assert statistics.contribution().shape == (0,)
    statistics.put(torch.zeros(0))
