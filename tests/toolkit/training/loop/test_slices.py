from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.training.loop.slices import random_slices, thicken


def brains(*size: int) -> Tensor:
    """(2, 4, X, Y, Z) z-scores with a rim of background."""
    scans = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    for axis, count in enumerate(size):
        rim = torch.tensor([0, 1, count - 2, count - 1])
        scans.index_fill_(2 + axis, rim, 0.0)
    return scans


def slices(axis: int, thickness: float, phase: float) -> Tensor:
    return torch.tensor([float(axis), thickness, phase]).expand(2, 4, 3).contiguous()


def roughness(scans: Tensor, axis: int) -> float:
    """Mean square of the step from a voxel of the brain to the next."""
    one, other = (scans.narrow(2 + axis, start, scans.shape[2 + axis] - 1) for start in (0, 1))
    both = (one != 0) & (other != 0)
    return float((one - other)[both].square().mean())


def test_two_voxels_by_hand() -> None:
    """Slices of voxels 2-3, 4-5 and 6-7: each is their mean, and between slices the step is a straight line."""
    scans = torch.zeros(1, 1, 1, 1, 10)
    scans[..., 2:8] = torch.tensor([1.0, 3.0, -2.0, 2.0, 5.0, -7.0])  # means 2, 0 and -1
    found = thicken(scans, torch.tensor([[[2.0, 2.0, 0.25]]]))[0, 0, 0, 0]
    line = torch.tensor([1.5, 1.5, 0.5, -0.25, -0.75, -0.75])  # a quarter and three quarters of the way
    brain = scans[..., 2:8].flatten()
    expected = (line - line.mean()) / line.std(correction=0) * brain.std(correction=0) + brain.mean()
    torch.testing.assert_close(found[2:8], expected)
    assert (found[:2] == 0).all()
    assert (found[8:] == 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_axis_of_the_slices_is_blurred(axis: int) -> None:
    scans = brains(24, 20, 22)
    found = thicken(scans, slices(axis, 4.0, 0.3))
    for other in range(3):
        assert roughness(found, other) / roughness(scans, other) == pytest.approx(1, abs=0.1) or other == axis
    assert roughness(found, axis) < 0.5 * roughness(scans, axis)


def test_brain_keeps_its_moments_and_background_stays() -> None:
    scans = brains(24, 20, 22) + 0.0
    found = thicken(scans, slices(1, 3.5, 0.6))
    inside = scans != 0
    assert (found[~inside] == 0).all()
    assert found[inside].mean() == pytest.approx(scans[inside].mean().item(), abs=1e-5)
    assert found[inside].std() == pytest.approx(scans[inside].std().item(), abs=1e-3)


def test_each_modality_has_its_own_slices() -> None:
    scans = brains(16, 16, 16)
    drawn = slices(0, 3.0, 0.0)
    drawn[0, 1, 1] = 0.9  # thinner than a voxel
    found = thicken(scans, drawn)
    same = [[torch.equal(found[i, j], scans[i, j]) for j in range(4)] for i in range(2)]
    assert same == [[False, True, False, False], [False] * 4]


def test_missing_modality_stays_missing() -> None:
    scans = brains(16, 16, 16)
    scans[:, 2] = 0
    found = thicken(scans, slices(2, 3.0, 0.1))
    assert (found[:, 2] == 0).all()
    assert torch.isfinite(found).all()


def test_draws_reach_their_limits() -> None:
    axis, thickness, phase = random_slices(500, 4, 4.0, torch.Generator().manual_seed(0)).unbind(-1)
    assert torch.bincount(axis.flatten().long()).min() > 600  # each about 667
    for values, largest in ((thickness, 4.0), (phase, 1.0)):
        assert 0 <= values.min() < 0.01 * largest
        assert 0.99 * largest < values.max() <= largest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_slices_as_the_cpu_does() -> None:
    scans, drawn = brains(24, 20, 22), random_slices(2, 4, 4.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(thicken(scans.cuda(), drawn.cuda()).cpu(), thicken(scans, drawn), atol=1e-4, rtol=1e-4)
