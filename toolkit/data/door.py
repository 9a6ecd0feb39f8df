"""The door: one patient's four images, opened and checked; what cannot be trusted is refused with the reason.

Nothing passes that a grade could be computed from wrongly: `scan.py` and `grade check` both come in here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from toolkit.data.header import Affine, same_place
from toolkit.data.nifti import Scratch, Volume, Voxels, read_nifti
from toolkit.data.patients import Patient, match_modalities
from toolkit.data.resample import MemoryOrder
from toolkit.errors import PatientRefused

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
MIN_SPREAD = {4: 1e-6, 8: 1e-12}  # standard deviation in units of the largest value that rounding leaves; by bytes
SAMPLE = 25_000  # voxels that these seven look at
USUAL_BRAIN = (600.0, 2200.0)  # ml, adult, with room to spare; anything else is noted

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_per_thread = threading.local()


@dataclass(frozen=True)
class Images:
    """A patient's four checked images, cut to the brain's bounding box; RAS axes, all in one memory order.

    They live in memory that the same thread uses again for its next patient.

    Attributes:
        files: of the modalities.
        seg: the tumour mask, if there is one; not opened.
        voxels: modality -> (X, Y, Z), stored numbers in the file's dtype.
        background: modality -> the value outside the brain.
        slopes: modality -> factor of the header, finite and not 0.
        mask: bool (X, Y, Z), voxels of the brain.
        box: where (X, Y, Z) lies in the whole volume.
        shape: of the whole volume.
        affine: (4, 4), voxel of the whole volume to mm.
        notes: oddities that were accepted, one phrase each.
    """

    files: dict[str, Path]
    seg: Path | None
    voxels: dict[str, Voxels]
    background: dict[str, Any]
    slopes: dict[str, float]
    mask: Mask
    box: tuple[slice, ...]
    shape: tuple[int, ...]
    affine: Affine
    notes: tuple[str, ...]

    @property
    def edges(self) -> Numbers:
        """Size of a voxel along each axis, mm (3,)."""
        edges: Numbers = np.linalg.norm(self.affine[:3, :3], axis=0)
        return edges

    @property
    def brain_ml(self) -> float:
        """Volume of the mask, ml."""
        return float(np.count_nonzero(self.mask) * self.edges.prod() / 1000)


def open_patient(patient: Patient) -> Images:
    """Read a patient's files to their last byte and check everything that can be checked without a model.

    Args:
        patient: whose files to read.

    Raises:
        PatientRefused: anything about the patient that cannot be trusted, in one phrase.
    """
    files = match_modalities(patient.folder)
    volumes = {name: read_nifti(file, _scratch(name)) for name, file in files.modalities.items()}
    notes = [*files.notes, *_gathered({name: volume.notes for name, volume in volumes.items()})]
    _check_one_grid(volumes)
    first = next(iter(volumes.values()))
    order = MemoryOrder.of(first.voxels)
    stored = {name: order.along(volume.voxels) for name, volume in volumes.items()}
    background = {name: _background(name, array) for name, array in stored.items()}
    replaced = _replace_nonfinite(stored, background)
    mask, box, covered = _find_brain(stored, background)
    size = int(np.count_nonzero(mask))
    notes += _replacement_notes(replaced, size) + _cover_notes(covered, background, size)
    crops = {name: array[box] for name, array in stored.items()}
    _check_voxels(crops, background, {name: volume.slope for name, volume in volumes.items()}, mask)
    images = Images(
        files=files.modalities,
        seg=files.seg,
        voxels={name: order.back(crop) for name, crop in crops.items()},
        background=background,
        slopes={name: volume.slope for name, volume in volumes.items()},
        mask=order.back(mask),
        box=_box_in_space(box, order, first.voxels.shape),
        shape=first.voxels.shape,
        affine=np.median([volume.affine for volume in volumes.values()], axis=0),  # jitter of one file moves nothing
        notes=tuple(notes),
    )
    return images if USUAL_BRAIN[0] <= images.brain_ml <= USUAL_BRAIN[1] else _with_size_note(images)


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


def _background(name: str, array: Voxels) -> Any:
    """The commonest value of the eight corners: brains do not reach there, whatever offset the file has."""
    corners = array[:: array.shape[0] - 1, :: array.shape[1] - 1, :: array.shape[2] - 1]
    values, counts = np.unique(corners, return_counts=True)
    value = values[counts.argmax()]
    if not np.isfinite(value):
        raise PatientRefused(f"{name} has a background that is not finite ({value}); write 0 outside the brain")
    return value


def _replace_nonfinite(arrays: dict[str, Voxels], background: dict[str, Any]) -> dict[str, int]:
    """Put background where a voxel is not finite, in place of the arrays; how many there were."""
    counts = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore", invalid="ignore"):
            if array.dtype.kind != "f" or np.isfinite(array.sum()):
                continue
        bad = ~np.isfinite(array)
        arrays[name] = array.copy()
        arrays[name][bad] = background[name]
        counts[name] = int(np.count_nonzero(bad))
    return counts


def _find_brain(
    arrays: Mapping[str, Voxels], background: dict[str, Any]
) -> tuple[Mask, tuple[slice, ...], dict[str, int]]:
    """Voxels that differ from the background in any modality: cut to their box, the box, and the count of each."""
    pairs = [(array, background[name]) for name, array in arrays.items()]
    planes = len(pairs[0][0])

    def used(plane: int) -> bool:
        return any((array[plane] != value).any() for array, value in pairs)

    start = next((plane for plane in range(planes) if used(plane)), 0)
    stop = next((plane + 1 for plane in reversed(range(planes)) if used(plane)), planes)
    mask, own = np.zeros((2, stop - start, *pairs[0][0].shape[1:]), np.bool_)
    covered = {}
    for name, array in arrays.items():
        np.not_equal(array[start:stop], background[name], out=own)
        covered[name] = int(np.count_nonzero(own))
        mask |= own
    face: Mask = np.any(mask, axis=0)
    rows, columns = np.flatnonzero(face.any(axis=1)), np.flatnonzero(face.any(axis=0))
    if not len(rows):
        name = next(iter(arrays))
        raise PatientRefused(f"{name} is empty: every voxel is the constant {background[name]:g}")
    across = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return np.ascontiguousarray(mask[:, *across]), (slice(start, stop), *across), covered


def _box_in_space(box: tuple[slice, ...], order: MemoryOrder, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box along the axes of the volume instead of those of memory."""
    found = [slice(0)] * 3
    for axis, part in zip(order.axes, box, strict=True):
        flipped = order.flips[axis].step == -1
        found[axis] = slice(shape[axis] - part.stop, shape[axis] - part.start) if flipped else part
    return tuple(found)


def _replacement_notes(replaced: dict[str, int], size: int) -> list[str]:
    for name, count in replaced.items():
        if count > MAX_NONFINITE * size:
            raise PatientRefused(
                f"{name} holds {count} voxels that are not finite (NaN or infinite), too many to replace"
            )
    return [
        f"{name}: {count} voxels that are not finite were replaced by the background"
        for name, count in replaced.items()
    ]


def _cover_notes(covered: dict[str, int], background: dict[str, Any], size: int) -> list[str]:
    notes = []
    for name, count in covered.items():
        if count == 0:
            raise PatientRefused(f"{name} is empty: every voxel is the constant {background[name]:g}")
        if count < max(MIN_COVER * size, MIN_BRAIN):
            raise PatientRefused(
                f"{name} is nearly empty: only {count} of the {size} brain voxels differ from background"
            )
        if count < USUAL_COVER * size:
            notes.append(f"{name} covers only {count / size:.0%} of the brain; are the modalities registered?")
    return notes


def _check_voxels(crops: dict[str, Voxels], background: dict[str, Any], slopes: dict[str, float], mask: Mask) -> None:
    """Does each modality look like an image, and like a different one?"""
    step = max(1, round((mask.size / SAMPLE) ** (1 / 3)))
    sampled = mask[::step, ::step, ::step]
    scores: dict[str, Numbers] = {}
    for name, crop in crops.items():
        seen = above_background(crop[::step, ::step, ::step], background[name])[sampled]
        ends = above_background(np.array([crop.min(), crop.max()], crop.dtype), background[name])
        largest = float(np.abs(ends).max())
        values = np.copysign(1.0, slopes[name]) * seen  # float64
        _check_levels(name, values[values != 0], largest)
        values /= largest  # squares neither overflow nor vanish, however huge or tiny the voxels
        values -= values.mean()
        deviation = values.std()
        if deviation < MIN_SPREAD[seen.dtype.itemsize]:
            raise PatientRefused(f"{name} is constant inside the brain")
        scores[name] = values / deviation
    for one, other in combinations(scores, 2):
        if (scores[one] * scores[other]).mean() > MAX_LIKENESS:
            raise PatientRefused(f"{one} and {other} hold the same voxels under two names; one of them is a duplicate")


def above_background(voxels: Voxels, background: Any) -> Voxels:
    """Difference to the background.

    Args:
        voxels: stored numbers, any dtype and shape.
        background: of their dtype.

    Returns:
        float32, or float64 where float32 holds too few digits; infinite where that overflows.
    """
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize == 8:  # nor does float64 hold them all
        ends = (int(voxels.min()), int(voxels.max()), int(background))
        if max(ends) - min(ends) < 1 << 63:
            voxels, background = np.subtract(voxels, background).view(np.int64), 0  # wraps to the right difference
    wide = voxels.dtype.itemsize > 4 or (voxels.dtype.kind in "iu" and voxels.dtype.itemsize == 4)
    with np.errstate(over="ignore"):
        values: Voxels = np.subtract(voxels, background, dtype=np.float64 if wide else np.float32)
    return values


def _check_levels(name: str, signal: Numbers, largest: float) -> None:
    """Checks on voxels above background, inside the brain and not zero; `largest` is that of all voxels."""
    levels, counts = np.unique(signal, return_counts=True)
    shares = counts / max(len(signal), 1)
    if len(levels) <= 1:
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


def _with_size_note(images: Images) -> Images:
    note = f"the brain measures {images.brain_ml:.3g} ml, unusual for an adult; is the skull removed?"
    return replace(images, notes=(*images.notes, note))
