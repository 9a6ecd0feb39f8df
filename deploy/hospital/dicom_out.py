"""`grade predict STUDY --dicom-out DIR`: the answers to studies, written as DICOM after the grading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from deploy.hospital.results.identity import Answer
from deploy.hospital.results.pictures import Level, key_pictures
from deploy.hospital.results.write import write_answer
from deploy.hospital.study.choose import choose_series
from deploy.hospital.study.files import Files, is_dicom
from deploy.hospital.study.headers import read_dataset
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.series import Series
from deploy.hospital.study.study import Study, find_studies
from deploy.model.folder import Model
from deploy.results.record import Record
from toolkit.data.patients import Patient
from toolkit.data.scan import read_scan
from toolkit.errors import PatientRefused

PICTURED = {"sc", "pdf"}  # kinds of objects with key pictures


@dataclass(frozen=True)
class Out:
    """How answers are written.

    Attributes:
        model: that graded.
        rules: that the series were chosen by.
        kinds: of objects.
    """

    model: Model
    rules: SeriesRules
    kinds: Sequence[str]


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
            levels = _levels(record, how.model) if PICTURED & set(how.kinds) else ()
            write_study(study, record, levels, how, folder / study.key)
            count += 1
    return count


def write_study(study: Study, record: Record, levels: Sequence[Level], how: Out, folder: Path) -> list[Path]:
    """Write one study's answer; see `write_answers`."""
    used: dict[str, list[Dataset]] = {}
    if record.grade is not None:
        used = {name: _headers([series]) for name, series in choose_series(study, how.rules).chosen.items()}
    answer = Answer(record, how.model.fingerprint, _headers(study.series), used)
    return write_answer(answer, levels, how.kinds, folder)


def _levels(record: Record, model: Model) -> Sequence[Level]:
    """Key pictures from the patient folder that the study was brought into."""
    if record.grade is None:
        return ()
    try:
        return key_pictures(read_scan(Patient(record.patient, Path(record.folder)), model.manifest.grid).data)
    except PatientRefused:  # its folder has gone since
        return ()


def _headers(series: Iterable[Series]) -> list[Dataset]:
    with Files() as files:
        return [read_dataset(image.source, files, pixels=False) for one in series for image in one.instances]
