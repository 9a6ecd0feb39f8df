"""The pooling from elementwise maxima against torch's own."""

from __future__ import annotations

import pytest
import torch

from toolkit.training.network.pooling import halve, max_pool, pool


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 4, 3), (8, 8, 8)])
def test_it_answers_and_derives_as_torch_does(shape: tuple[int, int, int], before: int) -> None:
    torch.manual_seed(0)
    mine = torch.randn(2, 3, *shape, dtype=torch.float64).relu().requires_grad_()
    other = mine.detach().clone().requires_grad_()
    expected = torch.nn.functional.max_pool3d(other.relu(), 3, stride=2, padding=before, ceil_mode=not before)
    answer = pool(mine.relu(), before)
    assert torch.equal(answer, expected)
    weight = torch.randn_like(expected)
    (answer * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 3, 8)])
def test_halving_answers_and_derives_as_torch_does(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    mine = torch.randn(2, 3, *shape, dtype=torch.float64).requires_grad_()
    other = mine.detach().clone().requires_grad_()
    expected = torch.nn.functional.avg_pool3d(other, 2)
    torch.testing.assert_close(halve(mine), expected)
    (halve(mine) ** 2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)


def test_on_a_cpu_torch_pools_itself() -> None:
    x = torch.randn(1, 2, 6, 7, 8)
    for pooling in (torch.nn.MaxPool3d(3, 2, 1), torch.nn.MaxPool3d(3, 2, ceil_mode=True)):
        assert torch.equal(max_pool(pooling, x), pooling(x))


def test_negative_values_are_pooled_too() -> None:
    x = -torch.arange(1.0, 8).reshape(1, 1, 7, 1, 1)
    assert pool(x).flatten().tolist() == [-1, -2, -4, -6]


def test_channels_stay_last_in_memory() -> None:
    x = torch.randn(2, 8, 6, 6, 6).to(memory_format=torch.channels_last_3d)
    assert pool(x).is_contiguous(memory_format=torch.channels_last_3d)
