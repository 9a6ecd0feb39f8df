"""The network's first convolution, 7 x 7 x 7 with stride 2, over blocks of 2 x 2 x 2 voxels.

Tensor cores want many channels, and a scan has four. The eight voxels of a block, taken as channels, make 32 of them,
and the same convolution one of 4 x 4 x 4 blocks with stride 1. That is half as much arithmetic again, and on an H200 in
fp16 it takes a third of the time; on a CPU it takes longer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

_SIZE, _STRIDE = 7, 2
_BEFORE, _AFTER = 2, 1  # blocks of background that the first and the last output see


def takes_blocks(conv: nn.Module) -> bool:
    """Whether a module is the convolution that this file is about."""
    return isinstance(conv, nn.Conv3d) and conv.kernel_size == (_SIZE,) * 3 and conv.stride == (_STRIDE,) * 3


def convolve_stem(conv: nn.Module, scan: Tensor) -> Tensor:
    """What a network's first convolution answers (B, F, X', Y', Z'), by blocks where they are faster."""
    if scan.is_cuda and takes_blocks(conv):
        return convolve_blocks(scan, block_weight(conv.weight), conv.bias)  # type: ignore[arg-type]
    return conv(scan)  # type: ignore[no-any-return]


def to_blocks(scan: Tensor) -> Tensor:
    """(B, C, X, Y, Z) -> (B, 8 C, X/2, Y/2, Z/2), rounded up; channels last in memory."""
    odd = [size % 2 for size in scan.shape[2:]]
    if any(odd):  # a plane of background, as the convolution's own padding
        scan = functional.pad(scan, (0, odd[2], 0, odd[1], 0, odd[0]))
    channels, x, y, z = scan.shape[1], *(size // 2 for size in scan.shape[2:])
    parts = scan.reshape(-1, channels, x, 2, y, 2, z, 2).permute(0, 2, 4, 6, 3, 5, 7, 1)  # (B, x, y, z, 2, 2, 2, C)
    return parts.reshape(-1, x, y, z, 8 * channels).permute(0, 4, 1, 2, 3)


def block_weight(weight: Tensor) -> Tensor:
    """The weight (F, C, 7, 7, 7) of a convolution of voxels as that (F, 8 C, 4, 4, 4) of one of blocks."""
    even = functional.pad(weight, (1, 0) * 3)  # (F, C, 8, 8, 8)
    parts = even.reshape(*weight.shape[:2], 4, 2, 4, 2, 4, 2)
    return parts.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(weight.shape[0], -1, 4, 4, 4)


def convolve_blocks(scan: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the convolution of the voxels answers.

    Args:
        scan: (B, C, X, Y, Z).
        weight: (F, 8 C, 4, 4, 4), of `block_weight`.
        bias: (F,).

    Returns:
        (B, F, X/2, Y/2, Z/2), rounded up.
    """
    return functional.conv3d(functional.pad(to_blocks(scan), (_BEFORE, _AFTER) * 3), weight, bias)


def block_padding() -> tuple[int, ...]:
    """Blocks of background around the scan: before it on each axis, then after it on each."""
    return (_BEFORE,) * 3 + (_AFTER,) * 3
