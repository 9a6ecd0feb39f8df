"""Rotation, zoom, translation and flip as one batched affine, on the device of the scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.config import AugmentSettings


class Pose(NamedTuple):
    """How each scan of a batch is moved; float32 on the CPU.

    Attributes:
        rotation: (B, 3) radians about the axes right, anterior, superior, applied in this order.
        zoom: (B,) factor, above 1 enlarges.
        translation: (B, 3) share of each axis, applied last.
        flip: (B,) bool, left-right, applied first.
    """

    rotation: Tensor
    zoom: Tensor
    translation: Tensor
    flip: Tensor


def random_matrix(count: int, size: Sequence[int], settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """How each scan is moved, at random, for `warp`.

    Args:
        count: scans.
        size: (X, Y, Z) voxels; RAS axes, isotropic voxels.
        settings: limits of the uniform draws.
        generator: on the CPU, so that every device sees the same sequence.

    Returns:
        (count, 3, 4) float32 on the CPU.
    """
    return sampling_matrix(draw_pose(count, settings, generator), torch.tensor(size, dtype=torch.float32))


def random_kept(count: int, modalities: int, share: float, generator: torch.Generator) -> Tensor:
    """In a share of the scans one modality, drawn at random, is left out.

    Args:
        count: scans.
        modalities: of each scan.
        share: chance of each scan, 0 to 1; at 0 nothing is drawn.
        generator: on the CPU.

    Returns:
        (count, modalities) float32 on the CPU: factors, 0 on what is left out and 1 on the rest.
    """
    if not share:
        return torch.ones(count, modalities)
    dropped = torch.randint(modalities, (count,), generator=generator)  # (B,)
    dropped[torch.rand(count, generator=generator) >= share] = modalities  # none of them
    return (dropped[:, None] != torch.arange(modalities)).float()


def draw_pose(count: int, settings: AugmentSettings, generator: torch.Generator) -> Pose:
    """Uniform draws within the limits, for `count` scans."""
    uniform = 2 * torch.rand(count, 7, generator=generator) - 1  # (B, 7) in -1..1
    coin = torch.rand(count, generator=generator) < 0.5
    return Pose(
        rotation=uniform[:, :3] * math.radians(settings.rotation),
        zoom=1 + uniform[:, 3] * settings.zoom,
        translation=uniform[:, 4:] * settings.translation,
        flip=coin & settings.flips,
    )


def sampling_matrix(pose: Pose, size: Tensor) -> Tensor:
    """From voxels of the output to voxels of the input, both counted from the centre of the grid.

    Args:
        pose: of B scans.
        size: (3,) voxels along each axis; isotropic, so that a rotation is rigid.

    Returns:
        (B, 3, 4) float32, linear part and offset.
    """
    turn = _rotation(pose.rotation)
    mirror = torch.ones_like(pose.translation)  # (B, 3)
    mirror[:, 0] = torch.where(pose.flip, -1.0, 1.0)
    # output = zoom * turn @ mirror @ input + shift, solved for the input
    linear = mirror[:, :, None] * turn.transpose(1, 2) / pose.zoom[:, None, None]  # (B, 3, 3)
    shift = pose.translation * size  # (B, 3) voxels
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def warp(scans: Tensor, matrix: Tensor) -> Tensor:
    """Sample scans through affine maps, trilinearly, zero outside.

    Args:
        scans: (B, C, X, Y, Z) float32.
        matrix: (B, 3, 4) on the same device, as `sampling_matrix` gives it.

    Returns:
        (B, C, X, Y, Z) float32.
    """
    # Filled on the device: a CUDA graph may copy nothing from the host.
    half = torch.stack([torch.full((), size / 2, device=scans.device) for size in scans.shape[2:]])  # (3,)
    # torch counts -1..1 from edge to edge of each axis, the last axis first.
    linear = matrix[:, :, :3] * half / half[:, None]  # (B, 3, 3)
    theta = torch.cat([linear.flip(1, 2), (matrix[:, :, 3:] / half[:, None]).flip(1)], dim=2)  # (B, 3, 4)
    grid = functional.affine_grid(theta, list(scans.shape), align_corners=False)  # (B, X, Y, Z, 3)
    return functional.grid_sample(scans, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _rotation(angles: Tensor) -> Tensor:
    """(B, 3) radians about the three axes -> (B, 3, 3), the first axis applied first, each right-handed."""
    turn = torch.eye(3).repeat(len(angles), 1, 1)
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        single = torch.eye(3).repeat(len(angles), 1, 1)
        single[:, i, i], single[:, i, j] = cos, -sin
        single[:, j, i], single[:, j, j] = sin, cos
        turn = single @ turn
    return turn
