"""`grade predict STUDY --dicom-out DIR`: the answers to studies, written as DICOM after the grading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset

from deploy.hospital.results.evidence_map import REFERENCE, Evidence
from deploy.hospital.results.identity import Answer
from deploy.hospital.results.pictures import Level, key_pictures
from deploy.hospital.results.write import write_answer
from deploy.hospital.study.choose import choose_series
from deploy.hospital.study.files import Files
from deploy.hospital.study.headers import read_dataset
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.listing import is_dicom
from deploy.hospital.study.series import Series
from deploy.hospital.study.study import Study, find_studies
from deploy.model.folder import Model
from deploy.predict.brought import RECORD, read_record
from deploy.results.names import map_of
from deploy.results.record import Record
from deploy.runtime import Array
from toolkit.data.patients import Patient
from toolkit.data.reading.header import Affine
from toolkit.data.scan import read_scan
from toolkit.errors import PatientRefused

MAP = "map"
PICTURED = {"sc", "pdf", MAP}  # kinds of objects with pictures


@dataclass(frozen=True)
class Out:
    """How answers are written.

    Attributes:
        model: that graded.
        rules: that the series were chosen by.
        kinds: of objects.
        results: folder of the results, with evidence maps where they were asked for; None for none.
    """

    model: Model
    rules: SeriesRules
    kinds: Sequence[str]
    results: Path | None = None


class Shown(NamedTuple):
    """What an answer shows beyond words."""

    levels: Sequence[Level] = ()
    evidence: Evidence | None = None


def write_answers(paths: Iterable[Path], records: Iterable[Record], how: Out, folder: Path) -> int:
    """Write `folder/KEY/sr.dcm` and so on for each study that has a record.

    Args:
        paths: that were graded; those that hold no DICOM have no study to answer.
        records: of the studies, found by their key; refused ones too.
        how: see `Out`.
        folder: of the answers.

    Returns:
        How many studies were answered.

    Raises:
        GradeError: an answer cannot be written.
    """
    by_key: Mapping[str, Record] = {record.patient: record for record in records}
    count = 0
    for path in filter(is_dicom, paths):
        for study in find_studies(path):
            record = by_key.get(study.key)
            if record is None:
                continue
            shown = _shown(record, how) if PICTURED & set(how.kinds) else Shown()
            write_study(study, record, shown, how, folder / study.key)
            count += 1
    return count


def write_study(study: Study, record: Record, shown: Shown, how: Out, folder: Path) -> list[Path]:
    """Write one study's answer; see `write_answers`."""
    used: dict[str, list[Dataset]] = {}
    if record.grade is not None:
        used = {name: _headers([series]) for name, series in choose_series(study, how.rules).chosen.items()}
    origin = how.model.manifest.training.origin
    answer = Answer(record, how.model.fingerprint, _headers(study.series), used, origin=origin)
    return write_answer(answer, shown.levels, how.kinds, folder, shown.evidence)


def located(evidence: Array | None, affine: Affine, patient: Path) -> Evidence | None:
    """A map in the frame of the patient's T1 after contrast.

    Args:
        evidence: (X, Y, Z) on the scan's grid; None for none.
        affine: (4, 4), from voxels to mm in the space of the patient folder.
        patient: folder that the study was brought into.

    Raises:
        PatientRefused: the folder does not say how it was brought in.
    """
    if evidence is None:
        return None
    try:
        series = (read_record(patient) or {})["series"]
        back = np.array(series[REFERENCE]["from_brats_to_series"], np.float64).reshape(4, 4)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise PatientRefused(f"{RECORD} cannot be read: {error}; ingest the study again") from None
    return Evidence(evidence, back @ affine)


def read_map(file: Path) -> Array | None:
    """The evidence map of a patient as `--report` writes it; None where there is none."""
    return np.asarray(nib.load(file).dataobj, np.float32) if file.is_file() else None


def _shown(record: Record, how: Out) -> Shown:
    """Key pictures and evidence map, from the patient folder that the study was brought into."""
    if record.grade is None:
        return Shown()
    try:
        scan = read_scan(Patient(record.patient, Path(record.folder)), how.model.manifest.grid)
        evidence = None if how.results is None else read_map(map_of(how.results, record.patient))
        return Shown(key_pictures(scan.data, evidence), located(evidence, scan.affine, Path(record.folder)))
    except PatientRefused:  # its folder has gone since
        return Shown()


def _headers(series: Iterable[Series]) -> list[Dataset]:
    with Files() as files:
        return [read_dataset(image.source, files, pixels=False) for one in series for image in one.instances]
