"""What the viewer of a page needs: NiiVue, and a patient's images so small that a page can hold them.

A page opened from a folder may not fetch files, so everything is in the page, or in a script next to it. NiiVue is in
nilearn's wheel; its licence is in `niivue-licence.txt`.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from deploy.runtime import Array
from toolkit.data.reading.door import Images
from toolkit.data.reading.header import Affine
from toolkit.data.reading.voxels import above_background
from toolkit.errors import RuntimeUnavailable

NIIVUE = "niivue.umd.js"
NIIVUE_VERSION = "0.68.1"
NIIVUE_SHA256 = "c40dc2679c337c906deef22e157ee02c17459db9b8ecc51aa773af27791a567c"
LICENCE = "niivue-licence.txt"
GREYS, GREYS_SINGLE = 127, 72  # levels of an image; fewer where the page also holds the viewer, so that it stays small
RANGE = (0.1, 99.9)  # percentiles of the brain's signal that get the darkest and the brightest level
WHITE = 99.5  # percentile that is shown white at first
_EVERY = 7  # voxel of the brain that percentiles are taken from
_COARSE = 3.0  # mm, of the evidence in a page: it is linear over longer distances


class Packed(NamedTuple):
    """A volume as a page holds it.

    Attributes:
        head: NIfTI-1 header, base64.
        voxels: what a predictor left of them, deflated, base64.
        shape: (X, Y, Z).
    """

    head: str
    voxels: str
    shape: tuple[int, ...]


def niivue() -> bytes:
    """NiiVue's script.

    Raises:
        RuntimeUnavailable: nilearn has another version of it than the one that the pages were tried with.
    """
    spec = find_spec("nilearn")  # not imported: that takes seconds
    places = [
        Path(place) / "_assets" / "js" / NIIVUE for place in (spec.submodule_search_locations if spec else None) or ()
    ]
    content = b"".join(place.read_bytes() for place in places if place.is_file())
    if hashlib.sha256(content).hexdigest() != NIIVUE_SHA256:
        raise RuntimeUnavailable(
            f"nilearn's {NIIVUE} is not NiiVue {NIIVUE_VERSION}, which the pages need;"
            " install the versions in constraints.txt."
        )
    return content


def niivue_inline() -> str:
    """The same, deflated, base64."""
    return base64.b64encode(zlib.compress(niivue(), 9)).decode()


def licence() -> str:
    """NiiVue's licence."""
    return files("deploy.report").joinpath(LICENCE).read_text(encoding="utf-8")


def grey(images: Images, name: str, levels: int) -> tuple[NDArray[np.uint8], float]:
    """A modality in few levels of grey.

    Args:
        images: the patient's.
        name: of the modality.
        levels: above 0, which is outside the brain; the lowest, 1, is black at first.

    Returns:
        uint8 (X, Y, Z), and the level that is white at first.
    """
    values = above_background(images.voxels[name], images.background[name]).astype(np.float32, copy=False)
    values = values if images.slopes[name] > 0 else -values
    inside = values[images.mask][::_EVERY]
    low, white, high = np.percentile(inside, [RANGE[0], WHITE, RANGE[1]]).tolist()
    factor = (levels - 1) / max(high - low, 1e-12)
    scaled = np.subtract(values, np.float32(low))
    np.multiply(scaled, np.float32(factor), out=scaled)
    np.clip(scaled, 0, levels - 1, out=scaled)
    found = np.rint(scaled, out=scaled).astype(np.uint8)
    found += 1
    found *= images.mask
    return found, 1 + (white - low) * factor


def pack(voxels: NDArray[np.uint8], affine: Affine) -> Packed:
    """Grey levels as a page holds them.

    Each voxel is predicted from the one to its left, behind and below: the median of the three. What is left deflates
    to two thirds of the voxels themselves.
    """
    padded = np.zeros([size + 1 for size in voxels.shape], np.uint8, order="F")
    padded[1:, 1:, 1:] = voxels
    left, behind, below = padded[:-1, 1:, 1:], padded[1:, :-1, 1:], padded[1:, 1:, :-1]
    low, high = np.minimum(left, behind), np.maximum(left, behind)
    rest = np.asfortranarray(padded[1:, 1:, 1:] - np.maximum(low, np.minimum(high, below)))
    return Packed(
        _head(voxels.shape, affine, 2, 1.0),
        base64.b64encode(imagecodecs.gzip_encode(rest.tobytes(order="F"), level=3)).decode(),
        voxels.shape,
    )


def pack_evidence(evidence: Array, affine: Affine) -> Packed:
    """A map as a page holds it: int16 of 1/1000 logits, on a grid of about 3 mm."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    every = [max(1, round(_COARSE / edge)) for edge in edges]
    coarse = evidence[:: every[0], :: every[1], :: every[2]]
    stored = np.clip(np.rint(coarse * 1000), -32767, 32767).astype("<i2")
    return Packed(
        _head(coarse.shape, affine @ np.diag([*every, 1.0]), 4, 0.001),
        base64.b64encode(imagecodecs.gzip_encode(stored.tobytes(order="F"), level=3)).decode(),
        coarse.shape,
    )


def pack_mask(mask: NDArray[np.bool_]) -> str:
    """A mask as a page holds it: a byte a voxel, deflated, base64."""
    return base64.b64encode(imagecodecs.gzip_encode(mask.astype(np.uint8).tobytes(order="F"), level=3)).decode()


def _head(shape: tuple[int, ...], affine: Affine, kind: int, slope: float) -> str:
    """A NIfTI-1 header with the four bytes after it; kind 2 is uint8, 4 int16."""
    header: Any = nib.Nifti1Header()
    header.set_data_dtype({2: np.uint8, 4: np.int16}[kind])
    header.set_data_shape(shape)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, 0)
    header["vox_offset"] = 352
    return base64.b64encode(header.binaryblock + bytes(4)).decode()
