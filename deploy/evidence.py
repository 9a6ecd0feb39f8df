"""Where the network looked: its evidence map on the scan's grid, and as a NIfTI file in the patient's space."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from deploy.runtimes import Array
from toolkit.data.header import Affine

STEM = 16  # the other strides of the network together; the stem's own comes on top


def on_grid(evidence: Array, shape: tuple[int, ...], stem_stride: int) -> Array:
    """Evidence between the network's coarse voxels, linearly, the outermost ones continued.

    Every convolution and pooling of the network pads by half its kernel, so coarse voxel i lies on scan voxel
    i x stride: the map is not spread evenly over the scan.

    Args:
        evidence: float32 (x, y, z).
        shape: (X, Y, Z) of the scan.
        stem_stride: of the network.

    Returns:
        float32 (X, Y, Z), same unit.
    """
    found = evidence
    for axis, size in enumerate(shape):
        coarse = STEM * stem_stride * np.arange(evidence.shape[axis])
        weights = np.stack([np.interp(np.arange(size), coarse, row) for row in np.eye(len(coarse))], axis=1)
        found = np.moveaxis(np.tensordot(weights.astype(np.float32), found, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(found)


def write_evidence(path: Path, evidence: Array, affine: Affine) -> None:
    """Write a map as `.nii.gz`, whole or not at all.

    Args:
        path: the file.
        evidence: float32 (X, Y, Z).
        affine: (4, 4), voxel to mm in the patient's space.
    """
    image = nib.Nifti1Image(evidence, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"evidence, logit of HGG minus LGG"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(igzip.compress(image.to_bytes(), 1, mtime=0))
    temporary.replace(path)
