from __future__ import annotations

import pytest
import torch

from toolkit.training.loop.intensity import change_intensity, random_intensity


def test_by_hand() -> None:
    """Two modalities of one scan: each has its own factor and offset, and what is outside the brain stays 0."""
    scans = torch.tensor([[[0.0, 1.0, -2.0], [0.0, 0.5, 3.0]]])[..., None, None]
    found = change_intensity(scans, torch.tensor([[[1.2, 0.1], [0.8, -0.2]]]))[0, :, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.3, -2.3], [0.0, 0.2, 2.2]]))


def test_draws_are_within_the_limit_and_differ() -> None:
    drawn = random_intensity(500, 4, 0.25, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 4, 2)
    for values, middle in zip(drawn.unbind(-1), (1.0, 0.0), strict=True):
        assert (values - middle).abs().max() <= 0.25
        assert float(values.mean()) == pytest.approx(middle, abs=0.02)
        assert float(values.std()) == pytest.approx(0.25 / 3**0.5, rel=0.1)
    assert len(drawn.unique()) > 3900  # each modality of each scan has its own


def test_a_wider_spread_in_the_mask_is_one_of_them() -> None:
    """What a few voxels of fluid at the edge of a mask do to a brain's z-scores is a factor and an offset."""
    brain = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    fluid = torch.full((100,), 4.0)
    before = (brain - brain.mean()) / brain.std(correction=0)
    both = torch.cat([brain.flatten(), fluid])
    after = (brain - both.mean()) / both.std(correction=0)
    factor = brain.std(correction=0) / both.std(correction=0)
    offset = (brain.mean() - both.mean()) / both.std(correction=0)
    torch.testing.assert_close(change_intensity(before, torch.stack([factor, offset])[None, None]), after)
