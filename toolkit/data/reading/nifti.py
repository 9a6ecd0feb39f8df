"""One NIfTI file: read fast, refuse what cannot be trusted.

A header that contradicts the data behind it is never repaired: the file must be exactly as long as its header says.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from toolkit.arrays import Voxels
from toolkit.data.memory import Buffer, Scratch
from toolkit.data.patients import printable
from toolkit.data.reading.header import MAX_BYTES, Affine, oblique_angle, read_header
from toolkit.errors import PatientRefused

GZIP = b"\x1f\x8b"
HEAD = 540  # bytes; the longer of the two headers
MAX_DEFLATE_RATIO = 1032  # no deflate stream expands more (zlib's technical notes)
MAX_MEMBERS = 1 << 16  # of one gzip stream; blocks of 64 KiB need 4096 at most
CHUNK = 1 << 14  # bytes that are inflated at a time

_FOREIGN = (
    (b"version https://git-lfs", "is a Git-LFS pointer, not the image; fetch it with `git lfs pull`"),
    (GZIP, "is compressed with gzip twice; decompress it once"),
    (b"PK\x03\x04", "is a zip archive, not a NIfTI file; unpack it first"),
    (b"BZh", "is compressed with bzip2; recompress it with gzip"),
    (b"\xfd7zXZ", "is compressed with xz; recompress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; recompress it with gzip"),
    (b"\x89HDF", "is an HDF5 or MINC file; convert it to NIfTI"),
)


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


def read_nifti(path: Path, scratch: Scratch, on_bytes: Callable[[bytes], None] | None = None) -> Volume:
    """Read one `.nii` or `.nii.gz` to its last byte and turn it to RAS.

    Args:
        path: the file; whether it is gzipped is seen from its content, not from its name.
        scratch: where to decompress to; the volume lives there until the scratch is used again.
        on_bytes: called with the file's bytes before anything is made of them.

    Returns:
        The volume; nothing is scaled or copied beyond decompression.

    Raises:
        PatientRefused: the file is unreadable, damaged, no 3-D scalar image, or of unknown orientation.
    """
    notes: list[str] = []
    name = printable(path.name)
    try:
        raw = _read_bytes(path)
        if on_bytes:
            on_bytes(raw)
        gzipped = raw[:2] == GZIP
        if gzipped != name.lower().rstrip().endswith(".gz"):
            notes.append(f"{name} is {'' if gzipped else 'not '}gzip-compressed, whatever its name says")
        head = bytes(_inflate(raw, HEAD)[0]) if gzipped else raw[:HEAD]
        _refuse_foreign(head)
        header = read_header(head)
        layout = header.layout
        data = _decompress(raw, layout.nbytes, notes, scratch) if gzipped else np.frombuffer(raw, np.uint8)
        if len(data) != layout.nbytes:
            raise PatientRefused(_length_sentence(len(data), layout.nbytes))
    except PatientRefused as reason:
        raise PatientRefused(f"{name} {reason}") from None
    voxels = np.frombuffer(data, layout.dtype, offset=layout.offset).reshape(layout.shape, order="F")
    notes += header.notes
    voxels, affine = _to_ras(voxels, header.affine, notes)
    return Volume(voxels, header.slope, header.inter, affine, tuple(notes))


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PatientRefused("is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise PatientRefused("is a pipe or a device, not a file")
        if status.st_size > MAX_BYTES + (1 << 20):  # what cannot be compressed grows a little
            raise PatientRefused(f"is too large: {status.st_size >> 20} MiB, at most {MAX_BYTES >> 20} are read")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PatientRefused("is a broken link" if path.is_symlink() else "vanished while it was being read") from None
    except PermissionError:
        raise PatientRefused("may not be read: permission denied") from None
    except OSError as error:
        raise PatientRefused(f"cannot be read: {error.strerror or error}") from None
    if not raw:
        raise PatientRefused("is empty (0 bytes)")
    return raw


def _refuse_foreign(head: bytes) -> None:
    """Say what a file is that is no NIfTI file, when that is plain."""
    for magic, sentence in _FOREIGN:
        if head.startswith(magic):
            raise PatientRefused(sentence)
    if head[128:132] == b"DICM":
        raise PatientRefused("is a DICOM file; convert the series to NIfTI, for example with dcm2niix")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise PatientRefused("is a web page, not an image; the download went wrong")


def _inflate(raw: bytes, limit: int) -> tuple[bytearray, int]:
    """Decompress member after member, each CRC verified, until the stream ends or `limit` bytes are there.

    Returns:
        The bytes, and where in `raw` the stream ended.
    """
    out, place, members = bytearray(), 0, 0
    member = zlib.decompressobj(31)
    try:
        while len(out) < limit:
            if members == 0 or member.eof:
                if raw[place : place + 2] != GZIP:
                    break
                if (members := members + 1) > MAX_MEMBERS:
                    raise PatientRefused(f"is cut into more than {MAX_MEMBERS} gzip members; compress it in one")
                member = zlib.decompressobj(31)
            elif place == len(raw):
                raise PatientRefused(f"is truncated: its gzip stream ends early, after {len(out)} bytes")
            chunk = raw[place : place + CHUNK]
            out += member.decompress(chunk, limit - len(out))
            place += len(chunk) - len(member.unused_data)
    except zlib.error as error:
        raise PatientRefused(f"is damaged: its gzip stream is corrupt ({error})") from None
    return out, place


def _decompress(raw: bytes, nbytes: int, notes: list[str], scratch: Scratch) -> Buffer:
    """All bytes of the stream, each member's CRC verified; at most one byte more than `nbytes` is kept."""
    if nbytes > len(raw) * MAX_DEFLATE_RATIO:
        raise PatientRefused(
            f"is truncated: {len(raw)} compressed bytes cannot hold the {nbytes} that its header describes"
        )
    # A member ends with its length. Found at the end alone, it proves that there is one member, of the length expected:
    # the usual case, for libdeflate, which is fast but stops behind the first member without a word.
    if raw.endswith(nbytes.to_bytes(4, "little")) and _count_words(raw, nbytes) == 1:
        out = scratch.take(nbytes)
        try:
            decoded: Any = imagecodecs.gzip_decode(raw, out=out.data)
        except imagecodecs.DeflateError:
            pass  # damaged: the slow way knows how
        else:
            if len(decoded) == nbytes:
                return out
    data, end = _inflate(raw, nbytes + 1)
    if len(data) == nbytes and raw[end:].strip(b"\0"):
        notes.append(f"{len(raw) - end} bytes behind the end of the gzip stream were ignored")
    return np.frombuffer(data, np.uint8)


def _count_words(raw: bytes, word: int) -> int:
    """How often four bytes occur, little-endian, at any place; three times as fast as `bytes.find`."""
    words = (np.frombuffer(raw, "<u4", (len(raw) - start) // 4, start) for start in range(4))
    return sum(int(np.count_nonzero(view == word)) for view in words)


def _length_sentence(found: int, described: int) -> str:
    if found < described:
        return f"is truncated: it holds {found} of the {described} bytes that its header describes"
    return f"contradicts itself: it holds more data than the {described} bytes that its header describes"


def _to_ras(voxels: Voxels, affine: Affine, notes: list[str]) -> tuple[Voxels, Affine]:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = np.abs(directions).argmax(axis=0)  # three different axes: the header was checked
    orientation = np.column_stack([nearest, np.sign(directions[nearest, range(3)])])
    if (angle := oblique_angle(directions)) > 1.0:
        notes.append(f"its axes are rotated by {angle:.0f} degrees; the nearest RAS axes were taken")
    return apply_orientation(voxels, orientation), affine @ inv_ornt_aff(orientation, voxels.shape)
