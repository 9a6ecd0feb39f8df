"""A head as patients in BraTS space: as it was brought in, as it is without a scanner, and what is between the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
from scipy import ndimage

from deploy.hospital.space.image import resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE
from deploy.hospital.space.prepare import Prepared
from deploy.hospital.volume import Volume
from tests.deploy.hospital.head import Head, around

# How a head is kept. Each takes one thing more from the way through the scanner than the one before, the last apart.
DIRECT, TURNED, MASKED, INGESTED, TRUE_MASK = "direct", "turned", "masked", "ingested", "true-mask"
WAYS = (DIRECT, TURNED, MASKED, INGESTED, TRUE_MASK)


def ways(
    head: Head, done: Prepared, into: np.ndarray, truth: np.ndarray
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """A head as patients in BraTS space, from the one that met no scanner to the one that was brought in.

    `direct`: as drawn, in the ideal pose; `turned`: in the pose that was found; `masked`: under the mask that was
    found; `ingested`: as it was brought in, so scanned, aligned and sampled as well; `true-mask`: under the true mask.
    """
    yield from ends(head, done)
    yield TURNED, drawn(edge_kept(head), head, into, truth)
    yield MASKED, drawn(head.images, head, into, done.mask)
    scaled = {name: np.maximum(np.rint(image * done.scales[name]), 1) for name, image in done.heads.items()}
    yield TRUE_MASK, {name: np.where(truth, image, 0) for name, image in scaled.items()}


def ends(head: Head, done: Prepared) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The first of the ways and the last."""
    ideal = ideal_pose(head)
    yield DIRECT, drawn(edge_kept(head), head, ideal, inside(head, ideal))
    yield INGESTED, dict(done.images)


def ideal_pose(head: Head) -> np.ndarray:
    """From points of BraTS's space to points of the head (4, 4): upright, and in the middle."""
    into = np.eye(4)
    into[:3, :3] = head.upright.T
    into[:3, 3] = head.centre - head.upright.T @ (AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3])
    return into


def edge_kept(head: Head) -> dict[str, np.ndarray]:
    """The images with the brain's own values next to its edge, outside too.

    Interpolated after the skull is cut off, a brain would have a rim of half values, which none of BraTS has: there the
    skull is cut off last. It moved the logit by 2.
    """
    near = around(head.mask, 4)
    nearest = tuple(ndimage.distance_transform_edt(~head.mask[near], return_distances=False, return_indices=True))
    kept = {name: np.zeros_like(image) for name, image in head.images.items()}
    for name, image in head.images.items():
        kept[name][near] = image[near][nearest]
    return kept


def inside(head: Head, into: np.ndarray, edge: float = 0.0) -> np.ndarray:
    """The true mask on BraTS's grid, and so many mm of what is around it."""
    if not edge:
        return _on_brats(head.mask.astype(np.float32), head, into) > 0.5
    near = around(head.mask, 4)
    outside, within = (ndimage.distance_transform_edt(of) for of in (~head.mask[near], head.mask[near]))
    depth = np.full(head.mask.shape, -4, np.float32)  # mm below the surface, which is half-way between two voxels
    depth[near] = np.where(head.mask[near], within - 0.5, 0.5 - outside)
    return _on_brats(np.maximum(depth + 4, 0), head, into) > 4 - edge  # 0 where nothing is sampled


def drawn(images: dict[str, np.ndarray], head: Head, into: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Images of the head on BraTS's grid without a scanner in between, 0 outside a mask."""
    sampled = {name: np.maximum(np.rint(_on_brats(image, head, into)), 1) for name, image in images.items()}
    return {name: np.where(mask, image, 0) for name, image in sampled.items()}


def _on_brats(image: np.ndarray, head: Head, into: np.ndarray) -> np.ndarray:
    like = to_image(Volume(np.zeros(SHAPE, np.float32), AFFINE))
    found = to_volume(resample(to_image(Volume(np.asarray(image, np.float32), head.affine)), like, into)).voxels
    return np.maximum(found, 0)


def write_patient(folder: Path, images: dict[str, np.ndarray], name: str = "x") -> None:
    """Four files `NAME_MODALITY.nii.gz` on BraTS's grid."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality, image in images.items():
        content = nib.Nifti1Image(image.astype(np.int16), AFFINE).to_bytes()
        (folder / f"{name}_{modality}.nii.gz").write_bytes(imagecodecs.gzip_encode(content, level=1))
