"""An answerer without a model, so that what happens around it can be tested at speed; its object says what it saw."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from deploy.hospital.service.work import Answerer, OpenAnswerer, Outcome
from deploy.results.record import Record, Seconds
from toolkit.errors import GradeError

MODEL = "7f" * 32
MISSING = "there is no T1 after contrast"


def quick(seconds: float = 0.0) -> OpenAnswerer:
    """Opens an answerer by the study's number: 13 is refused, 666 kills the worker, 500 fails, the rest are HGG."""
    return partial(_open, seconds)


def broken() -> Answerer:
    raise GradeError("there is no model here; export one.")


def _open(seconds: float) -> Answerer:
    return partial(_answer, seconds)


def _answer(seconds: float, images: Path, results: Path) -> Outcome:
    time.sleep(seconds)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(images.glob("*.dcm"))]
    accession = headers[0].AccessionNumber
    if accession == "A00666":
        os.kill(os.getpid(), signal.SIGKILL)
    if accession == "A00500":
        raise GradeError("out of memory; use a smaller batch size.")
    refused = accession == "A00013"
    results.mkdir()
    _report(headers, MISSING if refused else "").save_as(results / "sr.dcm", enforce_file_format=True)
    if refused:
        return Outcome(None, None, None, MISSING)
    return Outcome("HGG", len(headers) / 100, "single grade", "")


def _report(headers: list[Dataset], reason: str) -> Dataset:
    """One object a study, with the number of images in Instance Number."""
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = ComprehensiveSRStorage
    study = headers[0].StudyInstanceUID
    report.SOPInstanceUID = generate_uid(entropy_srcs=[study, "answer"])
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    report.StudyInstanceUID = study
    report.SeriesInstanceUID = generate_uid(entropy_srcs=[study, "series"])
    report.PatientID = headers[0].PatientID
    report.PatientName = headers[0].PatientName
    report.Modality = "SR"
    report.InstanceNumber = len(headers)
    report.SeriesDescription = reason
    return report


def full() -> Answerer:
    """An answerer that writes the real report and picture of a fixed record, as the pipeline does."""
    return _answer_in_full


def _answer_in_full(images: Path, results: Path) -> Outcome:
    from deploy.hospital.results.identity import Answer
    from deploy.hospital.results.write import write_answer

    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(images.glob("*.dcm"))]
    record = record_of_phantom()
    write_answer(Answer(record, MODEL, headers, {"t1": headers}), (), ("sr", "sc"), results)
    return Outcome(record.grade, record.probability, record.verdict, record.reason)


def record_of_phantom() -> Record:
    return Record(
        patient="phantom",
        folder="",
        grade="LGG",
        probability=0.123456789,
        threshold=0.4321,
        verdict="single grade",
        grades=("LGG",),
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.0, infer=0.0),
    )
