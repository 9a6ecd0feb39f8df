"""Thick slices: each modality of a scan as a scanner would have it whose slices are thick along one axis.

A network that has seen sharp images alone changes its mind about the same brain from slices of 5 mm.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_slices(count: int, modalities: int, thickest: float, generator: torch.Generator) -> Tensor:
    """How each modality of each scan is sliced, at random, for `thicken`.

    Args:
        count: scans.
        modalities: of each scan.
        thickest: voxels; the thickness is uniform from 0 to this.
        generator: on the CPU.

    Returns:
        (count, modalities, 3) float32 on the CPU: axis 0 to 2, thickness in voxels, and where the first slice begins
        as a share of the thickness.
    """
    axis = torch.randint(3, (count, modalities), generator=generator).float()
    thickness, phase = torch.rand(2, count, modalities, generator=generator)
    return torch.stack([axis, thickness * thickest, phase], dim=-1)


def thicken(scans: Tensor, slices: Tensor) -> Tensor:
    """Average each modality over its slices, then interpolate linearly between these back onto the grid.

    The background stays 0, and the brain keeps the mean and the spread that its z-scores had. A slice thinner than a
    voxel changes nothing.

    Args:
        scans: (B, C, X, Y, Z) float32, 0 outside the brain.
        slices: (B, C, 3) on the same device, as `random_slices` gives it.

    Returns:
        (B, C, X, Y, Z) float32.

    Source: random anisotropy of TorchIO (Perez-Garcia et al. 2021), with slices that average over their thickness.
    """
    inside = scans != 0
    axis, thickness, phase = slices.unbind(-1)  # each (B, C)
    blurred = scans
    for number, size in enumerate(scans.shape[2:]):
        here = (axis == number) & (thickness > 1)
        profile = _profile(size, thickness.clamp(min=1), phase)  # (B, C, n, n)
        same = torch.eye(size, device=scans.device)
        weights = torch.where(here[:, :, None, None], profile, same)
        moved = blurred.movedim(2 + number, 2)  # (B, C, n, ., .)
        blurred = (weights @ moved.flatten(3)).reshape(moved.shape).movedim(2, 2 + number)
    mean, spread = _moments(scans, inside)
    found, width = _moments(blurred, inside)
    thick = torch.where(inside, (blurred - found) * (spread / width.clamp(min=1e-6)) + mean, 0.0)
    return torch.where((thickness > 1)[:, :, None, None, None], thick, scans)


def _profile(size: int, thickness: Tensor, phase: Tensor) -> Tensor:
    """(B, C, size, size): what each voxel of an axis gets from the voxels of that axis.

    Args:
        size: voxels of the axis.
        thickness: (B, C) voxels, at least 1.
        phase: (B, C), share of the thickness.
    """
    voxels = torch.arange(size, device=thickness.device, dtype=torch.float32)
    thick, begins = thickness[:, :, None], phase[:, :, None]
    place = voxels / thick - begins  # (B, C, n) in slices
    lower = place.floor()
    upper_share = place - lower
    total = torch.zeros(*thickness.shape, size, size, device=thickness.device)
    for number, share in ((lower, 1 - upper_share), (lower + 1, upper_share)):
        centre = ((number + begins) * thick)[..., None]  # (B, C, n, 1) voxels
        reach = thick[..., None] / 2
        overlap = torch.minimum(voxels + 0.5, centre + reach) - torch.maximum(voxels - 0.5, centre - reach)
        total = total + share[..., None] * overlap.clamp(min=0) / thick[..., None]
    return total


def _moments(scans: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation inside the brain, each (B, C, 1, 1, 1)."""
    count = inside.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)
    mean = (scans * inside).sum(dim=(2, 3, 4), keepdim=True) / count
    spread = (((scans - mean) * inside).square().sum(dim=(2, 3, 4), keepdim=True) / count).sqrt()
    return mean, spread
