"""Who: patient folders and which of their files is which modality.

Modalities are matched by the last token of a file's name, never by a pattern on `t1`, which would also match `t1ce`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.arrays import Int64
from toolkit.data.walk import IMAGE, find_folders, unique_ids
from toolkit.data.walk import printable as printable  # noqa: PLC0414 - the others import it from here
from toolkit.errors import CohortError, PatientRefused

MODALITIES = ("flair", "t1", "t1ce", "t2")  # channel order, stored in every artifact
CLASSES = ("LGG", "HGG")  # class index = position

# BraTS 2012-2021: t1 t1ce t2 flair (t1gd in TCIA's release); 2023: t1n t1c t2w t2f; UCSF-PDGM: T1 T1c T2 FLAIR;
# UPENN-GBM and EGD: T1 T1GD T2 FLAIR; LUMIERE: T1 CT1 T2 FLAIR.
_TOKENS = {
    "flair": {"flair", "t2f", "t2flair"},
    "t1": {"t1", "t1n", "t1w", "t1pre"},
    "t1ce": {"t1ce", "t1c", "t1gd", "t1gad", "t1post", "t1wce", "ct1"},
    "t2": {"t2", "t2w"},
    "seg": {"seg", "segm", "segmentation", "mask", "label"},
}
_MEANING = {token: name for name, tokens in _TOKENS.items() for token in tokens}
_CONTRAST = re.compile(r"(?:^|_)ce-(?!none)[a-z0-9]+_", re.IGNORECASE)  # BIDS: sub-01_ce-gadolinium_T1w
_HALF_PAIR = re.compile(r"\.img(\.gz)?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Patient:
    """One folder with four modalities.

    Attributes:
        id: the folder's name (of BIDS `sub-01` or `sub-01_ses-1`), one line of UTF-8; unique within one call.
        folder: where the files are.
    """

    id: str
    folder: Path


@dataclass(frozen=True)
class MatchedFiles:
    """The files of one patient.

    Attributes:
        modalities: name -> file, in the order of `MODALITIES`.
        seg: tumour mask, if there is one.
        notes: what was passed over.
    """

    modalities: dict[str, Path]
    seg: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cohort:
    """Patients with known grades.

    Attributes:
        patients: in a fixed order.
        grades: 0 LGG, 1 HGG, one for each patient.
        sites: where the patient was scanned, None when unknown; one for each patient, or empty.
        notes: what was left out, one sentence each.
        labels: a sentence about where the grades come from, and which values mean which; empty when not known.
    """

    patients: tuple[Patient, ...]
    grades: tuple[int, ...]
    sites: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()
    labels: str = ""

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def grade_array(self) -> Int64:
        """The grades as int64 (N,)."""
        return np.array(self.grades, np.int64)

    def joined(self, other: Cohort) -> Cohort:
        """These patients followed by others."""
        sites = self.sites or (None,) * len(self), other.sites or (None,) * len(other)
        return Cohort(
            self.patients + other.patients, self.grades + other.grades, sites[0] + sites[1], labels=self.labels
        )

    def select(self, indices: Sequence[int]) -> Cohort:
        """The patients at these positions, in the order asked for."""
        return Cohort(
            tuple(self.patients[i] for i in indices),
            tuple(self.grades[i] for i in indices),
            tuple(self.sites[i] for i in indices) if self.sites else (),
            labels=self.labels,
        )


def find_patients(paths: Sequence[Path]) -> tuple[Patient, ...]:
    """Patient folders at or below some paths, sorted by path; symbolic links are followed, but no folder comes twice.

    Args:
        paths: patient folders, or folders that hold them at any depth.

    Returns:
        Each real folder that directly holds NIfTI files, once. Where two share a name, their ids are relative paths.
        What `grade` wrote is no patient; of BIDS, `anat` folders of the raw data are.

    Raises:
        CohortError: a path does not exist, or no patient is below any of them.
    """
    for path in paths:
        if os.path.isfile(path):  # noqa: PTH113 - Path's own raise where a folder above may not be opened
            raise CohortError(f"{printable(str(path))} is a file; name the patient's folder.")
        if not os.path.isdir(path):  # noqa: PTH112
            raise CohortError(f"{printable(str(path))} does not exist or may not be opened.")
    folders = find_folders([_absolute(path) for path in paths], lambda name: _meaning(name) in MODALITIES)
    if not folders:
        where = ", ".join(printable(str(path)) for path in paths) or "nothing"
        raise CohortError(
            f"no patient below {where}: a patient is a folder that directly holds NIfTI files. Results of grade, and "
            "derivatives of BIDS where the raw data are, do not count."
        )
    return tuple(Patient(name, folder) for name, folder in zip(unique_ids(folders), folders, strict=True))


def match_modalities(folder: Path, optional: Sequence[str] = ()) -> MatchedFiles:
    """Which file of a patient folder is which modality.

    Args:
        folder: the patient's folder.
        optional: modalities of which one may be missing.

    Returns:
        Exactly one file for each modality that is there; files of other meaning are passed over.

    Raises:
        PatientRefused: a modality is missing or there twice, or the folder cannot be listed.
    """
    found: dict[str, list[str]] = {name: [] for name in _TOKENS}
    hidden = 0
    names = _list(folder)
    headers = {IMAGE.sub("", name) for name in names if name.lower().rstrip().endswith(".hdr")}
    for name in names:
        if _HALF_PAIR.search(name) and IMAGE.sub("", name) in headers:
            continue  # the other half of a pair
        if name.startswith("."):
            hidden += bool(IMAGE.search(name))
        elif meaning := _meaning(name):
            found[meaning].append(name)
    for modality in MODALITIES:
        if len(found[modality]) > 1:
            doubles = ", ".join(map(printable, found[modality]))
            raise PatientRefused(f"more than one file is {modality}: {doubles}; keep one of them")
    missing = [modality for modality in MODALITIES if not found[modality]]
    if missing and not (len(missing) == 1 and missing[0] in optional):
        raise PatientRefused(f"{' and '.join(missing)} missing: no file whose name ends in {_endings(missing)}")
    notes = (f"{hidden} hidden image file{'s' * (hidden > 1)} passed over",) if hidden else ()
    seg = folder / found["seg"][0] if len(found["seg"]) == 1 else None
    return MatchedFiles({name: folder / found[name][0] for name in MODALITIES if found[name]}, seg, notes)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace a linked folder's name, which is its id


def _list(folder: Path) -> list[str]:
    name = printable(folder.name)
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        raise PatientRefused(f"the folder {name} vanished") from None
    except PermissionError:
        raise PatientRefused(f"the folder {name} may not be opened: permission denied") from None
    except OSError as error:
        raise PatientRefused(f"the folder {name} cannot be opened: {error.strerror or error}") from error


def _meaning(name: str) -> str | None:
    stem, images = IMAGE.subn("", name)
    if not images:
        return None
    tokens = [token for token in re.split(r"[\W_]+", stem.lower()) if token]
    meaning = _MEANING.get(tokens[-1]) if tokens else None
    if meaning == "t1" and _CONTRAST.search(stem):
        return "t1ce"
    of_the_brain = meaning == "seg" and tokens[-2:-1] in (["brain"], ["parenchyma"])  # not of the tumour
    return None if of_the_brain else meaning


def _endings(modalities: list[str]) -> str:
    return "; ".join(" or ".join(sorted(_TOKENS[modality])) for modality in modalities)
