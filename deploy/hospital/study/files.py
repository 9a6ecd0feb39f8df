"""The files of a study: a folder, a zip or a DICOMDIR, at any depth and under any names; bad ones are named."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from toolkit.data.patients import printable
from toolkit.errors import CohortError, RuntimeUnavailable

LARGEST_FILE = 2 << 30  # bytes; a slice has 0.5 MB, an enhanced 3-D series 100 MB
LARGEST_MEMBER = 512 << 20  # bytes of one unpacked member of a zip, which is read into memory
LARGEST_ZIP = 8 << 30  # bytes of all members, unpacked
MOST_MEMBERS = 100_000
HIGHEST_RATIO = 200  # unpacked over packed; MR images reach 4, an empty slice 100
_FIRST = 132  # preamble and magic word
_SMALL = 16 << 20  # bytes; smaller files are read in one go
_NIFTI = re.compile(r"\.(nii(\.gz)?|hdr|img(\.gz)?)\s*$", re.IGNORECASE)
_OTHER = re.compile(r"\.(?!dcm$|dicom$|ima$|dic$)[a-z][a-z0-9]{1,5}$", re.IGNORECASE)  # a viewer's files on a DVD


@dataclass(frozen=True)
class Source:
    """Where one file is.

    Attributes:
        path: the file, or the zip that holds it.
        member: its name inside the zip; empty for a file of its own.
    """

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """The file's name, as one printable line."""
        return printable(f"{self.path.name}/{self.member}" if self.member else self.path.name)


@dataclass(frozen=True)
class Rejected:
    """A file that is part of no series.

    Attributes:
        source: where it is.
        reason: why, without a full stop.
    """

    source: Source
    reason: str


@dataclass
class Listing:
    """What a path holds.

    Attributes:
        sources: files that may be DICOM, in a fixed order.
        rejected: files that cannot be read, with the reason.
    """

    sources: list[Source] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


class UnreadableFile(Exception):
    """One file cannot be used; the text is the reason. It never leaves this room."""


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
            raise UnreadableFile(f"cannot be read: {_plain(error)}") from error
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
    if size > _SMALL:
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
        return _starts_as_dicom(path) or (zipfile.is_zipfile(path) and not _NIFTI.search(path.name))
    return any(not _NIFTI.search(file.name) and _starts_as_dicom(file) for file in _walk(path, (), Listing()))


def _walk(folder: Path, above: tuple[str, ...], listing: Listing) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that holds it
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.rejected.append(Rejected(Source(folder), f"the folder cannot be opened: {_plain(error)}"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        path = folder / entry.name
        try:
            mode = path.stat().st_mode
        except OSError as error:
            listing.rejected.append(Rejected(Source(path), f"cannot be opened: {_plain(error)}"))
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
            _add_members(file, listing)
        elif not _OTHER.search(file.name) and file.name.upper() != "DICOMDIR" and not _NIFTI.search(file.name):
            reason = "is empty" if not file.stat().st_size else "is not DICOM: its header is missing or damaged"
            listing.rejected.append(Rejected(source, reason))
    except OSError as error:
        listing.rejected.append(Rejected(source, f"cannot be read: {_plain(error)}"))


def _starts_as_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return _is_start(stream.read(_FIRST + 8))
    except OSError:
        return False


def _is_start(first: bytes) -> bool:
    if first[128:132] == b"DICM":
        return True
    group = first[:2]  # files without a preamble begin with their first element: an explicit VR or a short length
    return (
        group in (b"\x08\x00", b"\x02\x00")
        and first[3:4] == b"\x00"
        and len(first) > 8
        and (first[4:6].isalpha() or first[6:8] == b"\x00\x00")
    )


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06") and zipfile.is_zipfile(file)


def _add_members(file: Path, listing: Listing) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MOST_MEMBERS or total > LARGEST_ZIP:
                listing.rejected.append(Rejected(Source(file), _bomb(len(members), total)))
                return
            _add_each(archive, members, listing)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, RuntimeError) as error:
        listing.rejected.append(Rejected(Source(file), f"is a damaged zip: {_plain(error)}"))


def _add_each(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], listing: Listing) -> None:
    names: set[str] = set()
    for member in members:
        source = Source(Path(str(archive.filename)), member.filename)
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        hidden = any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)
        if member.is_dir() or hidden or parts[-1:] == ("DICOMDIR",):
            continue
        reason = _member_fault(member, parts) or ("is in the zip twice" if member.filename in names else "")
        names.add(member.filename)
        if reason:
            listing.rejected.append(Rejected(source, reason))
            continue
        try:
            with archive.open(member) as stream:
                first = stream.read(_FIRST + 8)
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
            listing.rejected.append(Rejected(source, f"cannot be unpacked: {_plain(error)}"))
            continue
        if _is_start(first):
            listing.sources.append(source)
        elif first[:4] == b"PK\x03\x04":
            listing.rejected.append(Rejected(source, "is a zip inside a zip; unpack it first"))
        elif not _OTHER.search(parts[-1]) and not _NIFTI.search(parts[-1]):
            listing.rejected.append(Rejected(source, "is not DICOM: its header is missing or damaged"))


def _member_fault(member: zipfile.ZipInfo, parts: tuple[str, ...]) -> str:
    if ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        return "points outside the zip"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link inside a zip"
    if member.flag_bits & 1:
        return "is encrypted; unpack the zip with its password first"
    if member.file_size > LARGEST_MEMBER:
        return f"unpacks to {member.file_size / 2**20:.0f} MiB; the limit is {LARGEST_MEMBER >> 20} MiB"
    if member.file_size > _SMALL and member.file_size > HIGHEST_RATIO * max(member.compress_size, 1):
        return f"unpacks to {member.file_size // max(member.compress_size, 1)} times its size, as only a zip bomb does"
    return ""


def _bomb(count: int, total: int) -> str:
    return (
        f"holds {count} files of {total / 2**30:.1f} GiB; "
        f"the limits of a zip are {MOST_MEMBERS} files and {LARGEST_ZIP >> 30} GiB"
    )


def _plain(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
