"""Studies below a path: their files read once, headers alone; pixels only of files that are there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.hospital.study.facts import Header
from deploy.hospital.study.files import Files, require
from deploy.hospital.study.listing import list_files
from deploy.hospital.study.series import Series, group
from deploy.hospital.study.source import Rejected, UnreadableFile
from toolkit.data.patients import printable
from toolkit.errors import CohortError


@dataclass(frozen=True)
class Study:
    """All series that share one StudyInstanceUID.

    Attributes:
        uid: StudyInstanceUID.
        series: by number.
        rejected: files next to its own that are part of no series, with the reason.
    """

    uid: str
    series: tuple[Series, ...]
    rejected: tuple[Rejected, ...]

    @property
    def key(self) -> str:
        """A name that gives no patient away: the start of the UID's sha256, 16 hex digits."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:16]


def find_studies(path: Path, on_file: Callable[[object], None] | None = None) -> list[Study]:
    """The studies at or below a path; reads headers, and pixels only of files that carry the same SOPInstanceUID.

    Args:
        path: a folder, a zip, a DICOMDIR or one DICOM file.
        on_file: called after each file, for progress.

    Returns:
        One entry for each StudyInstanceUID, by the order of their files.

    Raises:
        CohortError: there is nothing at the path, or no DICOM file that can be read; the reason of the first is named.
        RuntimeUnavailable: the extra `hospital`, or a codec of it, is not installed.
    """
    require("pydicom")
    from deploy.hospital.study.headers import read_header

    listing = list_files(path)
    rejected = listing.rejected
    headers: dict[str, list[Header]] = {}
    with Files() as files:
        for source in listing.sources:
            try:
                header = read_header(files.open(source), source)
            except UnreadableFile as reason:
                rejected.append(Rejected(source, str(reason)))
            else:
                headers.setdefault(header.study, []).append(header)
            if on_file:
                on_file(source)
    if not headers:
        why = f": {rejected[0].source.name} {rejected[0].reason}" if rejected else ""
        raise CohortError(f"no DICOM file that can be read at or below {printable(str(path))}{why}.")
    return [Study(uid, group(members), _near(members, rejected, len(headers))) for uid, members in headers.items()]


def _near(members: list[Header], rejected: list[Rejected], studies: int) -> tuple[Rejected, ...]:
    """The rejected files of one study: those in its folders; all of them where there is one study."""
    if studies == 1:
        return tuple(rejected)
    folders = {_folder(header.source.path, header.source.member) for header in members}
    return tuple(one for one in rejected if _folder(one.source.path, one.source.member) in folders)


def _folder(path: Path, member: str) -> str:
    return f"{path}/{member}".rpartition("/")[0]
