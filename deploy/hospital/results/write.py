"""Answers as DICOM files, each whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from deploy.hospital.results.capture import build_capture
from deploy.hospital.results.document import build_document
from deploy.hospital.results.evidence_map import Evidence, build_map
from deploy.hospital.results.identity import Answer
from deploy.hospital.results.pictures import Level
from deploy.hospital.results.report import build_report
from toolkit.errors import GradeError
from toolkit.files import replacing


def write_answer(
    answer: Answer, levels: Sequence[Level], kinds: Sequence[str], folder: Path, evidence: Evidence | None = None
) -> list[Path]:
    """Write the objects of one study's answer, such as `sr.dcm` and `sc.dcm`.

    Args:
        answer: of a graded or a refused study.
        levels: key pictures; none of a refused study.
        kinds: of `sr`, `sr3d`, `sc`, `pdf`, `map`.
        folder: made where it is missing, for its owner alone.
        evidence: without it no `map` is written.

    Returns:
        The files, in the order of `kinds`.

    Raises:
        GradeError: they cannot be written.
    """
    builders: dict[str, Callable[[], Dataset]] = {
        "sr": partial(build_report, answer, "sr"),
        "sr3d": partial(build_report, answer, "sr3d"),
        "sc": partial(build_capture, answer, levels),
        "pdf": partial(build_document, answer, levels),
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GradeError(f"answers cannot be written to {folder}: {error.strerror}; name another folder.") from error
    if evidence is not None and answer.record.grade is not None:
        builders["map"] = partial(build_map, answer, evidence)
    kinds = [kind for kind in kinds if kind in builders]
    files = [folder / f"{kind}.dcm" for kind in kinds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # highdicom's print a patient's name that has no family name
        for kind, file in zip(kinds, files, strict=True):
            save(builders[kind](), file)
    return files


def save(instance: Dataset, file: Path) -> None:
    """Write one object, whole or not at all.

    Raises:
        GradeError: it cannot be written.
    """
    with replacing(file) as stream:
        instance.save_as(stream, enforce_file_format=True)
