"""The pooling from elementwise maxima against torch's own."""

from __future__ import annotations

import pytest
import torch

from toolkit.training.network.pooling import pool


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 2, 3), (8, 8, 8)])
def test_it_answers_and_derives_as_torch_does(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    mine = torch.randn(2, 3, *shape, dtype=torch.float64).relu().requires_grad_()
    other = mine.detach().clone().requires_grad_()
    expected = torch.nn.functional.max_pool3d(other.relu(), 3, stride=2, padding=1)
    answer = pool(mine.relu())
    assert torch.equal(answer, expected)
    weight = torch.randn_like(expected)
    (answer * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)


def test_negative_values_are_pooled_too() -> None:
    x = -torch.arange(1.0, 8).reshape(1, 1, 7, 1, 1)
    assert pool(x).flatten().tolist() == [-1, -2, -4, -6]


def test_channels_stay_last_in_memory() -> None:
    x = torch.randn(2, 8, 6, 6, 6).to(memory_format=torch.channels_last_3d)
    assert pool(x).is_contiguous(memory_format=torch.channels_last_3d)
