"""One NIfTI file: read fast, refuse what cannot be trusted.

A header that contradicts the data behind it is never repaired: the file must be exactly as long as its header says.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from toolkit.data.header import Affine, affine_of, layout_of, oblique_angle, parse_header, scaling_of
from toolkit.errors import PatientRefused

MAX_DEFLATE_RATIO = 1032  # no deflate stream expands more (zlib's technical notes)

_FOREIGN = (
    (b"version https://git-lfs", "is a Git-LFS pointer, not the image; fetch it with `git lfs pull`"),
    (b"PK\x03\x04", "is a zip archive, not a NIfTI file; unpack it first"),
    (b"BZh", "is compressed with bzip2; recompress it with gzip"),
    (b"\xfd7zXZ", "is compressed with xz; recompress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; recompress it with gzip"),
    (b"\x89HDF", "is an HDF5 or MINC file; convert it to NIfTI"),
)

Voxels: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Buffer: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


class Scratch:
    """Memory that is used again for one file after the other; it grows to the largest."""

    def __init__(self) -> None:
        self._memory: Buffer = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> Buffer:
        """The first `nbytes` bytes; what they held before is lost."""
        if len(self._memory) < nbytes:
            self._memory = np.empty(nbytes, np.uint8)
        return self._memory[:nbytes]


@dataclass(frozen=True)
class Volume:
    """One modality in RAS orientation.

    Attributes:
        voxels: stored numbers, (X, Y, Z), the file's dtype, in any memory order; X to the right, Y to the front, Z up.
        slope: factor of the header, finite and not 0; value = slope * voxel + inter.
        inter: offset of the header.
        affine: (4, 4) float64, voxel index to mm in RAS+.
        notes: oddities that were accepted, one phrase each.
    """

    voxels: Voxels
    slope: float
    inter: float
    affine: Affine
    notes: tuple[str, ...]


def read_nifti(path: Path, scratch: Scratch) -> Volume:
    """Read one `.nii` or `.nii.gz` to its last byte and turn it to RAS.

    Args:
        path: the file; whether it is gzipped is seen from its content, not from its name.
        scratch: where to decompress to; the volume lives there until the scratch is used again.

    Returns:
        The volume; nothing is scaled or copied beyond decompression.

    Raises:
        PatientRefused: the file is unreadable, damaged, no 3-D scalar image, or of unknown orientation.
    """
    raw = _read_bytes(path)
    notes: list[str] = []
    gzipped = raw[:2] == b"\x1f\x8b"
    if gzipped != path.name.lower().endswith(".gz"):
        notes.append(f"{path.name} is {'' if gzipped else 'not '}gzip-compressed, whatever its name says")
    try:
        header = parse_header(_head(raw) if gzipped else raw[:540])
        layout = layout_of(header)
        data = _decompress(raw, layout.nbytes, notes, scratch) if gzipped else np.frombuffer(raw, np.uint8)
        if len(data) != layout.nbytes:
            raise PatientRefused(_length_sentence(len(data), layout.nbytes))
        slope, inter = scaling_of(header, notes)
        affine = affine_of(header, notes)
    except PatientRefused as reason:
        raise PatientRefused(f"{path.name} {reason}") from None
    voxels = np.frombuffer(data, layout.dtype, offset=layout.offset).reshape(layout.shape, order="F")
    voxels, affine = _to_ras(voxels, affine, notes)
    return Volume(voxels, slope, inter, affine, tuple(notes))


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        what = "is a broken link" if path.is_symlink() else "vanished while it was being read"
        raise PatientRefused(f"{path.name} {what}") from None
    except IsADirectoryError:
        raise PatientRefused(f"{path.name} is a folder, not a file") from None
    except PermissionError:
        raise PatientRefused(f"{path.name} may not be read: permission denied") from None
    except OSError as error:
        raise PatientRefused(f"{path.name} cannot be read: {error.strerror or error}") from error
    if not raw:
        raise PatientRefused(f"{path.name} is empty (0 bytes)")
    for magic, sentence in _FOREIGN:
        if raw.startswith(magic):
            raise PatientRefused(f"{path.name} {sentence}")
    if raw[128:132] == b"DICM":
        raise PatientRefused(f"{path.name} is a DICOM file; convert the series to NIfTI, for example with dcm2niix")
    if raw[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise PatientRefused(f"{path.name} is a web page, not an image; the download went wrong")
    return raw


def _head(raw: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(raw[:65536], 540)
    except zlib.error as error:
        raise PatientRefused(f"is damaged: its gzip stream cannot be read ({error})") from None


def _decompress(raw: bytes, nbytes: int, notes: list[str], scratch: Scratch) -> Buffer:
    """All bytes of the stream, each member's CRC verified; at most one byte more than `nbytes` is kept."""
    if nbytes > len(raw) * MAX_DEFLATE_RATIO:
        raise PatientRefused(
            f"is truncated: {len(raw)} compressed bytes cannot hold the {nbytes} that its header describes"
        )
    out = scratch.take(nbytes)
    if int.from_bytes(raw[-4:], "little") == nbytes:  # the usual case: one member, and its length is the one expected
        try:
            decoded: Any = imagecodecs.gzip_decode(raw, out=out.data)
        except imagecodecs.DeflateError:
            pass  # damaged or of several members: the slow path knows which
        else:
            if len(decoded) == nbytes:
                return out
    return _decompress_members(raw, nbytes, notes)


def _decompress_members(raw: bytes, nbytes: int, notes: list[str]) -> Buffer:
    """The slow way, which reads several members and says what is wrong; libdeflate stops after the first."""
    out = bytearray()
    rest = raw
    try:
        while rest[:2] == b"\x1f\x8b" and len(out) <= nbytes:
            member = zlib.decompressobj(31)
            out += member.decompress(rest, nbytes + 1 - len(out))
            while not member.eof and member.unconsumed_tail and len(out) <= nbytes:
                out += member.decompress(member.unconsumed_tail, nbytes + 1 - len(out))
            if not member.eof and len(out) <= nbytes:
                raise PatientRefused(f"is truncated: its gzip stream ends early, after {len(out)} of {nbytes} bytes")
            rest = member.unused_data
    except zlib.error as error:
        raise PatientRefused(f"is damaged: its gzip stream is corrupt ({error})") from None
    if rest.strip(b"\0") and len(out) == nbytes:
        notes.append(f"{len(rest)} bytes behind the end of the gzip stream were ignored")
    return np.frombuffer(out, np.uint8)


def _length_sentence(found: int, described: int) -> str:
    if found < described:
        return f"is truncated: it holds {found} of the {described} bytes that its header describes"
    return f"contradicts itself: it holds more data than the {described} bytes that its header describes"


def _to_ras(voxels: Voxels, affine: Affine, notes: list[str]) -> tuple[Voxels, Affine]:
    orientation = io_orientation(affine)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if (angle := oblique_angle(directions)) > 1.0:
        notes.append(f"its axes are rotated by {angle:.0f} degrees; the nearest RAS axes were taken")
    return apply_orientation(voxels, orientation), affine @ inv_ornt_aff(orientation, voxels.shape)
