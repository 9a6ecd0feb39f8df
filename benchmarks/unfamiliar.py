"""Which spoilt scans does a model call unfamiliar?

    python -m benchmarks.unfamiliar MODEL PATIENTS --count 12

Spoils copies of patients that the model has not seen in several ways and counts the verdicts: every spoilt kind should
be called unfamiliar (or be refused), patients as they are seldom. The same patient is always spoilt in the same way.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.common import arguments, report
from deploy.model.folder import Model, open_model
from deploy.predict.pipeline import PredictOptions, predict
from deploy.results.record import Record
from deploy.runtime import Choice
from toolkit.config import PredictSettings
from toolkit.data.patients import MODALITIES, Patient, find_patients, match_modalities

Images: TypeAlias = dict[str, np.ndarray]
Kind: TypeAlias = Callable[[Images, np.ndarray, float, np.random.Generator], Images]
COLUMNS = ("kind", "patients", "unfamiliar", "by distance", "by images", "refused", "commonest statistics")


def as_it_is(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """The brain as it was."""
    return images


def noise(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """Signal-to-noise of about 3."""
    return {k: np.where(mask, v + rng.normal(0, 0.35 * v[mask].mean(), v.shape), 0) for k, v in images.items()}


def blurred(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """2.5 mm standard deviation, at 1 mm."""
    return {k: np.where(mask, ndimage.gaussian_filter(v, 2.5 / edge), 0) for k, v in images.items()}


def scaled(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """Every modality in other units."""
    return {k: 100 * v for k, v in images.items()}


def one_scaled(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """T1ce in other units."""
    return {k: 100 * v if k == "t1ce" else v for k, v in images.items()}


def skull(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """A dark gap, then a bright scalp of 6 mm around the head."""
    gap = ndimage.binary_dilation(mask, iterations=max(1, round(5 / edge)))
    scalp = ndimage.binary_dilation(gap, iterations=max(1, round(6 / edge)))
    out = {}
    for name, v in images.items():
        shell = np.where(scalp & ~gap, 1.6, 0.15) * v[mask].mean() * rng.uniform(0.8, 1.2, v.shape)
        out[name] = np.where(mask, v, np.where(scalp, shell, 0))
    return out


def cropped(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """The left half is gone."""
    half = int(ndimage.center_of_mass(mask)[0])
    return {k: np.where(np.arange(v.shape[0])[:, None, None] < half, v, 0) for k, v in images.items()}


def half_empty(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """The upper half of the brain is gone."""
    half = int(ndimage.center_of_mass(mask)[2])
    return {k: np.where(np.arange(v.shape[2]) < half, v, 0) for k, v in images.items()}


def half_empty_t2(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """The upper half of T2 is gone."""
    half = int(ndimage.center_of_mass(mask)[2])
    return {k: np.where(np.arange(v.shape[2]) < half, v, 0) if k == "t2" else v for k, v in images.items()}


def metastases(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """Seven ring-enhancing spheres of 8 to 14 mm across with oedema, spread over the brain."""
    deep = np.argwhere(ndimage.binary_erosion(mask, iterations=max(1, round(12 / edge))))
    out = {k: v.copy() for k, v in images.items()}
    grid = np.indices(mask.shape)
    for centre in deep[rng.choice(len(deep), 7)]:
        away = edge * np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0))
        radius = rng.uniform(4, 7)
        oedema, ring, core = (away < 2 * radius) & mask, (away < radius) & mask, (away < 0.5 * radius) & mask
        for k, factor in (("flair", 1.7), ("t2", 1.6), ("t1", 0.85)):
            out[k][oedema] *= factor
        out["t1ce"][ring] *= 1.8
        out["t1ce"][core] *= 0.4
    return out


def upside_down(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """All images turned over, which the headers do not say."""
    return {k: v[:, :, ::-1] for k, v in images.items()}


def back_to_front(images: Images, mask: np.ndarray, edge: float, rng: np.random.Generator) -> Images:
    """The same along the other axis."""
    return {k: v[:, ::-1] for k, v in images.items()}


KINDS: tuple[Kind, ...] = (
    as_it_is, noise, blurred, scaled, one_scaled, skull, cropped, half_empty, half_empty_t2, metastases, upside_down,
    back_to_front,
)  # fmt: skip


def spoil(patient: Patient, kind: Kind, folder: Path) -> Patient:
    """Write a spoilt copy."""
    rng = np.random.default_rng(list(f"{kind.__name__} {patient.id}".encode()))
    files = match_modalities(patient.folder).modalities
    loaded = {name: nib.load(files[name]) for name in MODALITIES}
    edge = float(loaded["t1"].header.get_zooms()[0])
    images = {name: np.asarray(image.dataobj).astype(np.float32) for name, image in loaded.items()}
    mask = np.any([v != 0 for v in images.values()], axis=0)
    out = folder / kind.__name__ / patient.id
    out.mkdir(parents=True)
    for name, v in kind(images, mask, edge, rng).items():
        nib.save(nib.Nifti1Image(np.round(v).astype(np.float32), loaded[name].affine), out / f"{patient.id}_{name}.nii")
    return Patient(patient.id, out)


def some(patients: Sequence[Patient], count: int | None) -> Sequence[Patient]:
    """So many of them, evenly from first to last: folders are often sorted by grade."""
    return patients if count is None else [patients[place * len(patients) // count] for place in range(count)]


def found(kind: Kind, patients: Sequence[Patient], model: Model) -> tuple[object, ...]:
    """One row of the table."""
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        spoilt = [spoil(patient, kind, Path(folder)) for patient in patients]
        options = PredictOptions(Path(folder) / "results", Choice("onnx", "cpu"), PredictSettings())
        predict(spoilt, model, options, lambda _: None, records.append)
    graded = [record for record in records if record.grade]
    limit = model.manifest.out_of_distribution.distance
    culprits = Counter(name for record in graded for name in record.outside).most_common(3)
    return (
        kind.__name__,
        len(records),
        sum(record.verdict == "unfamiliar" for record in graded),
        sum(record.distance is None or record.distance > limit for record in graded),
        sum(bool(record.outside) for record in graded),
        len(records) - len(graded),
        ", ".join(f"{name} {count}" for name, count in culprits),
    )


def main() -> None:
    """Spoil, grade and report."""
    names = [kind.__name__ for kind in KINDS]
    given = arguments(
        "Which spoilt scans does a model call unfamiliar?",
        ("model", {"type": Path, "help": "exported model"}),
        ("patients", {"type": Path, "help": "patients that the model has not seen"}),
        ("--count", {"type": int, "help": "spoilt copies of each kind; else of all patients"}),
        ("--kinds", {"nargs": "+", "choices": names, "default": names, "help": "else all"}),
    )
    model, patients = open_model(given.model), find_patients([given.patients])
    if not model.manifest.out_of_distribution.known:
        sys.exit("the model has no limits for what is familiar: it had too few patients")
    rows = [
        found(kind, patients if kind is as_it_is else some(patients, given.count), model)
        for kind in KINDS
        if kind.__name__ in given.kinds
    ]
    report("Spoilt scans", COLUMNS, rows, given.out)


if __name__ == "__main__":
    main()
