"""Four series of one head -> four skull-stripped images in BraTS space: mask, alignments, pose, one interpolation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from deploy.hospital.space.brain import Brain, find_brain
from deploy.hospital.space.image import NOTHING, Matrix, grid, resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE, Pose, find_pose
from deploy.hospital.space.quality import contrast, cut_share, judge
from deploy.hospital.space.register import Alignment, align
from deploy.hospital.volume import Volume
from toolkit.data.patients import MODALITIES
from toolkit.errors import PatientRefused

RECIPE = 4  # of everything below this folder: another number, and what was brought in before is made again
REFERENCE = "t1ce"
UNITS = (200.0, 16000.0)  # of the brain's 99.9th percentile: as it is within, scaled to 4095 without
NO_CONTRAST = 0.0  # of `contrast`
PREPARED_HERE = "prepared by grade, not by BraTS"


@dataclass(frozen=True)
class Prepared:
    """One patient in BraTS space.

    Attributes:
        images: modality -> int16 (240, 240, 155), 0 outside the brain, at least 1 within.
        heads: modality -> float32, the same with the skull, in the scanner's numbers; for pictures.
        mask: bool (240, 240, 155).
        alignments: modality -> how it was laid on T1ce; none for T1ce itself.
        pose: how T1ce was turned into BraTS's pose.
        matrices: modality -> (4, 4), from points of BraTS's space to points of the series, RAS mm.
        scales: modality -> what the scanner's numbers were multiplied by.
        figures: what `quality` looked at.
        notes: what a human should know, one phrase each.
        seconds: stage -> s.
        device: what found the brain.
    """

    images: dict[str, NDArray[np.int16]]
    heads: dict[str, NDArray[np.float32]]
    mask: NDArray[np.bool_]
    alignments: dict[str, Alignment]
    pose: Pose
    matrices: dict[str, Matrix]
    scales: dict[str, float]
    figures: dict[str, float]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    device: str


def prepare(series: Mapping[str, Volume], brain: Brain, on_stage: Callable[[str], None]) -> Prepared:
    """Bring four series of one head into BraTS space.

    Args:
        series: modality -> volume, as scanned: with the skull, each in its own grid.
        brain: the opened network.
        on_stage: called with what begins, in a few words.

    Raises:
        PatientRefused: a series cannot be used, or a figure is beyond its limit.
    """
    clock = _Clock(on_stage)
    images = {name: _usable(name, series[name]) for name in MODALITIES}
    with clock.stage("brain mask"):
        likely = find_brain(brain, series[REFERENCE])
    alignments = {}
    for name in MODALITIES:
        if name != REFERENCE:
            with clock.stage(f"{name} on {REFERENCE}"):
                alignments[name] = align(images[REFERENCE], images[name])
    with clock.stage("pose"):
        pose = find_pose(_stripped(images[REFERENCE], likely))
    with clock.stage("interpolation"):
        matrices = dict.fromkeys(MODALITIES, pose.matrix)
        matrices |= {name: found.matrix @ pose.matrix for name, found in alignments.items()}
        mask = np.asarray(ndimage.binary_fill_holes(_sample(to_image(likely), pose.matrix) >= 0.5), np.bool_)
        sampled = {name: _sample(images[name], matrix) for name, matrix in matrices.items()}
        covered = {name: values > NOTHING / 2 for name, values in sampled.items()}
    outside = {name: float(np.mean(~covered[name][mask])) if mask.any() else 1.0 for name in MODALITIES}
    brain_ml = np.count_nonzero(likely.voxels >= 0.5) * abs(float(np.linalg.det(likely.affine[:3, :3]))) / 1000
    cut = cut_share(likely)
    notes = [PREPARED_HERE, *judge(brain_ml, cut, outside, alignments, pose)]
    seen = contrast(sampled, mask & covered["t1"] & covered[REFERENCE])
    if seen <= NO_CONTRAST:
        notes.append(f"no contrast agent is seen in t1ce against t1 (figure {seen:.2f}); check which series is which")
    inside = {name: mask & covered[name] for name in MODALITIES}
    scales = {name: _scale(sampled[name][inside[name]]) for name in MODALITIES}
    painted = {name: _painted(sampled[name], scales[name], inside[name]) for name in MODALITIES}
    figures = {"brain_ml": brain_ml, "cut": cut, "contrast": seen}
    figures |= {f"outside_{name}": share for name, share in outside.items()}
    return Prepared(
        images=painted,
        heads={name: np.where(covered[name], values, np.float32(0)) for name, values in sampled.items()},
        mask=mask,
        alignments=alignments,
        pose=pose,
        matrices=matrices,
        scales=scales,
        figures=figures,
        notes=tuple(notes),
        seconds=clock.seconds,
        device=brain.device,
    )


class _Clock:
    """Tells what begins and keeps how long it took."""

    def __init__(self, on_stage: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._on_stage(name)
        start = perf_counter()
        yield
        self.seconds[name] = perf_counter() - start


def _usable(name: str, volume: Volume) -> sitk.Image:
    """A series with something in it, at least 0 everywhere: the starts weigh voxels by their numbers."""
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not np.isfinite(high - low) or low == high:
        raise PatientRefused(f"{name} holds one value only, or numbers that are not finite")
    return to_image(Volume(volume.voxels - np.float32(min(low, 0)), volume.affine))


def _stripped(image: sitk.Image, likely: Volume) -> Volume:
    """T1ce without its skull, on the mask's grid."""
    here = to_volume(resample(image, to_image(likely), np.eye(4)))
    return Volume(np.where(likely.voxels >= 0.5, here.voxels, np.float32(0)), likely.affine)


def _sample(image: sitk.Image, matrix: Matrix) -> NDArray[np.float32]:
    return to_volume(resample(image, grid(SHAPE, AFFINE), matrix)).voxels


def _scale(inside: NDArray[np.float32]) -> float:
    """What to multiply the scanner's numbers by so that int16 holds them in fine steps."""
    if not inside.size:
        return 1.0
    bright = float(np.percentile(inside, 99.9))
    return 1.0 if not bright > 0 or UNITS[0] <= bright <= UNITS[1] else 4095.0 / bright


def _painted(values: NDArray[np.float32], scale: float, mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Rounded, at least 1 in the brain: 0 is what is not brain."""
    painted = np.zeros(values.shape, np.int16)
    painted[mask] = np.clip(np.rint(values[mask] * scale), 1, np.iinfo(np.int16).max)
    return painted
