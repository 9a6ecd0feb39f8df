"""Where a file is, and whether it may be DICOM at all: what folders, zips and DICOMDIRs have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.data.patients import printable

SMALL = 16 << 20  # bytes; smaller files are read in one go
FIRST = 132  # preamble and magic word
OTHER = re.compile(r"\.(?!dcm$|dicom$|ima$|dic$)[a-z][a-z0-9]{1,5}$", re.IGNORECASE)  # a viewer's files on a DVD
NIFTI = re.compile(r"\.(nii(\.gz)?|hdr|img(\.gz)?)\s*$", re.IGNORECASE)
LARGEST_MEMBER = 512 << 20  # bytes of one unpacked member of a zip, which is read into memory


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


def is_start(first: bytes) -> bool:
    """Whether a file that begins so may be DICOM; its first 140 bytes are enough."""
    if first[128:132] == b"DICM":
        return True
    group = first[:2]  # files without a preamble begin with their first element: an explicit VR or a short length
    return (
        group in (b"\x08\x00", b"\x02\x00")
        and first[3:4] == b"\x00"
        and len(first) > 8
        and (first[4:6].isalpha() or first[6:8] == b"\x00\x00")
    )


def plain(error: Exception) -> str:
    """What an error says, without its number and path."""
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
