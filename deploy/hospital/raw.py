"""Four raw NIfTI files of one head: not stripped, not registered, each in its own grid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from deploy.hospital.ingest import Refused, Source
from deploy.hospital.study.facts import digest
from deploy.hospital.volume import Volume
from toolkit.data.memory import Scratch
from toolkit.data.patients import Patient, find_patients, match_modalities
from toolkit.data.reading.nifti import read_nifti
from toolkit.errors import PatientRefused
from toolkit.plain import open_plain


def raw_sources(path: Path) -> Iterator[Source | Refused]:
    """Each folder at or below a path that directly holds NIfTI files.

    Raises:
        CohortError: there is none.
    """
    for patient in find_patients([path]):
        try:
            yield raw_source(patient)
        except PatientRefused as reason:
            yield Refused(patient.id, patient.folder, str(reason))


def raw_source(patient: Patient) -> Source:
    """A patient folder with four raw files, as something to bring in.

    Args:
        patient: as `find_patients` gives it; its id is kept.

    Raises:
        PatientRefused: a modality is missing or there twice, or a file cannot be read.
    """
    files = match_modalities(patient.folder).modalities
    hashes = {name: _hash(file) for name, file in files.items()}
    content = hashlib.sha256(
        "\n".join(f"{name} {value}" for name, value in sorted(hashes.items())).encode()
    ).hexdigest()
    facts = {"kind": "nifti", "files": hashes}
    return Source(patient.id.replace("/", "_"), content, facts, partial(_read, files), (digest(patient.id),))


def _read(files: Mapping[str, Path]) -> Mapping[str, Volume]:
    series = {}
    for name, file in files.items():
        found = read_nifti(file, Scratch())
        values = found.voxels.astype(np.float32) * np.float32(found.slope) + np.float32(found.inter)
        if not np.isfinite(values).all():
            raise PatientRefused(f"{name} holds numbers that are not finite")
        series[name] = Volume(values, found.affine)
    return series


def _hash(file: Path) -> str:
    try:
        with open_plain(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PatientRefused(f"{file.name} cannot be read: {error.strerror}") from None
