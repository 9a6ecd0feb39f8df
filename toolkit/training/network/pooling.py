"""The network's max pooling, 3 x 3 x 3 with stride 2, from elementwise maxima.

cuDNN and torch add up the gradient of overlapping windows in no fixed order on a GPU. Elementwise maxima have no such
sum. Where voxels of a window are equal they share the gradient, which torch's pooling gives to the first; after a ReLU
equal voxels are 0, and pass no gradient on.
"""

from __future__ import annotations

from torch import Tensor, maximum
from torch.nn import functional

_FIRST = 2  # axis of X in (B, C, X, Y, Z)


def pool(x: Tensor) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C, X/2, Y/2, Z/2), rounded up: what `MaxPool3d(3, stride=2, padding=1)` answers."""
    for axis in range(_FIRST, _FIRST + 3):
        x = _pool_axis(x, axis)
    return x


def _pool_axis(x: Tensor, axis: int) -> Tensor:
    size = x.shape[axis]
    half = (size + 1) // 2
    whole = (slice(None),) * axis
    padding = [0, 0] * (x.ndim - axis - 1) + [1, half - size // 2]  # the last axis first
    odd = functional.pad(x[(*whole, slice(1, None, 2))], padding, value=float("-inf"))  # half + 1: the windows' ends
    ends = maximum(odd[(*whole, slice(None, -1))], odd[(*whole, slice(1, None))])
    return maximum(ends, x[(*whole, slice(None, None, 2))])
