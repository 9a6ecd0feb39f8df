"""Heads with a skull, in motion between series: how far off alignment, pose, mask and probability are.

python -m tests.campaign registration                       8 heads, without a model: no mask, no probability
python -m tests.campaign.registration 200 MODEL             as many as named, with a model that has a brain mask
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from deploy.hospital.space.image import resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE, find_pose
from deploy.hospital.space.prepare import Prepared, prepare
from deploy.hospital.space.quality import APART, INFORMATION
from deploy.hospital.space.register import Alignment, align
from deploy.hospital.volume import Volume
from tests.deploy.hospital.head import Head, Scan, draw_head, scan
from toolkit.errors import PatientRefused

HEADS = 8
FAR = 2.0  # mm: an alignment worse than this has to be noted or refused


class Found(NamedTuple):
    """What one head gave: mm off by series, which are noted, degrees off, Dice, |dP(HGG)|, whether the grade flips."""

    off: dict[str, float]
    noted: dict[str, bool]
    degrees: float
    dice: float | None = None
    change: float | None = None
    flips: bool = False


def main(count: int = HEADS, model: Path | None = None) -> int:
    """Print a line for each head and the figures; 0 where all hold."""
    found: list[Found] = []
    refused = 0
    for number in range(count):
        start = process_time()
        head = draw_head(5, number)
        try:
            found.append(with_model(head, number, model) if model else geometry(head, scan(head, number)))
        except PatientRefused as reason:
            refused += 1
            print(f"head {number}: refused: {reason}", flush=True)
            continue
        print(f"head {number}: {found[-1]}, {process_time() - start:.0f} s of CPU", flush=True)
    return report(found, refused)


def geometry(head: Head, made: Scan) -> Found:
    """Alignment of the raw series, and the pose of T1ce under the true mask."""
    images = {name: to_image(volume) for name, volume in made.series.items()}
    alignments = {name: align(images["t1ce"], images[name]) for name in images if name != "t1ce"}
    mask = to_image(Volume(head.mask.astype(np.float32), head.affine))
    here = to_volume(resample(mask, images["t1ce"], np.linalg.inv(made.motion["t1ce"]))).voxels > 0.5
    t1ce = made.series["t1ce"]
    pose = find_pose(Volume(np.where(here, t1ce.voxels, np.float32(0)), t1ce.affine))
    return Found(*_off(head, made, alignments), _degrees(head, made, pose.matrix))


def with_model(head: Head, seed: int, folder: Path) -> Found:
    """The whole way: series -> BraTS space -> P(HGG), against the patient written without a scanner in between."""
    from deploy.hospital.space.brain import open_brain
    from deploy.model.folder import BRAIN, open_model
    from toolkit.machine import cores

    model = open_model(folder)
    made = scan(head, seed)
    done = prepare(made.series, open_brain(model.read(BRAIN), cores()), lambda _: None)
    into = np.linalg.inv(made.motion["t1ce"]) @ done.pose.matrix
    truth = _on_brats(head.mask.astype(np.float32), head, into) > 0.5
    dice = 2 * np.count_nonzero(truth & done.mask) / (np.count_nonzero(truth) + np.count_nonzero(done.mask))
    ideal = np.eye(4)
    ideal[:3, :3] = head.upright.T
    ideal[:3, 3] = head.centre - head.upright.T @ (AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3])
    direct = {name: _on_brats(np.where(head.mask, image, 0), head, ideal) for name, image in head.images.items()}
    with TemporaryDirectory() as place:
        first, second = (_probability(model, images, Path(place) / name) for name, images in _both(done, direct))
    threshold = model.manifest.calibration.threshold
    off = _off(head, made, done.alignments)
    degrees = _degrees(head, made, done.pose.matrix)
    return Found(*off, degrees, dice, abs(first - second), (first >= threshold) != (second >= threshold))


def report(found: list[Found], refused: int) -> int:
    """Print the figures; 0 where no alignment is far off unseen, and 19 of 20 are within 1 mm and 3 degrees."""
    off = np.array([value for one in found for value in one.off.values()])
    unseen = sum(value > FAR and not one.noted[name] for one in found for name, value in one.off.items())
    degrees = np.array([one.degrees for one in found])
    print(f"{len(found)} heads, {refused} refused; {len(off)} alignments: {_spread(off)} mm, {unseen} far off unseen")
    print(f"within 1 mm: {np.mean(off < 1):.1%}; pose: {_spread(degrees)} degrees, {np.mean(degrees < 3):.1%} within 3")
    if dice := [one.dice for one in found if one.dice is not None]:
        change = np.array([one.change for one in found])
        flips = sum(one.flips for one in found)
        print(f"Dice of the mask: {_spread(np.array(dice))}; |dP(HGG)|: {_spread(change)}, at most 0.05 in")
        print(f"{np.mean(change <= 0.05):.1%}; {flips} grades flip")
    return int(unseen > 0 or np.mean(off < 1) < 0.95 or np.mean(degrees < 3) < 0.95)


def _off(head: Head, made: Scan, found: dict[str, Alignment]) -> tuple[dict[str, float], dict[str, bool]]:
    """Mean distance over the brain from where the motion carried it, mm; and whether the quality check would say so."""
    origin = made.motion["t1ce"]
    points = origin[:3, :3] @ head.points + origin[:3, 3:]
    off, noted = {}, {}
    for name, one in found.items():
        apart = one.matrix - made.motion[name] @ np.linalg.inv(origin)
        off[name] = round(float(np.linalg.norm(apart[:3, :3] @ points + apart[:3, 3:], axis=0).mean()), 3)
        noted[name] = one.agreement > APART.note or one.information < INFORMATION.note
    return off, noted


def _degrees(head: Head, made: Scan, pose: np.ndarray) -> float:
    wanted = made.motion["t1ce"][:3, :3] @ head.upright.T
    return round(float(np.degrees(Rotation.from_matrix(wanted.T @ pose[:3, :3]).magnitude())), 2)


def _on_brats(image: np.ndarray, head: Head, into: np.ndarray) -> np.ndarray:
    like = to_image(Volume(np.zeros(SHAPE, np.float32), AFFINE))
    found = to_volume(resample(to_image(Volume(np.asarray(image, np.float32), head.affine)), like, into)).voxels
    return np.maximum(found, 0)


def _both(done: Prepared, direct: dict[str, np.ndarray]) -> list[tuple[str, dict[str, np.ndarray]]]:
    return [("ingested", dict(done.images)), ("direct", {name: np.rint(image) for name, image in direct.items()})]


def _probability(model, images: dict[str, np.ndarray], folder: Path) -> float:
    from deploy.predict.reader import read_patient
    from deploy.runtime import Choice
    from deploy.runtimes.open import open_runtime
    from toolkit.data.patients import Patient

    folder.mkdir()
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image.astype(np.int16), AFFINE), folder / f"x_{name}.nii.gz")
    read = read_patient(Patient("x", folder), model.manifest.grid, None)
    logits = open_runtime(model, Choice("onnx", "cpu")).infer(read.scan.data[None]).logits
    return float(model.manifest.calibration.probability(logits[:, 1] - logits[:, 0])[0])


def _spread(values: np.ndarray) -> str:
    return f"median {np.median(values):.2f}, 95 % {np.percentile(values, 95):.2f}, worst {values.max():.2f}"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
