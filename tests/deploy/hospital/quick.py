"""An answerer without a network, so that what happens around it can be tested at speed; real objects all the same."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pydicom

from deploy.hospital.results.identity import Answer
from deploy.hospital.results.write import write_answer
from deploy.hospital.service.work import Answerer, OpenAnswerer, Outcome
from deploy.record import Record, Seconds
from toolkit.errors import GradeError

MODEL = "7f" * 32


def quick(seconds: float = 0.0) -> OpenAnswerer:
    """Opens an answerer: grades by the study's number; accession A00013 is refused, A00666 kills, A00500 fails."""
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
    record = Record(
        patient="study",
        folder=str(images),
        grade=None if refused else "HGG",
        probability=None if refused else round(len(headers) / 100, 4),  # tells how many images were seen
        threshold=0.5,
        verdict=None if refused else "certain",
        reason="there is no T1 after contrast" if refused else "",
        runtime="onnx fp32 cpu",
        seconds=Seconds(read=0.0, infer=0.0),
    )
    answer = Answer(record, MODEL, headers, {} if refused else {"t1": headers})
    write_answer(answer, (), ("sr",), results)
    return Outcome(record.grade, record.probability, record.verdict, record.reason)
