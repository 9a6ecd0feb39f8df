"""One study -> one patient folder in BraTS's layout: four images, the brain mask, `ingest.json`, a page for the eye."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from deploy.hospital.page import draw_page
from deploy.hospital.space.brain import Brain
from deploy.hospital.space.pose import AFFINE
from deploy.hospital.space.prepare import RECIPE, Prepared, prepare
from deploy.hospital.volume import Volume
from deploy.predict.brought import RECORD, read_record
from toolkit.data.patients import MODALITIES, Patient
from toolkit.errors import PatientRefused
from toolkit.files import building, check_output, put
from toolkit.machine import versions

PAGE = "ingest.png"
MASK = "brain_mask"  # a name that the door passes over: it is no tumour mask
FORMAT = 1
SPACE = "brats"
LIBRARIES = ("glioma-grade", "SimpleITK", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "pydicom", "highdicom")


@dataclass(frozen=True)
class Source:
    """A study that may be brought in.

    Attributes:
        id: of the patient folder; gives no patient away.
        content: SHA-256 of what is read.
        facts: for the record: kind of the input, hashed UIDs, choices with reasons; no names.
        read: gives modality -> volume, with the skull; raises PatientRefused.
        names: SHA-256 of what a table of labels may call it: PatientID first, StudyInstanceUID; never written anywhere.
        person: by which patients are told apart; empty: by the id.
    """

    id: str
    content: str
    facts: Mapping[str, Any]
    read: Callable[[], Mapping[str, Volume]]
    names: tuple[str, ...] = ()
    person: str = ""


@dataclass(frozen=True)
class Refused:
    """A study that was not brought in: its id, where it is, and why."""

    id: str
    folder: Path
    reason: str


@dataclass(frozen=True)
class Ingested:
    """A patient folder that was brought in, now or by an earlier call with the same input."""

    patient: Patient
    notes: tuple[str, ...]
    seconds: float
    kept: bool


def ingest(source: Source, out: Path, brain: tuple[Brain, str], on_stage: Callable[[str], None]) -> Ingested:
    """Bring one study in: `out/<id>/`, whole or not at all.

    Args:
        source: the study.
        out: the folder of patient folders.
        brain: the opened network, and the SHA-256 of its file.
        on_stage: called with what begins, in a few words.

    Returns:
        The patient folder; the one that is there already where it was made from the same content the same way.

    Raises:
        PatientRefused: the study cannot be trusted.
        ModelError: the folder cannot be written, or holds something else.
    """
    started = perf_counter()
    folder = out / source.id
    network, brain_hash = brain
    made_from = {"content": source.content, "brain": brain_hash, "recipe": RECIPE}
    if (notes := _kept(folder, made_from)) is not None:
        return Ingested(Patient(source.id, folder), notes, perf_counter() - started, True)
    check_output(folder, RECORD, "patient brought in by grade", _written(folder.name))
    on_stage("reading the series")
    series = source.read()
    reading = perf_counter() - started
    prepared = prepare(series, network, on_stage)
    on_stage("writing")
    with building(folder, "patient folder") as hidden:
        for name, voxels in prepared.images.items():
            _save(hidden / f"{source.id}_{name}.nii.gz", voxels)
        _save(hidden / f"{source.id}_{MASK}.nii.gz", prepared.mask.astype(np.uint8))
        draw_page(hidden / PAGE, prepared)
        seconds = {"reading": reading, **prepared.seconds, "all": perf_counter() - started}
        record = _record(source, series, prepared, made_from, seconds)
        (hidden / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        put(hidden, folder)
    return Ingested(Patient(source.id, folder), prepared.notes, perf_counter() - started, False)


def write_refusal(refused: Refused, out: Path) -> Patient:
    """A folder `out/<id>/` that holds the reason alone, so that a prediction refuses the patient with it.

    Raises:
        ModelError: the folder cannot be written, or holds something else.
    """
    folder = out / refused.id
    check_output(folder, RECORD, "patient brought in by grade", _written(folder.name))
    record = {"format": FORMAT, "patient": refused.id, "space": SPACE, "notes": [], "refused": refused.reason}
    with building(folder, "patient folder") as hidden:
        (hidden / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        put(hidden, folder)
    return Patient(refused.id, folder)


def _written(patient: str) -> set[str]:
    return {RECORD, PAGE, *(f"{patient}_{name}.nii.gz" for name in (*MODALITIES, MASK))}


def _kept(folder: Path, made_from: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The notes of a patient folder made from the same content the same way; None where there is none."""
    try:
        record = read_record(folder)
    except PatientRefused:
        return None
    same = record is not None and record.get("made_from") == dict(made_from)
    return tuple(record["notes"]) if same and record is not None else None


def _save(file: Path, voxels: NDArray[Any]) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, "aligned")
    image.set_sform(AFFINE, "aligned")
    nib.save(image, file)


def _record(
    source: Source,
    series: Mapping[str, Volume],
    prepared: Prepared,
    made_from: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "patient": source.id,
        "space": SPACE,
        "notes": list(prepared.notes),
        "made_from": dict(made_from),
        "input": dict(source.facts),
        "series": {
            name: {
                "shape": list(volume.voxels.shape),
                "spacing_mm": np.linalg.norm(volume.affine[:3, :3], axis=0).round(4).tolist(),
                "multiplied_by": prepared.scales[name],
                "from_brats_to_series": prepared.matrices[name].round(6).tolist(),
            }
            for name, volume in series.items()
        },
        "alignments": {
            name: {
                "information_nats": round(found.information, 4),
                "agreement_mm": round(found.agreement, 3),
                "starts": [
                    {
                        "start": start.name,
                        "information_nats": round(start.information, 4),
                        "mm": round(start.distance, 3),
                    }
                    for start in found.starts
                    if np.isfinite(start.information)
                ],
            }
            for name, found in prepared.alignments.items()
        },
        "pose": {
            "degrees": [round(angle, 3) for angle in prepared.pose.angles],
            "scale_dropped": [round(scale, 4) for scale in prepared.pose.scale],
            "agreement_mm": round(prepared.pose.agreement, 3),
            "information_nats": round(prepared.pose.information, 4),
        },
        "figures": {name: round(float(value), 4) for name, value in prepared.figures.items()},
        "brain_mask_on": prepared.device,
        "versions": versions(LIBRARIES),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
