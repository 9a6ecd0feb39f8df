"""One patient: four modalities on one grid. The only preprocessing there is; training and prediction share it.

Open and check (the door) -> z-score of each modality inside the brain's mask -> linear resampling with antialiasing
onto the fixed grid, centred on the mask's bounding box, zero outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from toolkit.arrays import Float32, Voxels
from toolkit.config import Grid
from toolkit.data.content import content_digest
from toolkit.data.memory import Workspace
from toolkit.data.patients import MODALITIES, Patient
from toolkit.data.reading.door import PLAINLY, Images, Reading, open_patient
from toolkit.data.reading.header import Affine
from toolkit.data.reading.voxels import above_background
from toolkit.data.resample import Resampler, interpolation_matrix
from toolkit.data.statistics import image_statistics
from toolkit.errors import PatientRefused

PREPROCESSING = 3  # raised whenever the numbers of a scan change; part of the cache's key and of a model's manifest
SAFE_SPREAD = 1e-2  # standard deviation over mean from which float32 keeps the digits of their difference
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
        PatientRefused: a modality is constant inside the brain.
    """
    resample = Resampler(images.mask, matrices_of(images, grid), workspace.resample)
    mask = workspace.share.array(grid.shape, np.float32)  # (X, Y, Z), how much of a voxel is brain
    mask[...] = resample(images.mask)
    data = workspace.out((len(MODALITIES), *grid.shape), np.float32)  # (4, X, Y, Z)
    for channel, name in enumerate(MODALITIES):
        if name == images.missing:
            data[channel] = 0
        elif not _z_score(images, name, resample, mask, data[channel]):
            data[channel] = resample(_exact_z_score(images, name))
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


class _Moments:
    """Loads slabs as their difference to the background and sums them up on the way, while they are in the cache."""

    def __init__(self, background: float) -> None:
        self._background = background
        self.total = self.squares = 0.0

    def load(self, out: Float32, slab: Voxels) -> None:
        """See `Resampler`."""
        if slab.dtype.itemsize > 4 or slab.dtype in (np.int32, np.uint32):
            with np.errstate(over="ignore"):
                np.copyto(out, above_background(slab, self._background), casting="same_kind")
        else:
            np.copyto(out, slab)
            if self._background:
                out -= np.float32(self._background)
        # Rows in float32, their sums in float64: fast, and as exact as the voxels.
        self.total += float((out @ np.ones(out.shape[-1], np.float32)).sum(dtype=np.float64))
        self.squares += float(np.vecdot(out, out).sum(dtype=np.float64))


def _z_score(images: Images, name: str, resample: Resampler, mask: Float32, out: Float32) -> bool:
    """(voxel - mean) / standard deviation over the brain, resampled; False where float32 cannot hold it.

    Resampling is linear, so mean and deviation act on the small result instead of the large image. The size of the
    header's slope and its offset cancel in a z-score; the slope's sign does not.
    """
    moments = _Moments(images.background[name])
    with np.errstate(over="ignore", invalid="ignore"):
        resample.shrink(images.voxels[name], moments.load)
    count = int(np.count_nonzero(images.mask))
    mean = moments.total / count
    variance = moments.squares / count - mean**2
    if not (SAFE_SIZE[0] ** 2 < variance < SAFE_SIZE[1] ** 2 and variance > (SAFE_SPREAD * mean) ** 2):
        return False
    factor = float(np.copysign(1 / np.sqrt(variance), images.slopes[name]))
    np.multiply(mask, np.float32(-mean * factor), out=out)
    out += resample.finish(factor)
    return True


def _exact_z_score(images: Images, name: str) -> Float32:
    """The same before resampling and in float64: huge or tiny voxels, or ones that hardly differ."""
    values = above_background(images.voxels[name], images.background[name]).astype(np.float64)
    values /= np.copysign(np.abs(values).max(), images.slopes[name])  # squares neither overflow nor vanish
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
