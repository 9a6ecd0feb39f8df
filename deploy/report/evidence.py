"""What moved the answer: the logit's change when a piece of the brain is replaced, and this map as a NIfTI file.

The graph's own class activation map costs nothing, but has a value per 32 voxels, each of which has seen the whole
brain; it does not point at tumours. Replacing pieces costs an inference for each, needs no gradient and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from isal import igzip

from deploy.runtime import Array, Runtime
from toolkit.data.layout import EVIDENCE_MARK
from toolkit.data.reading.header import Affine
from toolkit.files import write_file

Places: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
Brain: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

CUBE = 36.0  # mm, edge of the piece that is replaced
STEP = 24.0  # mm from one piece to the next
LEAST = 0.3  # share of a piece that has to be brain
STEPS = 1000  # of a map on the patient's own grid, on either side of 0


@dataclass(frozen=True)
class Occlusion:
    """What each piece of the brain moves.

    Attributes:
        lost: float32 (x, y, z), logits of HGG minus LGG lost when the piece shows the brain's mean.
        centres: of the pieces along each axis, in voxels of the scan.
        brain: bool (X, Y, Z), voxels of the scan.
        logit: of the whole scan, HGG minus LGG.
    """

    lost: Array
    centres: list[Places]
    brain: Brain
    logit: float

    def on_scan(self) -> Array:
        """The map on the scan's grid: float32 (X, Y, Z), 0 outside the brain."""
        return np.where(self.brain, between(self.lost, self.centres, self.brain.shape), np.float32(0))

    def on(self, affine: Affine, scan: Affine, shape: tuple[int, ...]) -> Array:
        """The map on another grid whose axes point the same way, outside the brain as well.

        Args:
            affine: (4, 4), voxel of that grid to mm.
            scan: (4, 4), voxel of the scan to mm.
            shape: of that grid.
        """
        step = np.linalg.inv(affine) @ scan  # voxel of the scan -> voxel of that grid
        centres = [step[axis, axis] * places + step[axis, 3] for axis, places in enumerate(self.centres)]
        return between(self.lost, centres, shape)


def occlusion(runtime: Runtime, scan: Array, spacing: float, batch_size: int) -> Array:
    """The map of `occlude` on the scan's grid, float32 (X, Y, Z), in logits, 0 outside the brain."""
    return occlude(runtime, scan, spacing, batch_size).on_scan()


def occlude(runtime: Runtime, scan: Array, spacing: float, batch_size: int) -> Occlusion:
    """How much each place speaks for HGG: the logit of HGG minus LGG lost when the place shows the brain's mean.

    Args:
        runtime: opened.
        scan: float32 (4, X, Y, Z), z-scores, 0 outside the brain.
        spacing: mm.
        batch_size: of every inference.

    Returns:
        For HGG where positive; linear between the pieces' centres; 0 where the network gives no number.

    Source: Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks".
    """
    shape = scan.shape[1:]
    edge, step = (max(1, round(length / spacing)) for length in (CUBE, STEP))
    brain = (scan != 0).any(axis=0)
    starts = [_starts(size, edge, step) for size in shape]
    lost = np.zeros([len(axis) for axis in starts], np.float32)
    pieces = [
        (index, piece)
        for index in product(*(range(len(axis)) for axis in starts))
        if brain[piece := _piece(starts, index, edge)].mean() >= LEAST
    ]
    batch = np.repeat(scan[None], batch_size, axis=0)  # (B, 4, X, Y, Z)
    whole = _logit(runtime, batch)[0]
    for first in range(0, len(pieces), batch_size):
        some = pieces[first : first + batch_size]
        for row, (_, piece) in zip(batch, some, strict=False):
            row[(slice(None), *piece)] = 0
        for (index, _), logit in zip(some, _logit(runtime, batch), strict=False):
            lost[index] = whole - logit if np.isfinite(logit) else 0
        for row, (_, piece) in zip(batch, some, strict=False):
            row[(slice(None), *piece)] = scan[(slice(None), *piece)]
    return Occlusion(lost, [axis + (edge - 1) / 2 for axis in starts], brain, float(whole))


def without(runtime: Runtime, scan: Array, region: Brain, batch_size: int) -> float:
    """The logit of HGG minus LGG when a region shows the brain's mean: one inference.

    Args:
        runtime: opened.
        scan: float32 (4, X, Y, Z), z-scores.
        region: bool (X, Y, Z).
        batch_size: of every inference.
    """
    row = np.where(region, np.float32(0), scan)
    return float(_logit(runtime, np.repeat(row[None], batch_size, axis=0))[0])


def between(values: Array, centres: list[Places], shape: tuple[int, ...]) -> Array:
    """Coarse values on a grid, linearly between their centres; the outermost go on.

    Args:
        values: float32 (x, y, z).
        centres: of the values along each axis, rising, in voxels of the grid.
        shape: (X, Y, Z) of the grid.

    Returns:
        float32 (X, Y, Z), same unit.
    """
    found = values
    for axis, (size, place) in enumerate(zip(shape, centres, strict=True)):
        weights = np.stack([np.interp(np.arange(size), place, row) for row in np.eye(len(place))], axis=1)
        found = np.moveaxis(np.tensordot(weights.astype(np.float32), found, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(found)


def write_evidence(path: Path, evidence: Array, affine: Affine) -> None:
    """Write a map as `.nii.gz`, whole or not at all.

    Args:
        path: the file.
        evidence: float32 (X, Y, Z).
        affine: (4, 4), voxel to mm in the patient's space.

    Raises:
        GradeError: it cannot be written.
    """
    _write(path, nib.Nifti1Image(evidence, affine))


def write_own(path: Path, evidence: Array, affine: Affine, own: Affine) -> None:
    """Write a map on the grid of the patient's own images, voxel for voxel in their order, in steps of 0.1 %.

    Args:
        path: the file.
        evidence: float32 (X, Y, Z) on that grid, axes RAS.
        affine: (4, 4), its voxels to mm.
        own: (4, 4), of the patient's file: its axes may be swapped or reversed.

    Raises:
        GradeError: it cannot be written.
    """
    slope = float(np.abs(evidence).max(initial=0)) / STEPS or 1.0
    image = nib.Nifti1Image(np.rint(evidence / slope).astype(np.int16), affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(own))
    turned = image.as_reoriented(turn)
    turned.set_sform(own)
    turned.set_qform(own)
    turned.header.set_slope_inter(slope, 0)
    _write(path, turned)


def _write(path: Path, image: nib.Nifti1Image) -> None:
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = EVIDENCE_MARK
    write_file(path, igzip.compress(image.to_bytes(), 1, mtime=0))


def _starts(size: int, edge: int, step: int) -> Places:
    """First voxel of each piece along an axis: they cover it, as far over one end as over the other."""
    count = max(1, ceil((size - edge) / step) + 1)
    first = (size - edge - step * (count - 1)) // 2
    return first + step * np.arange(count, dtype=np.float64)


def _piece(starts: list[Places], index: tuple[int, ...], edge: int) -> tuple[slice, ...]:
    firsts = (int(axis[i]) for axis, i in zip(starts, index, strict=True))
    return tuple(slice(max(first, 0), first + edge) for first in firsts)


def _logit(runtime: Runtime, batch: Array) -> Array:
    logit: Array = runtime.infer(batch).logit.astype(np.float32)
    return logit
