"""Which spoilt scans does a model call unfamiliar? `python benchmarks/unfamiliar.py MODEL PATIENTS [COUNT]`.

Spoils copies of patients with the model's modalities (files of phantoms, or others in BraTS's layout) in several ways
and counts the verdicts: every spoilt kind should be called unfamiliar (or be refused), patients as they are seldom.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from deploy.model import open_model
from deploy.predict import PredictOptions, predict
from deploy.record import Record
from deploy.runtimes import Choice
from toolkit.config import PredictSettings
from toolkit.data.patients import MODALITIES, Patient, find_patients, match_modalities

RNG = np.random.default_rng(0)


def as_it_is(images, mask, edge):
    return images


def noise(images, mask, edge):
    """Signal-to-noise of about 3."""
    return {k: np.where(mask, v + RNG.normal(0, 0.35 * v[mask].mean(), v.shape), 0) for k, v in images.items()}


def blurred(images, mask, edge):
    """2.5 mm standard deviation, at 1 mm."""
    return {k: np.where(mask, ndimage.gaussian_filter(v, 2.5 / edge), 0) for k, v in images.items()}


def scaled(images, mask, edge):
    return {k: 100 * v for k, v in images.items()}


def one_scaled(images, mask, edge):
    return {k: 100 * v if k == "t1ce" else v for k, v in images.items()}


def skull(images, mask, edge):
    """A dark gap, then a bright scalp of 6 mm around the head."""
    gap = ndimage.binary_dilation(mask, iterations=max(1, round(5 / edge)))
    scalp = ndimage.binary_dilation(gap, iterations=max(1, round(6 / edge)))
    out = {}
    for name, v in images.items():
        shell = np.where(scalp & ~gap, 1.6, 0.15) * v[mask].mean() * RNG.uniform(0.8, 1.2, v.shape)
        out[name] = np.where(mask, v, np.where(scalp, shell, 0))
    return out


def cropped(images, mask, edge):
    """The left half is gone."""
    half = int(ndimage.center_of_mass(mask)[0])
    return {k: np.where(np.arange(v.shape[0])[:, None, None] < half, v, 0) for k, v in images.items()}


def half_empty(images, mask, edge):
    """The upper half of the brain is gone."""
    half = int(ndimage.center_of_mass(mask)[2])
    return {k: np.where(np.arange(v.shape[2]) < half, v, 0) for k, v in images.items()}


def half_empty_t2(images, mask, edge):
    half = int(ndimage.center_of_mass(mask)[2])
    return {k: np.where(np.arange(v.shape[2]) < half, v, 0) if k == "t2" else v for k, v in images.items()}


def metastases(images, mask, edge):
    """Seven ring-enhancing spheres of 8 to 14 mm across with oedema, spread over the brain."""
    deep = np.argwhere(ndimage.binary_erosion(mask, iterations=max(1, round(12 / edge))))
    out = {k: v.copy() for k, v in images.items()}
    grid = np.indices(mask.shape)
    for centre in deep[RNG.choice(len(deep), 7)]:
        away = edge * np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0))
        radius = RNG.uniform(4, 7)
        oedema, ring, core = (away < 2 * radius) & mask, (away < radius) & mask, (away < 0.5 * radius) & mask
        for k, factor in (("flair", 1.7), ("t2", 1.6), ("t1", 0.85)):
            out[k][oedema] *= factor
        out["t1ce"][ring] *= 1.8
        out["t1ce"][core] *= 0.4
    return out


KINDS = (
    as_it_is, noise, blurred, scaled, one_scaled, skull, cropped, half_empty, half_empty_t2, metastases,
)  # fmt: skip


def spoil(patient: Patient, kind, folder: Path) -> Patient:
    """Write a spoilt copy."""
    files = match_modalities(patient.folder).modalities
    loaded = {name: nib.load(files[name]) for name in MODALITIES}
    edge = float(loaded["t1"].header.get_zooms()[0])
    images = {name: np.asarray(image.dataobj).astype(np.float32) for name, image in loaded.items()}
    mask = np.any([v != 0 for v in images.values()], axis=0)
    out = folder / kind.__name__ / patient.id
    out.mkdir(parents=True)
    for name, v in kind(images, mask, edge).items():
        nib.save(nib.Nifti1Image(np.round(v).astype(np.float32), loaded[name].affine), out / f"{patient.id}_{name}.nii")
    return Patient(patient.id, out)


def main() -> None:
    model = open_model(Path(sys.argv[1]))
    patients = find_patients([Path(sys.argv[2])])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else len(patients)
    print(f"{'kind':15} patients  unfamiliar  refused  by distance  by images; commonest")
    for kind in KINDS:
        records: list[Record] = []
        chosen = patients if kind is as_it_is else patients[:count]
        with tempfile.TemporaryDirectory() as folder:
            spoilt = [spoil(patient, kind, Path(folder)) for patient in chosen]
            options = PredictOptions(Path(folder), Choice("onnx", "cpu"), PredictSettings())
            predict(spoilt, model, options, lambda _: None, records.append)
        graded = [record for record in records if record.grade]
        limit = model.manifest.out_of_distribution.distance
        far = sum(record.distance is None or record.distance > limit for record in graded)
        culprits = Counter(name for record in graded for name in record.outside).most_common(3)
        print(
            f"{kind.__name__:15} {len(records):8}  {sum(r.verdict == 'unfamiliar' for r in graded):10}  "
            f"{len(records) - len(graded):7}  {far:11}  {sum(bool(r.outside) for r in graded):9}; "
            + ", ".join(f"{name} {n}" for name, n in culprits),
            flush=True,
        )


if __name__ == "__main__":
    main()
