"""What the voxels of a modality must be like: finite, not empty, not constant, an image, and not one of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from toolkit.arrays import Float64, Mask, Voxels
from toolkit.data.memory import Scratch
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
SAMPLE = 12_000  # voxels that these seven look at
SLAB = 8  # planes that are looked at together, while they are in the processor's cache


@dataclass(frozen=True)
class Survey:
    """One modality, looked at once from end to end.

    Attributes:
        array: stored numbers, finite.
        background: the value outside the brain.
        covered: voxels that differ from it.
        replaced: voxels that were not finite and became background.
        ends: smallest and largest voxel.
    """

    array: Voxels
    background: Any
    covered: int
    replaced: int
    ends: Voxels


def survey(arrays: Mapping[str, Voxels], mask: Mask, scratch: Scratch) -> dict[str, Survey]:
    """Look at all modalities together, a few planes at a time.

    Args:
        arrays: modality -> (slow, middle, fast); C-contiguous is fastest.
        mask: bool of the same shape, filled here: voxels that differ from the background in any modality.
        scratch: for a few planes of one modality.

    Raises:
        PatientRefused: a background is not finite.
    """
    background = {name: _background(name, array) for name, array in arrays.items()}
    finite = {name: _finite(array, background[name]) for name, array in arrays.items()}
    ends = {name: [value, value] for name, value in background.items()}
    covered = dict.fromkeys(arrays, 0)
    own = scratch.array((SLAB, *mask.shape[1:]), np.bool_)
    for start in range(0, len(mask), SLAB):
        union = mask[start : start + SLAB]
        union.fill(False)
        for name, (array, _) in finite.items():
            slab = array[start : start + SLAB]
            low, high = _ends(slab, background[name])
            if low == high == background[name]:
                continue
            differs = np.not_equal(slab, background[name], out=own[: len(slab)])
            covered[name] += int(np.count_nonzero(differs))
            union |= differs
            ends[name] = [min(ends[name][0], low), max(ends[name][1], high)]
    return {
        name: Survey(array, background[name], covered[name], replaced, np.array(ends[name], array.dtype))
        for name, (array, replaced) in finite.items()
    }


def _ends(slab: Voxels, background: Any) -> tuple[Any, Any]:
    """Smallest and largest voxel; in one pass where 0 is the smallest, as nearly always."""
    if background == 0 and slab.dtype.kind in "iu" and slab.dtype.isnative:
        largest = slab.view(f"u{slab.dtype.itemsize}").max()  # what is negative looks larger than any positive number
        if largest <= np.iinfo(slab.dtype).max:
            return background, slab.dtype.type(largest)
    return slab.min(), slab.max()


def _background(name: str, array: Voxels) -> Any:
    """The commonest value of the eight corners: brains do not reach there, whatever offset the file has."""
    corners = array[:: array.shape[0] - 1, :: array.shape[1] - 1, :: array.shape[2] - 1]
    values, counts = np.unique(corners, return_counts=True)
    value = values[counts.argmax()]
    if not np.isfinite(value):
        raise PatientRefused(f"{name} has a background that is not finite ({value}); write 0 outside the brain")
    return value


def _finite(array: Voxels, background: Any) -> tuple[Voxels, int]:
    """The array, or a copy with background where a voxel is not finite; how many there were."""
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum()):
            return array, 0
    bad = ~np.isfinite(array)
    array = array.copy()
    array[bad] = background
    return array, int(np.count_nonzero(bad))


def check_cover(surveys: Mapping[str, Survey], size: int) -> list[str]:
    """Does each modality show the brain?

    Args:
        surveys: of all modalities.
        size: voxels of the brain's mask.

    Returns:
        What was accepted, one phrase each.

    Raises:
        PatientRefused: a modality is empty, nearly empty, or was largely not finite.
    """
    notes = []
    for name, seen in surveys.items():
        if seen.replaced > MAX_NONFINITE * size:
            raise PatientRefused(
                f"{name} holds {seen.replaced} voxels that are not finite (NaN or infinite), too many to replace"
            )
        if seen.replaced:
            notes.append(f"{name}: {seen.replaced} voxels that are not finite were replaced by the background")
    for name, seen in surveys.items():
        if seen.covered == 0:
            raise PatientRefused(f"{name} is empty: every voxel is the constant {seen.background:g}")
        if seen.covered < max(MIN_COVER * size, MIN_BRAIN):
            raise PatientRefused(
                f"{name} is nearly empty: only {seen.covered} of the {size} brain voxels differ from background"
            )
        if seen.covered < USUAL_COVER * size:
            notes.append(f"{name} covers only {seen.covered / size:.0%} of the brain; are the modalities registered?")
    return notes


def check_images(
    surveys: Mapping[str, Survey], slopes: Mapping[str, float], mask: Mask, box: tuple[slice, ...]
) -> None:
    """Does each modality look like an image, and like a different one?

    Args:
        surveys: of all modalities.
        slopes: factors of their headers.
        mask: (slow, middle, fast) of the brain, inside the box.
        box: where the mask is in the arrays.

    Raises:
        PatientRefused: constant, a label map, saturated, inverted, extreme, or the same as another.
    """
    step = max(1, round((mask.size / SAMPLE) ** (1 / 3)))
    sampled = mask[::step, ::step, ::step]
    scores: dict[str, Float64] = {}
    for name, seen in surveys.items():
        taken = above_background(seen.array[box][::step, ::step, ::step], seen.background)[sampled]
        largest = float(np.abs(above_background(seen.ends, seen.background)).max())
        values = np.copysign(1.0, slopes[name]) * taken  # float64
        _check_levels(name, values[values != 0], largest)
        values /= largest  # squares neither overflow nor vanish, however huge or tiny the voxels
        values -= values.mean()
        deviation = values.std()
        if deviation < MIN_SPREAD[taken.dtype.itemsize]:
            raise PatientRefused(f"{name} is constant inside the brain")
        scores[name] = values / deviation
    for one, other in combinations(scores, 2):
        if scores[one] @ scores[other] > MAX_LIKENESS * len(scores[one]):
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


def _check_levels(name: str, signal: Float64, largest: float) -> None:
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
