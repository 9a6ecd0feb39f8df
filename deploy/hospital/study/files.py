"""The files of a study, opened: on disk or inside a zip, within limits."""

from __future__ import annotations

import io
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from deploy.hospital.study.source import (
    LARGEST_MEMBER,
    SMALL,
    Source,
    UnreadableFile,
    plain,
)
from toolkit.errors import RuntimeUnavailable

LARGEST_FILE = 2 << 30  # bytes; a slice has 0.5 MB, an enhanced 3-D series 100 MB


class Files:
    """Opens sources for reading; keeps the zip of the last one open."""

    def __init__(self) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._path: Path | None = None

    def __enter__(self) -> Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the zip go."""
        if self._zip is not None:
            self._zip.close()
        self._zip = self._path = None

    def open(self, source: Source) -> BinaryIO:
        """A seekable stream whose reads never ask for more memory than the file has bytes.

        Raises:
            UnreadableFile: the file vanished, is too large, or its member cannot be unpacked.
        """
        try:
            return io.BytesIO(self._unpack(source)) if source.member else _open(source.path)
        except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            raise UnreadableFile(f"cannot be read: {plain(error)}") from error
        except zlib.error as error:
            raise UnreadableFile(f"cannot be unpacked: {error}") from error

    def _unpack(self, source: Source) -> bytes:
        if self._zip is None or self._path != source.path:
            self.close()
            self._zip, self._path = zipfile.ZipFile(source.path), source.path
        with self._zip.open(source.member) as stream:
            return stream.read(LARGEST_MEMBER + 1)


class _Clamped(io.BufferedReader):
    """Reads that ask for more than is left take no memory for it: a damaged length may claim 4 GB."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(io.FileIO(path))
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _open(path: Path) -> BinaryIO:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise UnreadableFile(f"has {size / 2**30:.1f} GiB; the limit is {LARGEST_FILE >> 30} GiB")
    if size > SMALL:
        return _Clamped(path, size)
    return io.BytesIO(path.read_bytes())


def require(package: str) -> None:
    """See that a package of the extra `hospital` is installed.

    Raises:
        RuntimeUnavailable: it is not.
    """
    if find_spec(package) is None:
        raise RuntimeUnavailable(
            f"reading DICOM needs the package {package}, which is missing; pip install 'glioma-grade[hospital]'."
        )
