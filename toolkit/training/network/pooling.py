"""Pooling that adds up its gradient in a fixed order, on a GPU too.

For the max pooling, 3 x 3 x 3 with stride 2, cuDNN and torch add up the gradient of overlapping windows in no fixed
order on a GPU. Elementwise maxima have no such sum. Where voxels of a window are equal they share the gradient, which
torch's pooling gives to the first; after a ReLU equal voxels are 0, and pass no gradient on.
"""

from __future__ import annotations

import torch
from torch import Tensor, maximum, nn
from torch.nn import functional

_FIRST = 2  # axis of X in (B, C, X, Y, Z)


def max_pool(pooling: nn.MaxPool3d, x: Tensor) -> Tensor:
    """What a max pooling of 3 x 3 x 3 windows with stride 2 answers, its gradient as exact as the training asks for.

    Args:
        pooling: with padding 1, or with none and a last window that may reach out.
        x: (B, C, X, Y, Z).
    """
    if x.is_cuda and x.requires_grad and torch.are_deterministic_algorithms_enabled():
        return pool(x, before=0 if pooling.ceil_mode else 1)
    return pooling(x)  # type: ignore[no-any-return]


def pool(x: Tensor, before: int = 1) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C, X/2, Y/2, Z/2).

    Args:
        x: with a floating type.
        before: 1: what `MaxPool3d(3, stride=2, padding=1)` answers, sizes rounded up. 0: `MaxPool3d(3, stride=2,
            ceil_mode=True)`, sizes rounded down, from 2 voxels on.
    """
    for axis in range(_FIRST, _FIRST + 3):
        x = _pool_axis(x, axis, before)
    return x


def halve(x: Tensor) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C, X/2, Y/2, Z/2), rounded down: what `AvgPool3d(2)` answers."""
    half = [size // 2 for size in x.shape[_FIRST:]]
    x = x[:, :, : 2 * half[0], : 2 * half[1], : 2 * half[2]]
    parts = x.reshape(*x.shape[:_FIRST], half[0], 2, half[1], 2, half[2], 2)
    return parts.mean(dim=(3, 5, 7))


def _pool_axis(x: Tensor, axis: int, before: int) -> Tensor:
    size = x.shape[axis]
    half = (size + before) // 2
    whole = (slice(None),) * axis
    ends = x[(*whole, slice(before, None, 2))]
    padding = [0, 0] * (x.ndim - axis - 1) + [before, half + 1 - before - ends.shape[axis]]  # the last axis first
    ends = functional.pad(ends, padding, value=float("-inf"))  # half + 1: the windows' ends
    ends = maximum(ends[(*whole, slice(None, -1))], ends[(*whole, slice(1, None))])
    return maximum(ends, x[(*whole, slice(1 - before, None, 2))])
