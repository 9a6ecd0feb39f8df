"""The scans of a cohort as one tensor, kept where the training can reach it fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolkit.data.cache import Scan, voxels_of
from toolkit.data.patients import Cohort
from toolkit.errors import RunError
from toolkit.training.loop.compute import Compute

# Of the GPU's free memory; the rest is for the network, its gradients and its activations.
RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class TrainingData:
    """A cohort and its preprocessed scans.

    Attributes:
        cohort: N patients and their grades.
        scans: N arrays, float32 (4, X, Y, Z), all of one shape, or entries of the cache.
    """

    cohort: Cohort
    scans: Sequence[Scan]


class ScanStore:
    """Scans as one tensor (N, 4, X, Y, Z): on the GPU when it fits there, else in the host's memory.

    On a GPU with mixed precision the tensor is float16, which holds a z-score to three decimals; else it is float32.

    Attributes:
        resident: whether the tensor is on the device that computes.
        gigabytes: its size.
    """

    def __init__(self, scans: Sequence[Scan], compute: Compute) -> None:
        shapes = {scan.shape for scan in scans}
        if len(shapes) != 1:
            raise RunError(f"scans of one training need one shape; found {sorted(shapes)}: empty the cache.")
        shape = (len(scans), *shapes.pop())  # (N, 4, X, Y, Z)
        dtype = torch.float16 if compute.on_gpu and compute.amp is not None else torch.float32
        size = math.prod(shape) * dtype.itemsize
        self._device = compute.device
        self.gigabytes = size / 1e9
        self.resident = not compute.on_gpu or size <= RESIDENT_SHARE * torch.cuda.mem_get_info(compute.device)[0]
        place = compute.device if self.resident else torch.device("cpu")
        # Pinned memory is copied to the GPU without waiting.
        self._scans = torch.empty(shape, dtype=dtype, device=place, pin_memory=not self.resident)
        for i, scan in enumerate(scans):
            self._scans[i] = torch.from_numpy(np.array(voxels_of(scan), np.float32))

    def __len__(self) -> int:
        return len(self._scans)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of each scan: (4, X, Y, Z)."""
        modalities, x, y, z = self._scans.shape[1:]
        return modalities, x, y, z

    def gather(self, indices: Tensor) -> Tensor:
        """Some scans, copied.

        Args:
            indices: (B,) int64 on the CPU.

        Returns:
            (B, 4, X, Y, Z) float32 on the device that computes.
        """
        if self.resident:
            return self._scans[indices.to(self._device, non_blocking=True)].float()
        batch = torch.empty((len(indices), *self._scans.shape[1:]), dtype=self._scans.dtype, device=self._device)
        for row, i in enumerate(indices.tolist()):
            batch[row].copy_(self._scans[i], non_blocking=True)
        return batch.float()
