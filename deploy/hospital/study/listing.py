"""What a path holds: every file of a folder, a zip or a DICOMDIR that may be DICOM; bad ones are named."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from deploy.hospital.study.source import FIRST, NIFTI, OTHER, Listing, Rejected, Source, is_start, plain
from deploy.hospital.study.zips import add_members
from toolkit.data.patients import printable
from toolkit.data.walk import identity
from toolkit.errors import CohortError


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
        for file in _walk(path, listing):
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
    return any(not NIFTI.search(file.name) and _starts_as_dicom(file) for file in _walk(path, Listing()))


def _walk(top: Path, listing: Listing) -> Iterator[Path]:
    """Files below a folder. Each real folder is looked into once, at any depth, whatever links lead to it."""
    seen: set[object] = set()
    stack = [top]
    while stack:
        folder = stack.pop()
        if (known := identity(folder)) in seen:
            continue
        seen.add(known)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            listing.rejected.append(Rejected(Source(folder), f"the folder cannot be opened: {plain(error)}"))
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = folder / entry.name
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                listing.rejected.append(Rejected(Source(path), f"cannot be opened: {plain(error)}"))
                continue
            if stat.S_ISDIR(mode):
                inner.append(path)
            elif stat.S_ISREG(mode):
                yield path
            else:
                listing.rejected.append(Rejected(Source(path), "is a pipe, a socket or a device, not a file"))
        stack += reversed(inner)


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
