"""The members of a zip that may be DICOM; bombs, links and names that lead out of it are named."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from deploy.hospital.study.source import (
    FIRST,
    LARGEST_MEMBER,
    NIFTI,
    OTHER,
    SMALL,
    Listing,
    Rejected,
    Source,
    is_start,
    plain,
)

LARGEST_ZIP = 8 << 30  # bytes of all members, unpacked
MOST_MEMBERS = 100_000
HIGHEST_RATIO = 200  # unpacked over packed; MR images reach 4, an empty slice 100


def add_members(file: Path, listing: Listing) -> None:
    """List the members of a zip without unpacking it.

    Args:
        file: the zip.
        listing: gets those that may be DICOM, and those that may not be read, with the reason.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > MOST_MEMBERS or total > LARGEST_ZIP:
                listing.rejected.append(Rejected(Source(file), _bomb(len(members), total)))
                return
            _add_each(archive, members, listing)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, RuntimeError) as error:
        listing.rejected.append(Rejected(Source(file), f"is a damaged zip: {plain(error)}"))


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
                first = stream.read(FIRST + 8)
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
            listing.rejected.append(Rejected(source, f"cannot be unpacked: {plain(error)}"))
            continue
        if is_start(first):
            listing.sources.append(source)
        elif first[:4] == b"PK\x03\x04":
            listing.rejected.append(Rejected(source, "is a zip inside a zip; unpack it first"))
        elif not OTHER.search(parts[-1]) and not NIFTI.search(parts[-1]):
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
    if member.file_size > SMALL and member.file_size > HIGHEST_RATIO * max(member.compress_size, 1):
        return f"unpacks to {member.file_size // max(member.compress_size, 1)} times its size, as only a zip bomb does"
    return ""


def _bomb(count: int, total: int) -> str:
    return (
        f"holds {count} files of {total / 2**30:.1f} GiB; "
        f"the limits of a zip are {MOST_MEMBERS} files and {LARGEST_ZIP >> 30} GiB"
    )
