"""The header of a NIfTI file: what it says of the voxels and of space, and every reason not to believe it.

Source: NIfTI-1 and NIfTI-2 data format documents, nifti.nimh.nih.gov.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from toolkit.errors import PatientRefused

Affine: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Header: TypeAlias = Any  # Nifti1Header or Nifti2Header; nibabel ships no types

MAX_AXIS = 1024  # voxels
MIN_AXIS = 5  # voxels; thinner is a slice, not a volume
MAX_VOXELS = 50_000_000  # of one modality (400 x 400 x 312); with MAX_BYTES a patient stays within 2 GB
MAX_BYTES = 1 << 28  # of one decompressed file
VOXEL_EDGE = (0.1, 12.0)  # mm
MAX_SHEAR = 0.01  # cosine between two voxel axes
MAX_OBLIQUE = 30.0  # degrees to the nearest RAS axis; beyond, "nearest" is a guess
PLACE_TOLERANCE = 0.1  # mm; grids closer than this are the same
FARTHEST = 1e5  # mm; no scanner's space reaches 100 m

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_OTHER_TYPES = {
    1: "binary",
    32: "complex64",
    128: "RGB",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA",
}
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # to mm; 0 (unknown) and 2 are millimetres


@dataclass(frozen=True)
class Layout:
    """What the header says of the bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        """Length of the decompressed file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Meaning:
    """All that is read from a header.

    Attributes:
        layout: of the voxels.
        slope: finite and not 0; value = slope * voxel + inter.
        inter: finite.
        affine: (4, 4), voxel index to mm; read-only.
        notes: oddities that were accepted, one phrase each.
    """

    layout: Layout
    slope: float
    inter: float
    affine: Affine
    notes: tuple[str, ...]


def read_header(block: bytes) -> Meaning:
    """What the header of a single-file NIfTI-1 or NIfTI-2 says, in either byte order.

    Args:
        block: the first 540 bytes of the decompressed file.

    Raises:
        PatientRefused: another format, damaged, or not to be believed.
    """
    return _understand(block if block[4:8] == b"n+2\0" else block[:348])


@lru_cache(maxsize=256)  # a cohort has few headers, and reading one takes Python's lock, which all readers share
def _understand(block: bytes) -> Meaning:
    notes: list[str] = []
    header = _parse(block)
    layout = _layout_of(header)
    slope, inter = _scaling_of(header, notes)
    affine = _affine_of(header, notes)
    affine.flags.writeable = False
    return Meaning(layout, slope, inter, affine, tuple(notes))


def _parse(block: bytes) -> Header:
    """The header of a single-file NIfTI-1 or NIfTI-2 in either byte order.

    Args:
        block: the first 540 bytes of the decompressed file.

    Raises:
        PatientRefused: another format, or damaged.
    """
    if len(block) < 348:
        raise PatientRefused(f"is truncated: {len(block)} bytes are no NIfTI header")
    order_of = {int.from_bytes(block[:4], "little"): "<", int.from_bytes(block[:4], "big"): ">"}  # by header size
    if 348 in order_of and block[344:348] == b"n+1\0":
        return Nifti1Header(block[:348], endianness=order_of[348], check=False)
    if 540 in order_of and block[4:12] == b"n+2\0\r\n\x1a\n" and len(block) >= 540:
        return Nifti2Header(block[:540], endianness=order_of[540], check=False)
    if block[344:348] == b"ni1\0" or block[4:8] == b"ni2\0":
        raise PatientRefused("is one half of a NIfTI pair (.hdr/.img); convert it to a single .nii.gz")
    if 348 in order_of:
        raise PatientRefused(
            "is an Analyze 7.5 image, or its NIfTI magic is damaged: its orientation is unknown; "
            "convert it to NIfTI from the source"
        )
    raise PatientRefused("is not a NIfTI file: its header is damaged or of another format")


def _layout_of(header: Header) -> Layout:
    """Shape, type and place of the voxels; trailing axes of length 1 are dropped.

    Raises:
        PatientRefused: not one 3-D volume of a scalar type, too large, or the header contradicts itself.
    """
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in _DTYPES:
        raise PatientRefused(
            f"holds voxels of type {_OTHER_TYPES.get(code, f'code {code}')}; a scalar integer or float type is needed"
        )
    dtype = np.dtype(_DTYPES[code]).newbyteorder(header.endianness)
    if bits != 8 * dtype.itemsize:
        raise PatientRefused(f"contradicts itself: its voxels are {dtype.name}, but bitpix says {bits} bits")
    offset = float(header["vox_offset"])
    if not (header.single_vox_offset <= offset < MAX_BYTES and offset == int(offset)):
        raise PatientRefused(f"has a damaged header: its voxels cannot start at byte {offset:g}")
    shape = _shape([int(n) for n in header["dim"]])
    layout = Layout(shape, dtype, int(offset))
    if layout.nbytes > MAX_BYTES or math.prod(shape) > MAX_VOXELS:
        raise PatientRefused(
            f"is too large: {_times(shape)} voxels of {dtype.name}; "
            f"at most {MAX_VOXELS // 10**6} million and {MAX_BYTES >> 20} MiB are read"
        )
    return layout


def _shape(dim: list[int]) -> tuple[int, ...]:
    rank, sizes = dim[0], dim[1:]
    if not 1 <= rank <= 7 or any(n < 1 for n in sizes[: max(rank, 0)]):
        raise PatientRefused(f"has a damaged header: its dimensions are {dim}")
    shape = tuple(sizes[:rank])
    if max(shape) > MAX_AXIS:
        raise PatientRefused(
            f"is too large: its header asks for {_times(shape)} voxels, at most {MAX_AXIS} an axis are read"
        )
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise PatientRefused(f"is {len(shape)}-D with shape {_times(shape)}; one 3-D volume is needed")
    if min(shape) < MIN_AXIS:
        raise PatientRefused(f"is no volume: shape {_times(shape)}, at least {MIN_AXIS} voxels an axis are needed")
    return shape


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _scaling_of(header: Header, notes: list[str]) -> tuple[float, float]:
    """(slope, inter) with value = slope * voxel + inter; an unset slope means (1, 0) and is noted.

    Raises:
        PatientRefused: a slope with an offset that is not finite.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        notes.append(f"scaling slope {slope:g} means unscaled voxels")
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise PatientRefused(f"has a damaged header: scaling offset {inter:g} with slope {slope:g}")
    return slope, inter


def _affine_of(header: Header, notes: list[str]) -> Affine:
    """Voxel index to mm, (4, 4): the sform if set, else the qform (the standard's order of trust).

    Raises:
        PatientRefused: orientation unknown; affine not finite, singular, sheared, oblique beyond doubt, or not in mm.
    """
    factor = _millimetres(header, notes)
    forms = {form: _form(header, form, factor) for form in ("sform", "qform") if int(header[f"{form}_code"]) > 0}
    if not forms:
        raise PatientRefused(
            "does not say its orientation: sform and qform codes are both 0; set one from the source images"
        )
    used, affine = next(iter(forms.items()))
    if affine is None:
        raise PatientRefused(f"has a damaged affine: its {used} is not finite, not valid or beyond any scanner's space")
    _check_axes(affine[:3, :3])
    shape = tuple(header["dim"][1:4])
    if len(forms) == 2 and (forms["qform"] is None or not same_place(affine, forms["qform"], shape)):
        notes.append("sform and qform disagree; the sform was used")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if len(forms) == 1 and not (np.abs(edges - factor * header["pixdim"][1:4]) < 0.01).all():  # true for NaN, too
        notes.append("its voxel sizes (pixdim) contradict its affine; the affine was used")
    return affine


def _millimetres(header: Header, notes: list[str]) -> float:
    name, factor = _UNITS.get(int(header["xyzt_units"]) & 7, ("", 1.0))
    if name:
        notes.append(f"its affine is in {name} and was converted to mm")
    return factor


def _form(header: Header, form: str, factor: float) -> Affine | None:
    """The header's sform or qform in mm; None when damaged."""
    if header["pixdim"][0] == 0:
        header = header.copy()
        header["pixdim"][0] = 1  # the standard's reading of an unset handedness
    try:
        with np.errstate(all="ignore"):
            affine: Affine = np.array(header.get_sform() if form == "sform" else header.get_qform(), np.float64)
            affine[:3] *= factor
    except (ValueError, HeaderDataError):
        return None
    return affine if (np.abs(affine) < FARTHEST).all() else None


def _check_axes(axes: Affine) -> None:
    edges = np.linalg.norm(axes, axis=0)
    if edges.min() == 0 or abs(np.linalg.det(axes / np.where(edges == 0, 1, edges))) < 0.1:
        raise PatientRefused("has a singular affine: its axes do not span space and cannot be inverted")
    if edges.min() < VOXEL_EDGE[0] or edges.max() > VOXEL_EDGE[1]:
        sizes = " x ".join(f"{edge:.4g}" for edge in edges)
        raise PatientRefused(
            f"has an implausible affine: voxels of {sizes} mm; {VOXEL_EDGE[0]} to {VOXEL_EDGE[1]:g} mm are read"
        )
    directions = axes / edges
    if np.abs(directions.T @ directions - np.eye(3)).max() > MAX_SHEAR:
        raise PatientRefused(
            "has a sheared affine: its axes are not at right angles; resample it to an orthogonal grid"
        )
    if len(set(np.abs(directions).argmax(axis=0))) < 3 or oblique_angle(directions) > MAX_OBLIQUE:
        raise PatientRefused(
            f"is rotated by {oblique_angle(directions):.0f} degrees: its orientation is ambiguous; resample it upright"
        )


def oblique_angle(directions: Affine) -> float:
    """Largest angle between a voxel axis and its nearest RAS axis, degrees."""
    return float(np.degrees(np.arccos(np.abs(directions).max(axis=0).clip(0, 1))).max())


def same_place(first: Affine, second: Affine, shape: tuple[int, ...]) -> bool:
    """Do two affines put every voxel of a grid within `PLACE_TOLERANCE` of each other?

    Args:
        first: (4, 4), voxel to mm.
        second: the other.
        shape: voxels an axis; the corners decide, as the difference of two affines is largest there.
    """
    corners = np.array(
        [[i, j, k, 1.0] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)]
    )
    return bool(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max() <= PLACE_TOLERANCE)
