"""The size that a compressed image claims: a decoder takes memory for it before anybody can compare it."""

from __future__ import annotations

import struct

_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # frame headers of JPEG, and of JPEG-LS


def claimed_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples that a JPEG, JPEG-LS or JPEG 2000 codestream claims.

    Args:
        data: one encoded frame.

    Returns:
        None where it has no such header.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1.
    """
    if data[:4] == b"\xff\x4f\xff\x51":
        return _jpeg2000(data)
    box = data.find(b"\xff\x4f\xff\x51", 0, 4096) if data[4:8] == b"jP  " else -1
    if box >= 0:
        return _jpeg2000(data[box:])
    return _jpeg(data) if data[:2] == b"\xff\xd8" else None


def _jpeg2000(data: bytes) -> tuple[int, int, int] | None:
    if len(data) < 42:
        return None
    x, y, x0, y0 = struct.unpack(">4I", data[8:24])
    return y - y0, x - x0, struct.unpack(">H", data[40:42])[0]


def _jpeg(data: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill bytes
            at += 1
        elif data[at + 1] in _SOF:
            rows, columns, samples = struct.unpack(">HHB", data[at + 5 : at + 10])
            return rows, columns, samples
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None
