"""Volumes as SimpleITK's images, and rigid transforms as matrices in RAS mm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from deploy.hospital.volume import Volume
from toolkit.errors import PatientRefused

Matrix: TypeAlias = NDArray[np.float64]

WORK_UNITS = 4  # of every filter, whatever the machine: the sums, and so the result, are the same everywhere
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS <-> LPS
NOTHING = -1e30  # what a sampled image holds where the source does not reach
_SKEW = 1e-3  # cosine between two voxel axes


def to_image(volume: Volume) -> sitk.Image:
    """A volume for SimpleITK, which counts in LPS.

    Args:
        volume: any right-angled grid.

    Raises:
        PatientRefused: its axes are not at right angles, which no rigid resampling allows for.
    """
    affine = FLIP @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    skew = float(np.abs(direction.T @ direction - np.eye(3)).max())
    if skew > _SKEW:
        raise PatientRefused(f"a series has slanted axes (cosine {skew:.3f} between two of them); resample it first")
    left, _, right = np.linalg.svd(direction)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.T, np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def to_volume(image: sitk.Image) -> Volume:
    """The reverse of `to_image`."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(np.asarray(sitk.GetArrayFromImage(image), np.float32).T, FLIP @ affine)


def to_transform(matrix: Matrix) -> sitk.AffineTransform:
    """A matrix (4, 4) of RAS mm as a transform of SimpleITK."""
    lps = FLIP @ matrix @ FLIP
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def to_matrix(transform: sitk.Transform) -> Matrix:
    """Any linear transform of SimpleITK as a matrix (4, 4) of RAS mm."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(columns, axis=1)
    matrix[:3, 3] = origin
    return FLIP @ matrix @ FLIP


def coarse(image: sitk.Image, edge: float) -> sitk.Image:
    """An image with voxels of about `edge` mm: smoothed and thinned along the axes that are finer, the others kept."""
    factors = [max(1, round(edge / spacing)) for spacing in image.GetSpacing()]
    sigma = [0.5 * factor * spacing for factor, spacing in zip(factors, image.GetSpacing(), strict=True)]
    for axis, factor in enumerate(factors):
        if factor > 1:
            image = sitk.RecursiveGaussian(image, sigma[axis], direction=axis)
    return sitk.Shrink(image, factors)


def resample(image: sitk.Image, like: sitk.Image, matrix: Matrix) -> sitk.Image:
    """An image on the grid of another, linearly; `NOTHING` where it has nothing.

    Args:
        image: what to sample.
        like: the grid.
        matrix: (4, 4), from points of `like` to points of `image`, RAS mm.
    """
    tool = sitk.ResampleImageFilter()
    tool.SetReferenceImage(like)
    tool.SetInterpolator(sitk.sitkLinear)
    tool.SetTransform(to_transform(matrix))
    tool.SetDefaultPixelValue(NOTHING)
    tool.SetOutputPixelType(sitk.sitkFloat32)
    return tool.Execute(image)


def grid(shape: Sequence[int], affine: Matrix) -> sitk.Image:
    """An empty image: a grid to sample onto.

    Args:
        shape: (X, Y, Z).
        affine: (4, 4), voxel index -> mm, RAS.
    """
    return to_image(Volume(np.zeros(tuple(shape), np.float32), affine))


def points_of(volume: Volume) -> NDArray[np.float64]:
    """The centres (3, N), mm RAS, of all voxels that are not 0."""
    index = np.array(np.nonzero(volume.voxels))
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
