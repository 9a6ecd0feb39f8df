"""Records become answers in the studies they are about; what has no record or is no DICOM is left alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pydicom

from deploy.hospital.dicom_out import Out, write_answers
from deploy.hospital.results.report import read_values
from deploy.hospital.study.kinds import SeriesRules
from deploy.hospital.study.study import find_studies
from deploy.model.folder import Model
from deploy.results.record import Record, Seconds
from tests.deploy.hospital.quick import MODEL
from tests.deploy.hospital.tiny import tiny_study, write_study


def test_refused_studies_get_their_reasons(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_study(tiny_study(number), tmp_path / "studies" / str(number))
    (tmp_path / "nifti").mkdir()
    studies = find_studies(tmp_path / "studies")
    records = [
        Record(
            patient=study.key,
            folder=str(tmp_path),
            threshold=0.5,
            reason=f"study {place} has too few slices",
            runtime="onnx fp32 cpu",
            seconds=Seconds(read=0.0, infer=0.0),
        )
        for place, study in enumerate(studies[:2])
    ]
    how = Out(
        cast(
            "Model",
            SimpleNamespace(fingerprint=MODEL, manifest=SimpleNamespace(training=SimpleNamespace(origin=""))),
        ),
        SeriesRules(),
        ("sr", "sc"),
    )
    assert write_answers([tmp_path / "studies", tmp_path / "nifti"], records, how, tmp_path / "out") == 2
    for place, study in enumerate(studies[:2]):
        report = pydicom.dcmread(tmp_path / "out" / study.key / "sr.dcm")
        assert report.StudyInstanceUID == study.uid
        assert read_values(report)["reason"] == f"study {place} has too few slices"
        assert (tmp_path / "out" / study.key / "sc.dcm").is_file()
    assert not (tmp_path / "out" / studies[2].key).exists()
