"""The pose of BraTS: how a head is turned in it, found with a template, kept as a rotation only.

Six brains of BraTS, registered affinely to the MNI template, were turned by 13.1, 13.4, 13.0, 13.0, 12.3 and (one
outlier) 4.3 degrees about the left-right axis, and by 0 +- 2 about the others. So BraTS's pose is the template turned
by 12.9. Size is kept: `grade` works at a fixed spacing, and scales no patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from deploy.hospital.space.image import WORK_UNITS, Matrix, coarse, points_of, to_image, to_matrix
from deploy.hospital.space.register import BINS, SEED, distance
from deploy.hospital.volume import Volume
from toolkit.data.template import mni
from toolkit.errors import PatientRefused

TURN = 12.9  # degrees about the left-right axis
SHAPE = (240, 240, 155)
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # voxel -> mm, RAS, of BraTS
CENTRE = (118.5, 126.4, 69.6)  # voxel, where six real BraTS brains have the middle of their bounding box
TOP = 152  # voxel, highest that a brain may reach
EDGES = (8.0, 4.0)  # mm, voxels of the two levels: a rotation needs no more
STEPS = (4.0, 1.0)  # mm, first step of each level
AFFINE_STEPS = (1.0, 0.5, 0.25)  # mm, first steps of the affine fits: none ends well in every head, the best counts
PITCHES = (-15.0, 0.0, 15.0)  # degrees, starts: heads lie differently in their coils, mostly nodding
SCALE = 0.93  # of a brain against the template
MARGIN = 0.01  # percent of the mask at each end that its box leaves out


@dataclass(frozen=True)
class Pose:
    """How a head is turned and placed in BraTS.

    Attributes:
        matrix: (4, 4), from points of BraTS's space to points of t1ce, RAS mm; a rotation and a shift.
        scale: of the affine fit along its three axes, dropped; far from 1 means that the fit failed.
        angles: degrees, about the left-right, front-back and up-down axes, that the head was turned by.
        agreement: mm between the best start and the nearest other one.
        information: mutual information with the template, nats.
    """

    matrix: Matrix
    scale: tuple[float, float, float]
    angles: tuple[float, float, float]
    agreement: float
    information: float


def find_pose(brain: Volume) -> Pose:
    """Turn a brain as BraTS does.

    Args:
        brain: skull-stripped t1ce, 0 outside.

    Raises:
        PatientRefused: no start found the template in it.
    """
    template, head = to_image(_turned_template()), to_image(brain)
    levels = [(coarse(template, edge), coarse(head, edge)) for edge in EDGES]
    ends = []
    for pitch in PITCHES:
        start = _start(*levels[0], pitch)
        for level, step in zip(levels, STEPS, strict=True):
            information = _descend(level, start, step)
        ends.append((information, start))
    ends.sort(key=lambda end: -end[0])
    best = ends[0][1]
    information, affine = max((_affine_fit(levels[-1], best, step) for step in AFFINE_STEPS), key=lambda fit: fit[0])
    if not np.isfinite(information):
        raise PatientRefused("the brain could not be laid on the template: is t1ce a head?")
    agreement = distance(to_matrix(best), to_matrix(ends[1][1]), np.zeros(3))
    fitted = to_matrix(affine)
    left, scale, right = np.linalg.svd(fitted[:3, :3])
    rotation = left @ right  # template -> t1ce; the nearest rotation (Schoenemann 1966)
    if np.linalg.det(rotation) < 0:
        raise PatientRefused("the template fits the brain only mirrored: is the orientation of t1ce right?")
    angles = Rotation.from_matrix(rotation).as_euler("xyz", degrees=True)
    return Pose(_placed(rotation, brain), tuple(scale.tolist()), tuple(angles.tolist()), agreement, information)


def _turned_template() -> Volume:
    """The MNI template, brain only, turned into BraTS's pose; 2 mm."""
    voxels, affine = mni("t1", 2)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("x", TURN, degrees=True).as_matrix()
    return Volume(voxels, turn @ affine)


def _start(template: sitk.Image, head: sitk.Image, pitch: float) -> sitk.Similarity3DTransform:
    """Centre of mass on centre of mass, turned by a pitch, of the size that most brains have against the template."""
    moments = sitk.CenteredTransformInitializer(
        template, head, sitk.Similarity3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    start = sitk.Similarity3DTransform(moments)
    start.SetRotation((1.0, 0.0, 0.0), np.deg2rad(pitch))
    start.SetScale(SCALE)
    return start


def _affine_fit(
    level: tuple[sitk.Image, sitk.Image], start: sitk.Similarity3DTransform, first: float
) -> tuple[float, sitk.AffineTransform]:
    """Where an affine descent from a similarity ends, and the mutual information there."""
    affine = sitk.AffineTransform(3)
    affine.SetCenter(start.GetCenter())
    affine.SetMatrix(start.GetMatrix())
    affine.SetTranslation(start.GetTranslation())
    return _descend(level, affine, first), affine


def _descend(level: tuple[sitk.Image, sitk.Image], transform: sitk.Transform, first: float) -> float:
    """Move a transform to where a descent ends; gives the mutual information there, -inf where nothing overlaps."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(WORK_UNITS)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.5, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(first, 0.02, 200, 0.5, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(*level)
    except RuntimeError:  # ITK's for "all samples map outside the moving image"
        return float("-inf")
    return -float(method.GetMetricValue())


def _placed(rotation: NDArray[np.float64], brain: Volume) -> Matrix:
    """The rotation with the shift that puts the brain's middle where BraTS has it, and its top inside the grid."""
    turned = rotation.T @ points_of(brain)  # in BraTS's axes
    low, high = np.percentile(turned, (MARGIN, 100 - MARGIN), axis=1)
    centre = AFFINE[:3, :3] @ CENTRE + AFFINE[:3, 3]
    centre[2] = min(centre[2], TOP - (high[2] - low[2]) / 2)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = rotation @ ((low + high) / 2 - centre)
    return matrix
