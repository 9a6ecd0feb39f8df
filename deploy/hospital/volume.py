"""A series as voxels in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """One series in space.

    Attributes:
        voxels: float32 (X, Y, Z), in the scanner's units after rescaling.
        affine: float64 (4, 4), voxel index -> mm, RAS+ (nibabel's convention).
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
