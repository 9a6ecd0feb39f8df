"""The tumour mask that some cohorts bring along: read, and measured."""

from __future__ import annotations

import numpy as np

from toolkit.arrays import Voxels
from toolkit.data.memory import Scratch
from toolkit.data.reading.door import Images
from toolkit.data.reading.header import same_place
from toolkit.data.reading.nifti import read_nifti
from toolkit.errors import PatientRefused

# BraTS: 1 necrosis and core that does not enhance, 2 oedema, 4 enhancing tumour (3 from 2023 on).
_REGIONS = {"core": (1,), "oedema": (2,), "enhancing": (3, 4)}


def read_mask(images: Images) -> Voxels:
    """The labels of a patient's tumour mask.

    Args:
        images: with a mask (`seg`) on the same grid.

    Returns:
        (X, Y, Z), cut to the brain's box like the images; 0 is no tumour.

    Raises:
        PatientRefused: there is no mask, or it is on another grid.
    """
    if images.seg is None:
        raise PatientRefused("there is no tumour mask (a file whose name ends in seg)")
    volume = read_nifti(images.seg, Scratch())
    if volume.voxels.shape != images.shape or not same_place(volume.affine, images.affine, images.shape):
        raise PatientRefused("the tumour mask is on another grid than the images; resample it")
    labels: Voxels = volume.voxels[images.box]
    return labels


def tumour_measures(images: Images) -> dict[str, float]:
    """Volumes of the tumour's regions, and how they relate.

    Args:
        images: as for `read_mask`.

    Returns:
        `core`, `oedema`, `enhancing`, `tumour`: log of 1 + volume in ml. `core_share`, `oedema_share`,
        `enhancing_share`: of the tumour, 0 to 1, all 0 where there is none. `brain_share`: of the brain that is tumour.

    Raises:
        PatientRefused: as `read_mask`.
    """
    labels = read_mask(images)
    voxel_ml = float(images.edges.prod()) / 1000
    volumes = {name: voxel_ml * int(np.isin(labels, values).sum()) for name, values in _REGIONS.items()}
    total = sum(volumes.values())
    found = {name: float(np.log1p(volume)) for name, volume in {**volumes, "tumour": total}.items()}
    found |= {f"{name}_share": volume / total if total else 0.0 for name, volume in volumes.items()}
    return found | {"brain_share": total / images.brain_ml}
