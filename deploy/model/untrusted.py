"""Reading what a stranger may have made: plain files, JSON and arrays of a model folder, each within limits.

The bytes that are returned are the bytes that were checked: nothing is opened a second time by its name.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from toolkit.errors import ModelError

MOST_BYTES = 2**31  # of one file: what protobuf, and so a graph, can hold
MOST_JSON = 16 * 2**20
MOST_ARRAY = 256 * 2**20  # bytes of one array after unpacking
_PLAIN = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ARRAY_ERRORS = (
    OSError, EOFError, ValueError, KeyError, SyntaxError, TypeError, OverflowError, NotImplementedError, RuntimeError,
    MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_plain(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file; a link, pipe or device is not opened, and no more than `most` bytes are read.

    Raises:
        ModelError: it is missing, not a regular file, larger, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} is not a regular file; copy or export the model again.")
            if status.st_size > most:
                raise ModelError(f"{path} has {status.st_size} bytes, more than {most}; export the model again.")
            content = stream.read(most + 1)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise ModelError(f"{path} cannot be read: {reason}; copy or export the model again.") from None
    if len(content) > most:
        raise ModelError(f"{path} grew while it was read; copy or export the model again.")
    return content


def parse_json(content: bytes, name: str) -> Any:
    """The value of a JSON text, however deep it is nested.

    Raises:
        ModelError: it is not valid JSON.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError:
        raise ModelError(f"{name} is nested too deep; copy or export the model again.") from None
    except ValueError as error:
        raise ModelError(f"{name} is no valid JSON: {error}; copy or export the model again.") from None


def read_arrays(content: bytes, shapes: Mapping[str, tuple[int | None, ...]], name: str) -> dict[str, Any]:
    """The arrays of an `.npz`, float64, each of the shape that it must have; no pickle is opened.

    Args:
        content: of the file.
        shapes: name -> shape, None for a length that is free.
        name: of the file, for a sentence.

    Raises:
        ModelError: it is no such file, lacks an array, or one has another shape or type, is not finite, or would unpack
            to more than 256 MiB.
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return {key: _array(archive, key, shape) for key, shape in shapes.items()}
    except _ARRAY_ERRORS as error:
        reason = str(error).strip("'\"") or type(error).__name__
        raise ModelError(f"{name} cannot be read: {reason}; export the model again.") from None


def _array(archive: zipfile.ZipFile, key: str, shape: tuple[int | None, ...]) -> np.ndarray[Any, Any]:
    found = archive.getinfo(f"{key}.npy")
    if found.compress_type not in _PLAIN:
        raise ValueError(f"{key} is packed in a way that NumPy does not use")
    with archive.open(found) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{key} has version {version}")
        size, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        fits = len(size) == len(shape) and all(want in (None, n) for n, want in zip(size, shape, strict=False))
        if not fits or by_column or dtype not in (np.dtype("<f4"), np.dtype("<f8")):
            wanted = " x ".join("any" if n is None else str(n) for n in shape) or "one number"
            raise ValueError(f"{key} is {dtype} of shape {size}, not float of {wanted}")
        count = math.prod(size) * dtype.itemsize
        if min(size, default=1) < 0 or count > MOST_ARRAY or count >= found.file_size:
            raise ValueError(f"{key} of {count} bytes is too large")
        data = stream.read(count)
    array = np.frombuffer(data, dtype).reshape(size).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{key} holds a number that is not finite")
    return array


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
