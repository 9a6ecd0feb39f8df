"""Linear resampling with antialiasing onto an axis-aligned grid: three small matrices, one for each axis.

Linear interpolation onto a grid parallel to the source is separable, so this is exact, not an approximation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]


def interpolation_matrix(size: int, edge: float, out_size: int, out_edge: float) -> Array:
    """Weights that carry one axis onto another with the same centre.

    A triangle of half-width max(edge, out_edge) around each target voxel: plain linear interpolation when the grid gets
    finer, an antialiased one when it gets coarser. Outside the source is zero, so weights that fall there are lost.

    Args:
        size: voxels of the source.
        edge: their edge, mm.
        out_size: voxels of the target.
        out_edge: their edge, mm.

    Returns:
        float32 (out_size, size); rows that lie wholly inside sum to 1.

    Source: the triangle ("bilinear") filter with antialiasing of Pillow and torch.nn.functional.interpolate.
    """
    scale = out_edge / edge
    width = max(1.0, scale)
    centres = (size - 1) / 2 + (np.arange(out_size) - (out_size - 1) / 2) * scale  # in source voxels
    reach = int(np.ceil(width)) + 1
    around = np.round(centres)[:, None] + np.arange(-reach, reach + 1)  # (out_size, taps)
    weights = np.maximum(0.0, 1.0 - np.abs(around - centres[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((out_size, size))
    inside = (around >= 0) & (around < size)
    rows = np.broadcast_to(np.arange(out_size)[:, None], around.shape)
    matrix[rows[inside], around[inside].astype(int)] = weights[inside]
    return matrix.astype(np.float32)


def resample(volume: Array, matrices: Sequence[Array]) -> Array:
    """Apply one matrix to each axis.

    Args:
        volume: float32 (X, Y, Z), any memory order.
        matrices: for each axis (out, in), from `interpolation_matrix`.

    Returns:
        float32 (X', Y', Z'), any memory order.
    """
    order = np.argsort([-abs(stride) for stride in volume.strides], kind="stable")
    slow, middle, fast = (matrices[axis] for axis in order)
    block = volume.transpose(order)  # (slow, middle, fast), contiguous: no product below copies
    block = _rows_by(slow, block.reshape(block.shape[0], -1)).reshape(len(slow), *block.shape[1:])
    block = _rows_by(middle, block)
    block = _columns_by(fast, block.reshape(-1, block.shape[2])).reshape(len(slow), len(middle), len(fast))
    return block.transpose(np.argsort(order))


def _rows_by(matrix: Array, block: Array) -> Array:
    """Product matrix @ block over the last two axes, skipping the zeros beside the matrix's diagonal band."""
    out = np.empty((*block.shape[:-2], len(matrix), block.shape[-1]), np.float32)
    for rows, columns in _bands(matrix):
        np.matmul(matrix[rows, columns], block[..., columns, :], out=out[..., rows, :])
    return out


def _columns_by(matrix: Array, block: Array) -> Array:
    """Product block @ matrix.T, likewise."""
    out = np.empty((len(block), len(matrix)), np.float32)
    for rows, columns in _bands(matrix):
        np.matmul(block[:, columns], matrix[rows, columns].T, out=out[:, rows])
    return out


def _bands(matrix: Array, height: int = 16) -> Iterator[tuple[slice, slice]]:
    """Groups of rows with the columns where any of them is not zero; 16 rows measured fastest on AVX2."""
    for start in range(0, len(matrix), height):
        rows = slice(start, start + height)
        used = np.flatnonzero(matrix[rows].any(axis=0))
        yield rows, slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
