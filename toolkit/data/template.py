"""The MNI brain, ICBM152 2009a (Fonov 2011), from nilearn's wheel (Gorgolewski 2015); nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from toolkit.arrays import Voxels
from toolkit.errors import RuntimeUnavailable


def mni(what: Literal["t1", "gm", "wm"], step: int = 1) -> tuple[Voxels, NDArray[np.float64]]:
    """One map of the template, as nilearn's `load_mni152_template` and its likes give it: only the brain.

    Args:
        what: the T1 image, or the share of grey or of white matter.
        step: take every voxel, or every second one.

    Returns:
        float32 (X, Y, Z), 0 to 1, and the affine to mm; a voxel is `step` mm long, the axes are RAS.

    Raises:
        RuntimeUnavailable: nilearn is not installed whole.
    """
    spec = find_spec("nilearn")  # not imported: with it come scikit-learn and pandas, two seconds
    name = Path("datasets", "data", f"mni_icbm152_{what}_tal_nlin_sym_09a_converted.nii.gz")
    files = [Path(place) / name for place in (spec.submodule_search_locations if spec else None) or ()]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise RuntimeUnavailable(f"nilearn's file {name.name} is missing; install nilearn as constraints.txt has it.")
    image = nib.load(found)
    voxels = np.asarray(image.dataobj, np.float32)
    voxels /= voxels.max()
    affine = np.array(image.affine, np.float64)
    affine[:3, :3] *= step
    return voxels[::step, ::step, ::step], affine
