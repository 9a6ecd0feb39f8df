"""A DICOMDIR: the index of a DVD, which names the files that belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploy.hospital.study.files import Files, require
from deploy.hospital.study.source import Listing, Rejected, Source, UnreadableFile
from toolkit.data.patients import printable
from toolkit.errors import CohortError


def listed_files(index: Path, listing: Listing) -> Iterator[Path]:
    """The files that a DICOMDIR names, below its folder.

    Args:
        index: the DICOMDIR.
        listing: gets what is named and cannot be taken: files outside the folder, files that are missing.

    Raises:
        CohortError: the index cannot be read; its folder can be given instead.
    """
    require("pydicom")
    from deploy.hospital.study.headers import file_ids

    try:
        with Files() as files:
            names = file_ids(files.open(Source(index)))
    except UnreadableFile as error:
        raise CohortError(
            f"{printable(str(index))} {error}; name its folder, whose files are read one by one."
        ) from None
    for parts in names:
        name = "/".join(parts)
        if any(part in ("..", ".", "") or "/" in part or "\\" in part or "\0" in part for part in parts):
            listing.rejected.append(
                Rejected(Source(index, name), "is listed in the DICOMDIR, and points outside its folder")
            )
            continue
        found = _find(index.parent, parts)
        if found is None:
            listing.rejected.append(Rejected(Source(index, name), "is listed in the DICOMDIR, and is missing"))
        elif not found.resolve().is_relative_to(index.parent.resolve()):
            listing.rejected.append(Rejected(Source(index, name), "is a link that leads out of the DICOMDIR's folder"))
        else:
            yield found


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """A file by its parts; copies of discs may have names in lower case, or with `.` or `;1` after them."""
    for part in parts:
        direct = folder / part
        if not direct.exists():
            try:
                same = (path for path in sorted(folder.iterdir()) if _bare(path.name) == _bare(part))
                found = next(same, None)
            except OSError:
                return None
            if found is None:
                return None
            direct = found
        folder = direct
    return folder if folder.is_file() else None


def _bare(name: str) -> str:
    return name.split(";", maxsplit=1)[0].rstrip(".").upper()
