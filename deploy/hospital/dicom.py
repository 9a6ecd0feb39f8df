"""The studies at a path as things to bring in: four series chosen each, or refused with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deploy.hospital.ingest import Refused, Source
from deploy.hospital.study.choose import Selection, check_forced, choose_series
from deploy.hospital.study.facts import digest
from deploy.hospital.study.files import Files
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.series import Series
from deploy.hospital.study.source import UnreadableFile
from deploy.hospital.study.study import Study, find_studies
from deploy.hospital.study.volume_reader import read_volume
from deploy.hospital.volume import Volume
from toolkit.errors import PatientRefused


def study_sources(path: Path, rules: SeriesRules) -> Iterator[Source | Refused]:
    """Each study at or below a path.

    Args:
        path: a folder, a zip, a DICOMDIR or one DICOM file.
        rules: the site's names, and what the user forces.

    Raises:
        CohortError: there is no DICOM file that can be read, or a series is forced and there are several studies.
    """
    studies = find_studies(path)
    check_forced(studies, rules)
    for study in studies:
        try:
            yield _source(study, choose_series(study, rules))
        except PatientRefused as reason:
            yield Refused(study.key, path, str(reason))


def _source(study: Study, selection: Selection) -> Source:
    chosen = selection.chosen
    facts = {
        "kind": "dicom",
        "study": digest(study.uid),
        "series": [
            {
                "uid": digest(row.series.uid),
                "number": row.series.number,
                "images": row.series.count,
                "kind": row.kind,
                "outcome": row.outcome,
                "reason": row.reason,
            }
            for row in selection.rows
        ],
        "files_left_out": len(study.rejected),
    }
    head = next(iter(chosen.values())).head
    names = (head.patient_id, digest(study.uid), digest(study.key))
    return Source(study.key, _content(chosen), facts, partial(_read, chosen), names, head.patient)


def _read(chosen: Mapping[str, Series]) -> Mapping[str, Volume]:
    return {name: read_volume(series) for name, series in chosen.items()}


def _content(chosen: Mapping[str, Series]) -> str:
    """SHA-256 of the chosen series' files, and of which is which."""
    whole = hashlib.sha256()
    with Files() as files:
        for name, series in chosen.items():
            whole.update(name.encode())
            for instance in series.instances:
                whole.update(_digest_file(files, instance).encode())
    return whole.hexdigest()


def _digest_file(files: Files, instance: Any) -> str:
    try:
        with files.open(instance.source) as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except (OSError, UnreadableFile) as error:
        raise PatientRefused(f"{instance.source.name} cannot be read: {error}") from None
