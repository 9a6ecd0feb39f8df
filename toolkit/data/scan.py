"""One patient: four modalities on one grid. The only preprocessing there is; training and prediction share it.

Read -> check -> RAS -> brain mask -> z-score of each modality inside the mask -> linear resampling with antialiasing
onto the fixed grid, centred on the mask's bounding box, zero outside.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from toolkit.config import Grid
from toolkit.data.header import Affine, same_place
from toolkit.data.nifti import Scratch, Volume, Voxels, read_nifti
from toolkit.data.patients import MODALITIES, Patient, match_modalities
from toolkit.data.resample import interpolation_matrix, resample
from toolkit.errors import PatientRefused

PREPROCESSING = 1  # raised whenever the numbers of a scan change; part of the cache's key and of a model's manifest
MAX_NONFINITE = 0.001  # share of the brain that may be replaced by background
MIN_BRAIN = 500  # voxels
MIN_COVER = 0.25  # share of the brain in which each modality must hold signal
USUAL_COVER = 0.97  # less is noted; 0.998 at least in six real patients
MIN_LEVELS = 10  # distinct values of a modality; fewer is a label map
MAX_ONE_VALUE = 0.5  # share of a modality's signal that may be one single value
MAX_AT_TOP = 0.05  # share that may hold the largest value; clipping at the 99th percentile leaves 0.01
MAX_BELOW = 0.9  # share that may be darker than the background; about 0.5 in files that hold z-scores
MAX_SPIKE = 100.0  # largest voxel in units of the median one; 8 at most in six real patients
MAX_LIKENESS = 0.998  # correlation of two modalities; 0.79 at most in six real patients
SAMPLE = 50_000  # voxels that these five look at
USUAL_BRAIN = (600.0, 2200.0)  # ml, adult, with room to spare; anything else is noted

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
_per_thread = threading.local()


@dataclass(frozen=True)
class Scan:
    """What the network sees of a patient.

    Attributes:
        data: float32 (4, X, Y, Z), C-contiguous, z-scores, 0 outside the brain; channels as `MODALITIES`, axes RAS.
        affine: (4, 4), grid voxel to mm in the patient's space.
        notes: oddities that were accepted, one phrase each.
    """

    data: Array
    affine: Affine
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Brain:
    """The brain's bounding box and, inside it, the mask (X, Y, Z); a background value for each modality."""

    box: tuple[slice, ...]
    mask: Mask
    background: dict[str, Any]


def read_scan(patient: Patient, grid: Grid) -> Scan:
    """Read, check and preprocess one patient.

    Args:
        patient: whose files to read.
        grid: spacing in mm and shape in voxels of the result.

    Returns:
        The scan; the same files give the same bytes, whoever reads them.

    Raises:
        PatientRefused: anything about the patient that cannot be trusted, in one phrase.
    """
    files = match_modalities(patient.folder)
    volumes = {name: read_nifti(file, _scratch(name)) for name, file in files.modalities.items()}
    notes = [*files.notes, *_gathered({name: volume.notes for name, volume in volumes.items()})]
    _check_one_grid(volumes)
    voxels = {name: volume.voxels for name, volume in volumes.items()}
    brain = _find_brain(voxels, notes)
    affine = np.median([volume.affine for volume in volumes.values()], axis=0)  # jitter of one file moves nothing
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    notes += _size_notes(brain, edges, grid)
    matrices = [
        interpolation_matrix(size, edge, out_size, grid.spacing)
        for size, edge, out_size in zip(brain.mask.shape, edges, grid.shape, strict=True)
    ]
    data = np.empty((len(MODALITIES), *grid.shape), np.float32)  # (4, X, Y, Z)
    samples: dict[str, Array] = {}
    for channel, name in enumerate(MODALITIES):
        scores = _z_scores(name, voxels[name][brain.box], volumes[name].slope, brain)
        samples[name] = _sample(scores).copy()
        data[channel] = resample(scores, matrices)
    _check_all_different(samples)
    return Scan(data, _grid_affine(affine, edges, brain, grid), tuple(notes))


def _scratch(name: str) -> Scratch:
    """Memory to decompress into, kept by each thread: fresh pages would cost as much as decompression itself."""
    scratch: dict[str, Scratch] = _per_thread.__dict__.setdefault("scratch", {})
    return scratch.setdefault(name, Scratch())


def _gathered(notes: dict[str, tuple[str, ...]]) -> list[str]:
    """The same note on several modalities becomes one."""
    names: dict[str, list[str]] = {}
    for name, lines in notes.items():
        for line in lines:
            names.setdefault(line, []).append(name)
    return [f"{', '.join(modalities)}: {line}" for line, modalities in names.items()]


def _check_one_grid(volumes: dict[str, Volume]) -> None:
    (first_name, first), *others = volumes.items()
    for name, volume in others:
        if volume.voxels.shape != first.voxels.shape:
            shapes = f"{first.voxels.shape} and {volume.voxels.shape}"
            raise PatientRefused(
                f"{first_name} and {name} are on different grids: shapes {shapes}; register them first"
            )
        if not same_place(volume.affine, first.affine, first.voxels.shape):
            raise PatientRefused(
                f"{first_name} and {name} are on different grids: {_difference(first.affine, volume.affine)}; "
                "register them first"
            )


def _difference(first: Affine, second: Affine) -> str:
    spacings = [np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist() for affine in (first, second)]
    if spacings[0] != spacings[1]:
        return f"voxel spacings {spacings[0]} and {spacings[1]} mm"
    if not np.allclose(first[:3, :3], second[:3, :3], atol=1e-3):
        return "their affines point in different directions (orientation)"
    return f"their affine origins {first[:3, 3].round(2).tolist()} and {second[:3, 3].round(2).tolist()} mm differ"


def _find_brain(voxels: dict[str, Voxels], notes: list[str]) -> _Brain:
    """Voxels that differ from the background in any modality; replaces a few non-finite voxels in `voxels`."""
    background = {name: _background(array) for name, array in voxels.items()}
    for name, value in background.items():
        if not np.isfinite(value):
            raise PatientRefused(f"{name} has a background that is not finite ({value}); write 0 outside the brain")
    replaced = {name: _replace_nonfinite(voxels, name, background[name]) for name in voxels}
    mask = np.zeros_like(voxels[MODALITIES[0]], np.bool_)
    signal: dict[str, int] = {}
    for name, array in voxels.items():
        own = array != background[name]
        signal[name] = int(np.count_nonzero(own))
        mask |= own
    size = int(np.count_nonzero(mask))
    for name, count in replaced.items():
        if count > MAX_NONFINITE * size:
            raise PatientRefused(
                f"{name} holds {count} voxels that are not finite (NaN or infinite), too many to replace"
            )
        if count:
            notes.append(f"{name}: {count} voxels that are not finite were replaced by the background")
    for name, count in signal.items():
        if count == 0:
            raise PatientRefused(f"{name} is empty: every voxel is the constant {background[name]:g}")
        if count < max(MIN_COVER * size, MIN_BRAIN):
            raise PatientRefused(
                f"{name} is nearly empty: only {count} of the {size} brain voxels differ from background"
            )
        if count < USUAL_COVER * size:
            notes.append(f"{name} covers only {count / size:.0%} of the brain; are the modalities registered?")
    box = _bounding_box(mask)
    return _Brain(box, mask[box], background)


def _background(array: Voxels) -> Any:
    """The commonest value of the eight corners: brains do not reach there, whatever offset the file has."""
    values, counts = np.unique(
        array[:: array.shape[0] - 1, :: array.shape[1] - 1, :: array.shape[2] - 1], return_counts=True
    )
    return values[counts.argmax()]


def _replace_nonfinite(voxels: dict[str, Voxels], name: str, background: Any) -> int:
    array = voxels[name]
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
            return 0
    bad = ~np.isfinite(array)
    voxels[name] = np.where(bad, background, array)
    return int(np.count_nonzero(bad))


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    order = np.argsort([-abs(stride) for stride in mask.strides], kind="stable")
    stored = mask.transpose(order)  # reductions run along memory
    plane: Mask = np.any(stored, axis=0)
    profiles = (stored.reshape(len(stored), -1).any(axis=1), plane.any(axis=1), plane.any(axis=0))
    box: list[slice] = [slice(0)] * 3
    for axis, profile in zip(order, profiles, strict=True):
        used = np.flatnonzero(profile)
        box[axis] = slice(int(used[0]), int(used[-1]) + 1)
    return tuple(box)


def _z_scores(name: str, crop: Voxels, slope: float, brain: _Brain) -> Array:
    """(voxel - mean) / standard deviation over the brain, 0 outside; float32, in the memory order of the file.

    The size of the header's slope and its offset cancel in a z-score; the slope's sign does not.
    """
    values = _above_background(crop, brain.background[name])
    if slope < 0:
        np.negative(values, out=values)
    largest = max(values.max(), -values.min())
    _check_levels(name, values, largest, brain.mask)
    values /= largest  # squares neither overflow nor vanish, however huge or tiny the voxels
    count = np.count_nonzero(brain.mask)
    values -= np.multiply(brain.mask, values.sum(dtype=np.float64) / count, dtype=values.dtype)  # background stays 0
    flat = values.ravel(order="K")
    deviation = np.sqrt(sum(float(part @ part) for part in np.array_split(flat, len(flat) // SAMPLE + 1)) / count)
    if deviation < (1e-12 if values.dtype == np.float64 else 1e-6):  # of values up to 1: rounding alone
        raise PatientRefused(f"{name} is constant inside the brain")
    values /= deviation
    scores: Array = values.astype(np.float32, copy=False)
    return scores


def _above_background(crop: Voxels, background: Any) -> Voxels:
    """Difference to the background in float32, or in float64 where float32 holds too few digits."""
    if crop.dtype.kind in "iu" and crop.dtype.itemsize == 8:  # nor does float64 hold them all
        ends = (int(crop.min()), int(crop.max()), int(background))
        if max(ends) - min(ends) < 1 << 63:
            crop, background = np.subtract(crop, background).view(np.int64), 0  # wraps to the right difference
    wide = crop.dtype.itemsize > 4 or (crop.dtype.kind in "iu" and crop.dtype.itemsize == 4)
    with np.errstate(over="ignore"):  # an infinite difference is refused as extreme
        values: Voxels = np.subtract(crop, background, dtype=np.float64 if wide else np.float32)
    return values


def _check_levels(name: str, values: Voxels, largest: float, mask: Mask) -> None:
    """Does the modality, as voxels above background, look like an image?"""
    signal = _sample(values)[_sample(mask)]
    signal = signal[signal != 0]
    levels, counts = np.unique(signal, return_counts=True)
    shares = counts / len(signal)
    if len(levels) == 1:
        raise PatientRefused(f"{name} is constant inside the brain")
    if len(levels) < MIN_LEVELS:
        raise PatientRefused(f"{name} holds only {len(levels)} different values, as a label map does, not an image")
    if shares.max() > MAX_ONE_VALUE:
        raise PatientRefused(f"{name} is saturated or constant: {shares.max():.0%} of its brain voxels are equal")
    if shares[-1] > MAX_AT_TOP:
        raise PatientRefused(f"{name} is saturated: {shares[-1]:.0%} of its brain voxels hold the largest value")
    if shares[levels < 0].sum() > MAX_BELOW:
        raise PatientRefused(
            f"{name} is darker than its background: its contrast is inverted, or the sign of its slope is wrong"
        )
    if largest > MAX_SPIKE * np.median(np.abs(signal)):
        raise PatientRefused(f"{name} holds extreme voxels: the largest is over {MAX_SPIKE:g} times the median one")


def _check_all_different(samples: dict[str, Array]) -> None:
    """Correlation r of two z-scores: the mean square of their difference is 2 (1 - r) times that of either."""
    for first, second in combinations(samples, 2):
        difference = samples[first] - samples[second]
        if np.square(difference).mean() < 2 * (1 - MAX_LIKENESS) * np.square(samples[first]).mean():
            raise PatientRefused(
                f"{first} and {second} hold the same voxels under two names; one of them is a duplicate"
            )


def _sample(array: Voxels) -> Voxels:
    step = max(1, round((array.size / SAMPLE) ** (1 / 3)))
    return array[::step, ::step, ::step]


def _size_notes(brain: _Brain, edges: Affine, grid: Grid) -> list[str]:
    notes = []
    volume = np.count_nonzero(brain.mask) * float(np.prod(edges)) / 1000
    if not USUAL_BRAIN[0] <= volume <= USUAL_BRAIN[1]:
        notes.append(f"the brain measures {volume:.3g} ml, unusual for an adult; is the skull removed?")
    lost = [
        f"{size * edge:.0f} of {out * grid.spacing:.0f} mm"
        for size, edge, out in zip(brain.mask.shape, edges, grid.shape, strict=True)
        if size * edge > out * grid.spacing
    ]
    if lost:
        notes.append(f"the brain is larger than the grid ({', '.join(lost)}); its rim is cut off")
    return notes


def _grid_affine(affine: Affine, edges: Affine, brain: _Brain, grid: Grid) -> Affine:
    """Grid voxel to mm: same axes as the file's, centred on the bounding box."""
    step = affine[:3, :3] / edges * grid.spacing
    centre = np.array([(part.start + part.stop - 1) / 2 for part in brain.box])
    result = np.eye(4)
    result[:3, :3] = step
    result[:3, 3] = affine[:3, :3] @ centre + affine[:3, 3] - step @ ((np.array(grid.shape) - 1) / 2)
    return result
