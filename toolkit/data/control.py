"""Control experiments on the images: what is a model's answer worth when the tumour is gone?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolkit.data.reading.door import Images
from toolkit.data.tumour import read_mask
from toolkit.errors import PatientRefused


def mask_tumour(images: Images) -> Images:
    """Replace the tumour by the median of the rest of the brain, in each modality.

    A model that still tells the grades apart has learned something other than the tumour, for example the scanner.

    Args:
        images: with a tumour mask (`seg`) on the same grid; every label above 0 is tumour.

    Raises:
        PatientRefused: there is no mask, it is on another grid, or it leaves no brain.
    """
    tumour = (read_mask(images) > 0) & images.mask
    rest = images.mask & ~tumour
    if not rest.any():
        raise PatientRefused("the tumour mask covers the whole brain")
    voxels = {}
    for name, crop in images.voxels.items():
        voxels[name] = crop.copy(order="K")
        voxels[name][tumour] = np.median(crop[rest]).astype(crop.dtype)
    note = f"control: {np.count_nonzero(tumour)} tumour voxels replaced by the brain's median"
    return replace(images, voxels=voxels, notes=(*images.notes, note))
