"""Files that someone else may have made: read where they are plain files, and within limits."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

MOST_TEXT = 16 * 2**20  # bytes of settings, of a record or of a ticket
MOST_TABLE = 2**31  # bytes of a file that has something of every patient
MOST_LINE = 2**20  # bytes of a line about one patient


def open_plain(file: Path) -> BufferedReader:
    """A stream of a file's bytes; a pipe is not waited for, a device not read.

    Args:
        file: to read; a link to a plain file will do.

    Raises:
        OSError: it cannot be opened, or is not a plain file.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(file))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(file: Path, most: int = MOST_TEXT) -> bytes:
    """The content of a file.

    Args:
        file: to read; a link to a plain file will do.
        most: bytes that are read.

    Raises:
        OSError: it cannot be read, is not a plain file, or is larger.
    """
    with open_plain(file) as stream:
        content = stream.read(most + 1) if os.fstat(stream.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(file))
    return content


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not valid JSON, or nested too deep.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(file: Path, most: int = MOST_TEXT) -> Any:
    """The value of a JSON file.

    Args:
        file: to read; a link to a plain file will do.
        most: bytes that are read.

    Raises:
        OSError: as `read_bytes`.
        ValueError: as `parse_json`.
    """
    return parse_json(read_bytes(file, most))
