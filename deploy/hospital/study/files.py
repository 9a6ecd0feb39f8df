"""The files of a study: a folder, a zip or a DICOMDIR, at any depth and under any names; bad ones are named."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from deploy.hospital.study.source import (
    FIRST,
    LARGEST_MEMBER,
    NIFTI,
    OTHER,
    SMALL,
    Listing,
    Rejected,
    Source,
    UnreadableFile,
    is_start,
    plain,
)
from deploy.hospital.study.zips import add_members
from toolkit.data.patients import printable
from toolkit.errors import CohortError, RuntimeUnavailable

__all__ = ["Files", "Listing", "Rejected", "Source", "UnreadableFile", "is_dicom", "list_files", "require"]
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


def list_files(path: Path) -> Listing:
    """Every file at or below a path that may be DICOM.

    Args:
        path: a folder (symbolic links are followed), a zip, a DICOMDIR, or one DICOM file.

    Raises:
        CohortError: there is nothing at the path.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path's own raises where a folder above may not be opened
        raise CohortError(f"{printable(str(path))} does not exist or may not be opened.")
    listing = Listing()
    if path.is_dir():
        for file in _walk(path, (), listing):
            _add(file, listing)
    elif path.name.upper() == "DICOMDIR":
        from deploy.hospital.study.dicomdir import listed_files

        for file in listed_files(path, listing):
            _add(file, listing)
    else:
        _add(path, listing)
    return listing


def is_dicom(path: Path) -> bool:
    """Whether a path holds DICOM: a folder, a zip, a DICOMDIR or one file; opens files named as NIfTI never.

    Args:
        path: as a command got it.

    Returns:
        True as soon as one file starts as DICOM does; pydicom is not imported.
    """
    if not path.exists():
        return False
    if path.is_file():
        return _starts_as_dicom(path) or (zipfile.is_zipfile(path) and not NIFTI.search(path.name))
    return any(not NIFTI.search(file.name) and _starts_as_dicom(file) for file in _walk(path, (), Listing()))


def _walk(folder: Path, above: tuple[str, ...], listing: Listing) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that holds it
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.rejected.append(Rejected(Source(folder), f"the folder cannot be opened: {plain(error)}"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        path = folder / entry.name
        try:
            mode = path.stat().st_mode
        except OSError as error:
            listing.rejected.append(Rejected(Source(path), f"cannot be opened: {plain(error)}"))
            continue
        if stat.S_ISDIR(mode):
            yield from _walk(path, (*above, real), listing)
        elif stat.S_ISREG(mode):
            yield path
        else:
            listing.rejected.append(Rejected(Source(path), "is a pipe, a socket or a device, not a file"))


def _add(file: Path, listing: Listing) -> None:
    source = Source(file)
    if not file.is_file():
        listing.rejected.append(Rejected(source, "is not a regular file"))
        return
    try:
        if _starts_as_dicom(file):
            if file.name.upper() != "DICOMDIR":
                listing.sources.append(source)
        elif _is_zip(file):
            add_members(file, listing)
        elif not OTHER.search(file.name) and file.name.upper() != "DICOMDIR" and not NIFTI.search(file.name):
            reason = "is empty" if not file.stat().st_size else "is not DICOM: its header is missing or damaged"
            listing.rejected.append(Rejected(source, reason))
    except OSError as error:
        listing.rejected.append(Rejected(source, f"cannot be read: {plain(error)}"))


def _starts_as_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return is_start(stream.read(FIRST + 8))
    except OSError:
        return False


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06") and zipfile.is_zipfile(file)
