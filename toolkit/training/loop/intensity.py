"""Contrast and brightness of each modality, drawn at random: scanners differ in both, even after a z-score."""

from __future__ import annotations

import torch
from torch import Tensor


def random_intensity(count: int, modalities: int, limit: float, generator: torch.Generator) -> Tensor:
    """How the numbers of each modality of each scan are changed, at random, for `change_intensity`.

    Args:
        count: scans.
        modalities: of each scan.
        limit: largest change of the contrast, as a share, and of the brightness, in standard deviations; 0 to 1.
        generator: on the CPU.

    Returns:
        (count, modalities, 2) float32 on the CPU: factor 1 - limit to 1 + limit, offset -limit to limit.
    """
    drawn = (2 * torch.rand(count, modalities, 2, generator=generator) - 1) * limit
    return drawn + torch.tensor([1.0, 0.0])


def change_intensity(scans: Tensor, intensity: Tensor) -> Tensor:
    """Scale and shift each modality inside the brain; the background stays 0.

    Args:
        scans: (B, C, X, Y, Z) float32 z-scores, 0 outside the brain.
        intensity: (B, C, 2) on the same device, as `random_intensity` gives it.

    Returns:
        (B, C, X, Y, Z) float32.

    Source: brightness and contrast augmentation of nnU-Net (Isensee et al. 2021), uniform and drawn for each modality.
    """
    factor, offset = intensity[..., None, None, None].unbind(2)  # each (B, C, 1, 1, 1)
    return torch.where(scans != 0, scans * factor + offset, 0.0)
