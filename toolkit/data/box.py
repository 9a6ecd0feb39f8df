"""Checked images as a graphics card takes them: what `scan.py` resamples and z-scores on a processor, before it does.

Ordinary images alone: whatever needs care in float32 is left to `scan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.arrays import Float32, Mask, Voxels
from toolkit.config import Grid
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.reading.door import PLAINLY, Images, Reading, open_patient
from toolkit.data.reading.voxels import above_background
from toolkit.data.resample import MemoryOrder
from toolkit.data.scan import Scan, describe, eroded, make_scan, matrices_of

LARGEST = 64 << 20  # bytes of voxels; a larger box costs more to hand over than to finish
FEWEST = 8  # voxels of the grid, of brain
ORDINARY = (1e-10, 1e12)  # standard deviations whose squares float32 sums with its full precision
SPREAD = 0.05  # standard deviation over mean, at least
STEP = 4  # voxels from one to the next that these two are judged by
_SAMPLE = (slice(None, None, STEP),) * 3
_SMALL = (np.int16, np.int8, np.uint8)


@dataclass(frozen=True)
class Box:
    """The brain's box of a patient, axes up, front, right.

    Attributes:
        voxels: int16 or float32 (4, Z, Y, X), differences to the background, 0 where a modality is missing; channels as
            `MODALITIES`.
        mask: bool (Z, Y, X), voxels of the brain; outside it all voxels are 0.
        matrices: that carry X, Y and Z onto the grid, float32 (out, in).
        signs: float32 (4,), signs of the headers' slopes; 0 for a modality that is missing.
    """

    voxels: Voxels
    mask: Mask
    matrices: tuple[Float32, Float32, Float32]
    signs: Float32


def read_box(patient: Patient, grid: Grid, how: Reading = PLAINLY) -> tuple[Scan, Box | None]:
    """Read and check one patient, and leave the preprocessing to the card if it can do it.

    Args:
        patient: whose files to read.
        grid: spacing in mm and shape in voxels of the scan.
        how: see there.

    Returns:
        The scan, whose `data` is empty where there is a box to make it of; else as from `read_scan`, and None.

    Raises:
        PatientRefused: as `read_scan`.
    """
    workspace = how.workspace or Workspace()
    images = open_patient(patient, how._replace(workspace=workspace))
    box = box_of(images, grid, workspace)
    if box is None:
        return make_scan(images, grid, workspace), None
    return describe(images, grid, np.empty(0, np.float32)), box


def box_of(images: Images, grid: Grid, workspace: Workspace) -> Box | None:
    """The box of checked images; None where the card might compute something else than `make_scan`."""
    there = [name for name in MODALITIES if name != images.missing]
    small = all(images.voxels[name].dtype in _SMALL and images.background[name] == 0 for name in there)
    dtype = np.dtype(np.int16 if small else np.float32)
    tiny = images.brain_ml * 1000 < FEWEST * grid.spacing**3  # and perhaps nowhere brain enough for a voxel of the grid
    if tiny or len(MODALITIES) * images.mask.size * dtype.itemsize > LARGEST:
        return None
    flips = MemoryOrder.of(images.mask).flips  # turned round, voxels are copied along memory, and matrices with them
    size = images.mask.shape[::-1]
    voxels = workspace.out((len(MODALITIES), *size), dtype)  # (4, Z, Y, X)
    mask = workspace.out(size, np.bool_)
    mask[...] = images.mask[flips].transpose()
    coarse = mask[_SAMPLE]
    deep = eroded(np.pad(coarse, 1), 1)[1:-1, 1:-1, 1:-1]  # the box ends where the brain does
    sample = deep if deep.any() else coarse
    if not sample.any():
        return None
    for channel, name in enumerate(MODALITIES):
        if name == images.missing:
            voxels[channel] = 0
        else:
            _copy(images.voxels[name][flips].transpose(), images.background[name], voxels[channel])
            if not _ordinary(voxels[channel][_SAMPLE][sample]):
                return None
    x, y, z = (np.ascontiguousarray(m[:, flip]) for m, flip in zip(matrices_of(images, grid), flips, strict=True))
    signs = [0.0 if name == images.missing else np.sign(images.slopes[name]) for name in MODALITIES]
    return Box(voxels, mask, (x, y, z), np.array(signs, np.float32))


def _copy(stored: Voxels, background: float, out: Voxels) -> None:
    """Differences to the background, as `scan.py` takes them."""
    if out.dtype == np.int16 or not background:
        with np.errstate(over="ignore"):
            np.copyto(out, stored, casting="same_kind" if stored.dtype.kind == "f" else "unsafe")
    else:
        with np.errstate(over="ignore"):
            np.copyto(out, above_background(stored, background), casting="same_kind")


def _ordinary(taken: Voxels) -> bool:
    """Whether float32 is enough for mean and deviation, by voxels (N,) of the brain's inside."""
    mean, deviation = float(taken.mean(dtype=np.float64)), float(taken.std(dtype=np.float64))
    return ORDINARY[0] < deviation < ORDINARY[1] and deviation > SPREAD * abs(mean)
