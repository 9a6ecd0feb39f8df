"""One patient: four modalities on one grid. The only preprocessing there is; training and prediction share it.

Open and check (the door) -> linear resampling with antialiasing onto the fixed grid, centred on the bounding box of the
brain's mask, zero outside -> z-score of each modality, with mean and standard deviation of the brain's inside -> the
surface of the brain cut off. There masks differ: a millimetre takes in fluid or leaves out cortex, and would move the
z-scores of the whole brain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeAlias

import numpy as np

from toolkit.arrays import Float32, Mask, Voxels
from toolkit.config import Grid
from toolkit.data.content import content_digest
from toolkit.data.memory import Scratch, Workspace
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.reading.door import PLAINLY, Images, Reading, open_patient
from toolkit.data.reading.header import Affine
from toolkit.data.reading.voxels import above_background
from toolkit.data.resample import Resampler, interpolation_matrix
from toolkit.data.statistics import image_statistics
from toolkit.errors import PatientRefused

PREPROCESSING = 4  # raised whenever the numbers of a scan change; part of the cache's key and of a model's manifest
INSIDE = 3.0  # mm below the surface of the brain, from where mean and standard deviation are taken
RIM = 1.5  # mm below it, from where the network sees the brain
BRAIN = 0.47  # share of a voxel from which it is brain; at a flat surface many have 0.5, and rounding would decide
PLANES = 16  # of the grid, of a slab
ENOUGH = 1000  # voxels of the grid; a brain with fewer inside is taken whole
SAFE_SPREAD = 1e-2  # standard deviation over mean from which float32 keeps the digits of their difference
LEAST_SPREAD = 1e-5  # the same of z-scores of the whole brain; less is rounding
SAFE_SIZE = (1e-12, 1e12)  # standard deviations whose squares neither vanish nor overflow in float32

Edit: TypeAlias = Callable[[Images], Images]


@dataclass(frozen=True)
class Scan:
    """What the network sees of a patient.

    Attributes:
        data: float32 (4, X, Y, Z), C-contiguous, z-scores, 0 outside the brain; channels as `MODALITIES`, axes RAS.
        affine: (4, 4), grid voxel to mm in the patient's space.
        notes: oddities that were accepted, one phrase each.
        statistics: of the images before the z-score, see `image_statistics`.
        content: by which the images are known again, see `content_digest`.
        missing: the modality that the patient lacks, whose channel is 0; empty where none is.
    """

    data: Float32
    affine: Affine
    notes: tuple[str, ...]
    statistics: dict[str, float]
    content: str
    missing: str = ""


def read_scan(patient: Patient, grid: Grid, how: Reading = PLAINLY, edit: Edit | None = None) -> Scan:
    """Read, check and preprocess one patient.

    Args:
        patient: whose files to read.
        grid: spacing in mm and shape in voxels of the result.
        how: see there.
        edit: changes the checked images, for a control experiment.

    Returns:
        The scan; the same files give the same bytes, in training and in prediction.

    Raises:
        PatientRefused: anything about the patient that cannot be trusted, in one phrase.
    """
    workspace = how.workspace or Workspace()
    images = open_patient(patient, how._replace(workspace=workspace))
    return make_scan(edit(images) if edit else images, grid, workspace)


def make_scan(images: Images, grid: Grid, workspace: Workspace) -> Scan:
    """What `read_scan` makes of checked images.

    Raises:
        PatientRefused: a modality is constant inside the brain, or the brain is smaller than a voxel of the grid.
    """
    resample = Resampler(images.mask, matrices_of(images, grid), workspace.resample)
    share = workspace.share.array(grid.shape, np.float32)  # (X, Y, Z), how much of a voxel is brain
    share[...] = resample(images.mask)
    within = _Within.of(share, grid.spacing, workspace.work)
    data = workspace.out((len(MODALITIES), *grid.shape), np.float32)  # (4, X, Y, Z)
    for channel, name in zip(data, MODALITIES, strict=True):
        if name == images.missing:
            channel[...] = 0
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            channel[...] = resample(images.voxels[name], partial(_load, images.background[name]))
            scored = _z_score(channel, within)
        if not scored:
            channel[...] = resample(_exact_z_score(images, name))
            if not _z_score(channel, within, LEAST_SPREAD):
                raise PatientRefused(f"{name} is constant inside the brain")
        if images.slopes[name] < 0:
            np.negative(channel, out=channel)
    return describe(images, grid, data)


def describe(images: Images, grid: Grid, data: Float32) -> Scan:
    """All that is known of checked images, with the scan that was made of them."""
    notes = (*images.notes, *_rim_notes(images, grid))
    return Scan(
        data, _grid_affine(images, grid), notes, image_statistics(images), content_digest(images), images.missing
    )


def matrices_of(images: Images, grid: Grid) -> list[Float32]:
    """For each axis, what carries images onto the grid, (out, in)."""
    return [
        interpolation_matrix(size, edge, out_size, grid.spacing)
        for size, edge, out_size in zip(images.mask.shape, images.edges, grid.shape, strict=True)
    ]


def _load(background: float, out: Float32, slab: Voxels) -> None:
    """Differences to the background; see `Resampler`."""
    if slab.dtype.itemsize > 4 or slab.dtype in (np.int32, np.uint32):
        np.copyto(out, above_background(slab, background), casting="same_kind")
    else:
        np.copyto(out, slab)
        if background:
            out -= np.float32(background)


@dataclass(frozen=True)
class _Within:
    """Where on the grid (X, Y, Z) a z-score is taken; all float32.

    Attributes:
        share: how much of a voxel is brain.
        inside: 1 in the voxels that mean and standard deviation are taken from.
        seen: 1 in those that the network sees.
        count: voxels inside.
        brain: what is brain of them.
        work: some planes to work in.
    """

    share: Float32
    inside: Float32
    seen: Float32
    count: float
    brain: float
    work: Float32

    @classmethod
    def of(cls, share: Float32, spacing: float, work: Scratch) -> Self:
        """From the share of brain, and the grid's spacing in mm.

        Raises:
            PatientRefused: there is no brain on the grid.
        """
        brain = share > BRAIN
        seen, inside = (eroded(brain, reach) for reach in reaches(spacing))
        if np.count_nonzero(inside) < ENOUGH:
            seen, inside = np.ones_like(brain), brain
        if not (count := float(np.count_nonzero(inside))):
            raise PatientRefused(f"the brain fills no voxel of the grid, of {spacing:g} mm")
        counted, planes = inside.astype(np.float32), work.array((PLANES, *share.shape[1:]), np.float32)
        return cls(share, counted, seen.astype(np.float32), count, _total(share, counted), planes)

    def slabs(self, out: Float32) -> Iterator[tuple[Float32, ...]]:
        """A modality `out` in slabs that stay in the cache, each with `share`, `inside`, `seen` and room to work in."""
        for start in range(0, len(out), PLANES):
            here = slice(start, start + PLANES)
            yield out[here], self.share[here], self.inside[here], self.seen[here], self.work[: len(out) - start]


def reaches(spacing: float) -> tuple[int, int]:
    """`RIM` and `INSIDE` in voxels of a grid."""
    return round(RIM / spacing), round(INSIDE / spacing)


def eroded(brain: Mask, reach: int) -> Mask:
    """Voxels with nothing but brain around them.

    Args:
        brain: (X, Y, Z); beyond it all is taken for brain, since there the grid ends and not the brain.
        reach: voxels each way, of the cube that is looked at.
    """
    padded = np.pad(brain, reach, constant_values=True)
    flat = padded.reshape(-1)  # what a step along an axis takes from the next line is padding
    for step in padded.strides:
        count = len(flat) - 2 * reach * step
        around = flat[:count].copy()
        for further in range(step, (2 * reach + 1) * step, step):
            around &= flat[further : further + count]
        flat[reach * step :][:count] = around
    return padded[tuple(slice(reach, reach + size) for size in brain.shape)]


def _z_score(out: Float32, within: _Within, spread: float = SAFE_SPREAD) -> bool:
    """(voxel - mean) / standard deviation, of a modality on the grid; False where float32 cannot hold it.

    The size of the header's slope and its offset cancel in a z-score; the slope's sign does not.

    Args:
        out: (X, Y, Z), 0 outside the brain; changed.
        within: see there.
        spread: least standard deviation over mean.
    """
    # Divided by the share of brain, so that an offset of the voxels cancels where a voxel is brain in part.
    mean = _total(out, within.inside) / within.brain
    squares = 0.0
    for slab, share, inside, _, work in within.slabs(out):
        np.subtract(slab, np.multiply(share, np.float32(mean), out=work), out=slab)
        np.multiply(slab, inside, out=work)
        squares += _total(work, work)
    variance = squares / within.count
    if not (SAFE_SIZE[0] ** 2 < variance < SAFE_SIZE[1] ** 2 and variance > (spread * mean) ** 2):
        return False
    for slab, _, _, seen, work in within.slabs(out):
        np.multiply(slab, np.multiply(seen, np.float32(1 / np.sqrt(variance)), out=work), out=slab)
    return True


def _total(one: Float32, other: Float32) -> float:
    """Of their product; rows in float32, their sums in float64: fast, and as exact as the voxels."""
    return float(np.vecdot(one, other).sum(dtype=np.float64))


def _exact_z_score(images: Images, name: str) -> Float32:
    """That over the whole brain, before resampling and in float64: huge or tiny voxels, or ones that hardly differ."""
    values = above_background(images.voxels[name], images.background[name]).astype(np.float64)
    values /= np.abs(values).max()  # squares neither overflow nor vanish
    count = np.count_nonzero(images.mask)
    values -= images.mask * (values.sum() / count)  # background stays 0
    deviation = np.sqrt(np.square(values).sum() / count)
    if deviation < 1e-12:  # of values up to 1: rounding alone
        raise PatientRefused(f"{name} is constant inside the brain")
    scores: Float32 = (values / deviation).astype(np.float32)
    return scores


def _rim_notes(images: Images, grid: Grid) -> list[str]:
    lost = [
        f"{size * edge:.0f} of {out * grid.spacing:.0f} mm"
        for size, edge, out in zip(images.mask.shape, images.edges, grid.shape, strict=True)
        if size * edge > out * grid.spacing
    ]
    return [f"the brain is larger than the grid ({', '.join(lost)}); its rim is cut off"] if lost else []


def _grid_affine(images: Images, grid: Grid) -> Affine:
    """Grid voxel to mm: same axes as the file's, centred on the bounding box."""
    step = images.affine[:3, :3] / images.edges * grid.spacing
    centre = np.array([(part.start + part.stop - 1) / 2 for part in images.box])
    result = np.eye(4)
    result[:3, :3] = step
    result[:3, 3] = images.affine[:3, :3] @ centre + images.affine[:3, 3] - step @ ((np.array(grid.shape) - 1) / 2)
    return result
