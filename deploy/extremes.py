"""Scans beyond what a patient gives, and the batches that they share with patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deploy.runtime import Array
from toolkit.config import Grid
from toolkit.data.patients import MODALITIES

NEIGHBOURS = 3  # extreme scans at most in a batch with a patient


def extreme_scans(grid: Grid) -> Iterator[tuple[str, Array]]:
    """Scans beyond what a patient gives: name and float32 (4, X, Y, Z)."""
    shape = (len(MODALITIES), *grid.shape)
    rng = np.random.default_rng(0)
    yield "zeros", np.zeros(shape, np.float32)
    yield "constant 1", np.ones(shape, np.float32)
    yield "noise to +-1000", rng.uniform(-1000, 1000, shape).astype(np.float32)
    spike = np.zeros(shape, np.float32)
    spike[:, shape[1] // 2, shape[2] // 2, shape[3] // 2] = 1000
    yield "one voxel of 1000", spike
    half = rng.standard_normal(shape, np.float32)
    half[:, : shape[1] // 2] = 0
    yield "half empty", half


class Together(NamedTuple):
    """Which scans a batch holds, in this order, by their numbers.

    Attributes:
        first: patients, who must be answered as alone.
        extremes: scans of `extreme_scans`.
        spare: patients that fill the batch.
    """

    first: list[int]
    extremes: list[int]
    spare: list[int]

    @property
    def size(self) -> int:
        """Scans in all."""
        return len(self.first) + len(self.extremes) + len(self.spare)

    def scans(self, patients: Sequence[Array], extremes: Sequence[Array]) -> Array:
        """The batch, float32 (B, 4, X, Y, Z)."""
        rows = (*(patients[k] for k in self.first), *(extremes[k] for k in self.extremes))
        return np.stack((*rows, *(patients[k] for k in self.spare)))


def together(patients: int, extremes: int, most: int, on_card: bool) -> list[Together]:
    """Batches in which every extreme scan is answered next to a patient.

    Args:
        patients: how many share batches.
        extremes: how many there are.
        most: the largest batch; if 1, nothing shares a batch.
        on_card: whether a GPU answers. There all batches have the largest size, which prediction runs: for another one
            it builds its kernels again. One more batch holds patients alone.
    """
    room = min(extremes if on_card else NEIGHBOURS, most - 1)
    batches = []
    for turn, start in enumerate(range(0, extremes, room or 1)):
        taken = list(range(start, min(start + (room or 1), extremes)))
        first = [turn % patients] if room else []
        spare = [k % patients for k in range(most - len(first) - len(taken))] if on_card else []
        batches.append(Together(first, taken, spare))
    if on_card and most > 1:
        batches.append(Together([k % patients for k in range(most)], [], []))
    return batches
