"""One series onto another of the same head: rigid, from several starts, whose agreement tells whether it worked.

Mattes' mutual information, on voxels of 8, 4 and 2 mm. The whole image counts: with a brain mask on the metric
an alignment 28 mm off was found without any sign of trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from deploy.hospital.space.image import WORK_UNITS, Matrix, coarse, to_matrix

BINS = 32
SEED = 20240229  # of the voxels sampled: the same series give the same alignment
REACH = 60.0  # mm, half the edge of the cube whose corners tell how far two alignments are apart: about a brain

APART = 4.0  # mm, between two starts at least
TURNS = {"geometry": (6.0, 3.0, -3.0), "moments": (-6.0, -3.0, 3.0)}  # degrees, of a start that is too near another


class Level(NamedTuple):
    """One level of the descent: voxel edge mm, share of voxels sampled, first and last step mm."""

    edge: float
    share: float
    first: float
    last: float


# On a head with 4 mm slices the starts end within 0.02 mm of each other, 0.2 mm off; without the level of 8 mm, and
# with steps halved at each turn, up to 8 mm apart and 0.8 mm off.
LEVELS = (Level(8.0, 1.0, 6.0, 0.2), Level(4.0, 0.25, 2.0, 0.05), Level(2.0, 0.10, 0.5, 0.01))
RELAXATION = 0.8  # of the step, where the descent turns round


@dataclass(frozen=True)
class Start:
    """Where one start ended: its name, the mutual information there, and mm from the best end."""

    name: str
    information: float
    distance: float


@dataclass(frozen=True)
class Alignment:
    """How one series is placed relative to another.

    Attributes:
        matrix: (4, 4), from points of the fixed series to points of the moving one, RAS mm.
        information: mutual information, nats; higher is better.
        starts: the best first.
    """

    matrix: Matrix
    information: float
    starts: tuple[Start, ...]

    @property
    def agreement(self) -> float:
        """How far from the best the nearest other start ended, mm."""
        return min((start.distance for start in self.starts[1:]), default=float("inf"))


def align(fixed: sitk.Image, moving: sitk.Image) -> Alignment:
    """Align two series of one head.

    Args:
        fixed: float32; its grid is kept.
        moving: float32.

    Returns:
        The best of the starts. Whether to believe it is for `deploy.hospital.space.quality` to say.
    """
    pyramid = [(coarse(fixed, level.edge), coarse(moving, level.edge), level) for level in LEVELS]
    ends = []
    for name, start in _starts(fixed, moving, *pyramid[0][:2]).items():
        transform, information = start, 0.0
        for small, other, level in pyramid:
            transform, information = _descend(small, other, transform, level)
        ends.append((information, name, to_matrix(transform)))
    ends.sort(key=lambda end: -end[0])
    best = ends[0][2]
    centre = middle(fixed) * (-1, -1, 1)  # RAS
    starts = tuple(Start(name, value, distance(best, matrix, centre)) for value, name, matrix in ends)
    return Alignment(best, ends[0][0], starts)


def distance(first: Matrix, second: Matrix, centre: NDArray[np.float64]) -> float:
    """How far apart two transforms (4, 4) carry the corners of a cube about `centre` (3,), on average, mm."""
    corners = centre + REACH * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    apart = (first - second)[:3, :3] @ corners.T + (first - second)[:3, 3:]
    return float(np.linalg.norm(apart, axis=0).mean())


def middle(image: sitk.Image) -> NDArray[np.float64]:
    """The middle (3,) of an image, mm LPS."""
    return np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))


def _starts(
    fixed: sitk.Image, moving: sitk.Image, small: sitk.Image, other: sitk.Image
) -> dict[str, sitk.Euler3DTransform]:
    """Three starts that are apart: as the scanner placed both, centre on centre, centre of mass on centre of mass.

    Two series of one grid have the first two in common: the second is turned and shifted then, or it would agree with
    the first whatever happens.
    """
    centre = middle(fixed)
    scanner = sitk.Euler3DTransform()
    scanner.SetCenter(centre.tolist())
    kinds = sitk.CenteredTransformInitializerFilter
    starts = {"scanner": scanner}
    for name, kind, pair in (("geometry", kinds.GEOMETRY, (fixed, moving)), ("moments", kinds.MOMENTS, (small, other))):
        start = sitk.Euler3DTransform(sitk.CenteredTransformInitializer(*pair, sitk.Euler3DTransform(), kind))
        found = to_matrix(start)
        if any(distance(found, to_matrix(taken), centre * (-1, -1, 1)) < APART for taken in starts.values()):
            start.SetRotation(*np.deg2rad(TURNS[name]).tolist())
        starts[name] = start
    return starts


def _descend(
    fixed: sitk.Image, moving: sitk.Image, start: sitk.Euler3DTransform, level: Level
) -> tuple[sitk.Euler3DTransform, float]:
    """The transform that a descent ends at, and the mutual information there; -inf where the images do not overlap."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(WORK_UNITS)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(level.share, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(level.first, level.last, 200, RELAXATION, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # ITK's for "all samples map outside the moving image"
        return start, float("-inf")
    return transform, -method.GetMetricValue()
