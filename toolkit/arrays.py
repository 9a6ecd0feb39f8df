"""Types of the arrays that several files speak of; the shape is said where each is used."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Int64: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Voxels: TypeAlias = np.ndarray[Any, np.dtype[Any]]  # of any type that a file may hold
