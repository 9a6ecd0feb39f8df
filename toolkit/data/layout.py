"""What folders mean: BIDS, sessions of a person, and what `grade` itself wrote among patients."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from pathlib import Path

from toolkit.plain import open_plain

EVIDENCE_MARK = b"evidence, logit of HGG minus LGG"  # `descrip` of the maps that a report writes
PHANTOM_MARK = b"phantom by grade, not a person"  # `descrip` of the images that `grade phantom` writes
PHANTOMS = "Phantoms made by `grade phantom` are among these patients: never for patients."  # in a cohort's `labels`
_DESCRIP = slice(148, 228)  # nifti1.h

# BIDS 1.10: sub-<label>/[ses-<label>/]<datatype>/, labels of letters and digits.
_SUBJECT = re.compile(r"sub-[a-z0-9]+", re.IGNORECASE)
_SESSION = re.compile(r"ses-[a-z0-9]+", re.IGNORECASE)
_ANATOMY = "anat"
_DATATYPES = {
    *("func", "dwi", "fmap", "perf", "pet", "eeg", "ieeg", "meg", "beh", "micr", "nirs", "motion", "mrs", "swi", "xfm"),
}
_NOT_RAW = {"derivatives", "sourcedata"}
# Folders inside a person's own: a session, or a date.
_VISIT = re.compile(
    r"(ses(sion)?|visit|time-?point|tp|baseline|follow-?up|pre-?op|post-?op)([-_ ]?\d+|[-_ ][a-z0-9]+)?|anat"
    r"|(19|20)\d\d-?[01]\d-?[0-3]\d",
    re.IGNORECASE,
)
_RESULTS = {"records.jsonl", "predictions.csv", "predictions.json", "audit.jsonl"}
_OF_RESULTS = {"evidence", "patients"}


def not_patients(folder: Path, files: Collection[str], folders: Collection[str]) -> set[str]:
    """Folders in a folder that hold no patients, whatever images are in them.

    Those are: what a report wrote into results of `grade`; `derivatives` and `sourcedata` next to subjects of BIDS,
    which hold the same persons again; and next to a BIDS subject's `anat`, images that are not anatomical.

    Args:
        folder: the folder.
        files: names of its files.
        folders: names of the folders in it.
    """
    found: set[str] = set()
    if len(_RESULTS.intersection(files)) > 1:
        found |= _OF_RESULTS
    if any(_SUBJECT.fullmatch(name) for name in folders):
        found |= _NOT_RAW
    if _ANATOMY in folders and _of_subject(folder):
        found |= _DATATYPES
    return found


def is_evidence(file: Path) -> bool:
    """Whether an image is an evidence map that `grade` wrote, by its header."""
    return _description(file).startswith(EVIDENCE_MARK)


def is_phantom(folder: Path) -> bool:
    """Whether a patient folder holds a patient that `grade phantom` made, by the header of its first image."""
    images = sorted(file for file in folder.iterdir() if file.name.endswith((".nii", ".nii.gz")))
    return bool(images) and _description(images[0]).startswith(PHANTOM_MARK)


def _description(file: Path) -> bytes:
    """The header's `descrip`; empty where it cannot be read."""
    try:
        with open_plain(file) as stream:
            head = stream.read(4096)
        if head.startswith(b"\x1f\x8b"):
            head = zlib.decompressobj(wbits=31).decompress(head, 348)
    except (OSError, zlib.error):
        return b""
    return head[_DESCRIP]


def short_name(folder: Path) -> str:
    """What a patient's folder is called: its name; of BIDS, `sub-01` or `sub-01_ses-1`."""
    bids = _bids(folder)
    return "_".join(bids) if bids else folder.name


def person_names(folder: Path) -> set[str]:
    """Names by which a table may call the person whose session a folder is; none where the folder is the patient's."""
    if bids := _bids(folder):
        return {bids[0], "_".join(bids), "/".join(bids)}
    return {folder.parent.name} if _VISIT.fullmatch(folder.name) and folder.parent.name else set()


def person_folder(folder: Path) -> Path | None:
    """The folder of the person whose session a folder is, of BIDS the raw one; None where it is no session."""
    if bids := _bids(folder):
        subject = folder.parents[len(bids) - 1]
        parts = subject.parent.parts
        if "derivatives" in parts:
            return Path(*parts[: parts.index("derivatives")], subject.name)
        return subject
    return folder.parent if _VISIT.fullmatch(folder.name) else None


def _bids(folder: Path) -> tuple[str, ...] | None:
    """Subject, or subject and session, of an `anat` folder."""
    above = folder.parent
    if folder.name != _ANATOMY or not _of_subject(above):
        return None
    return (above.name,) if _SUBJECT.fullmatch(above.name) else (above.parent.name, above.name)


def _of_subject(folder: Path) -> bool:
    return bool(
        _SUBJECT.fullmatch(folder.name) or (_SESSION.fullmatch(folder.name) and _SUBJECT.fullmatch(folder.parent.name))
    )
