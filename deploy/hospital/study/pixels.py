"""The pixels of one file: decoded by pydicom's plug-ins, once its size agrees with what the header says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from deploy.hospital.study.codestream import claimed_size
from deploy.hospital.study.facts import Header
from deploy.hospital.study.files import Files, require
from deploy.hospital.study.headers import damage_named, read_dataset
from deploy.hospital.study.source import UnreadableFile

_STORED = ("PixelData", "PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit")  # with the syntax: the image
_RLE = "1.2.840.10008.1.2.5"
_ROOM = 65536  # bytes that a compressed image may have beyond its raw size


@contextmanager
def open_pixels(header: Header, files: Files) -> Iterator[Callable[[int], NDArray[np.generic]]]:
    """A function from an image's index to its stored values, (rows, columns).

    Args:
        header: of the file.
        files: open.

    Raises:
        UnreadableFile: the file vanished, changed, is cut off, or cannot be decoded.
    """
    ds = read_dataset(header.source, files)
    name = header.source.name
    plugin = "pydicom" if header.syntax == _RLE else ""  # pylibjpeg's, in Rust, panics on damaged segments
    try:
        with damage_named():
            _checked(ds, header)

        def decode(index: int) -> NDArray[np.generic]:
            try:
                with damage_named():
                    pixels = pixel_array(ds, index=index, raw=True, decoding_plugin=plugin)
            except UnreadableFile as reason:
                raise UnreadableFile(f"cannot be decoded: {name} {reason}") from None
            if pixels.shape != (header.rows, header.columns):
                raise UnreadableFile(
                    f"cannot be decoded: {name} holds {pixels.shape} values, not {header.rows} x {header.columns}"
                )
            return pixels

        yield decode
    except UnreadableFile as reason:
        text = str(reason)
        raise UnreadableFile(text if text.startswith("cannot") else f"cannot be read: {name} {text}") from None


def same_pixels(first: Header, second: Header) -> bool:
    """Whether two files hold the same stored values; they are decoded only where their bytes or their coding differ.

    Args:
        first: of a file with as many images, rows and columns as the other.
        second: of the other.

    Returns:
        False also where they differ in bytes and one of them cannot be decoded.

    Raises:
        RuntimeUnavailable: a codec of the extra `hospital` is missing.
    """
    try:
        with Files() as files:
            if _stored(first, files) == _stored(second, files):
                return True
            with open_pixels(first, files) as one, open_pixels(second, files) as other:
                same = [np.array_equal(one(frame.index), other(frame.index)) for frame in first.frames]
                return bool(same) and all(same)
    except UnreadableFile:
        return False


def _stored(header: Header, files: Files) -> list[object]:
    ds = read_dataset(header.source, files)
    with damage_named():
        return [header.syntax, *(ds.get(keyword) for keyword in _STORED)]


def _checked(ds: FileDataset, header: Header) -> None:
    if str(ds.get("SOPInstanceUID", "")).strip("\0 ") != header.sop:
        raise UnreadableFile("was replaced while it was read")
    if "PixelData" not in ds:
        raise UnreadableFile(
            "has no pixel data" if "FloatPixelData" not in ds else "has floating-point pixels, not stored values"
        )
    count = max(len(header.frames), 1)
    raw = header.rows * header.columns * header.bits // 8
    syntax = UID(header.syntax or "1.2.840.10008.1.2")
    if not syntax.is_transfer_syntax:
        raise UnreadableFile(f"has the unknown transfer syntax {header.syntax[:64]}")
    if not syntax.is_compressed or "1.2.1.99" in header.syntax:
        if len(ds.PixelData) < count * raw:
            raise UnreadableFile(f"is cut off: {len(ds.PixelData)} of {count * raw} bytes of its pixels are there")
        return
    if header.syntax != _RLE:
        require("pylibjpeg")
    frames = list(generate_frames(ds.PixelData, number_of_frames=count))
    if len(frames) != count:
        raise UnreadableFile(f"is cut off: {len(frames)} of {count} compressed images are there")
    for frame in frames:
        size = claimed_size(frame)
        if len(frame) > 2 * raw + _ROOM or (size is not None and size != (header.rows, header.columns, 1)):
            claims = " x ".join(map(str, size)) if size else f"{len(frame)} bytes"
            raise UnreadableFile(
                f"claims {claims} in its compressed image where the header says {header.rows} x {header.columns}"
            )
        if size is None and header.syntax != _RLE:
            raise UnreadableFile("has a compressed image without a header")
