"""Heads with a skull, in motion between series: how far off alignment, pose, mask and probability are.

python -m tests.campaign registration                         8 heads, without a model: no mask, no probability
python -m tests.campaign.registration 200 MODEL --jobs 12     as many as named, with a model that has a brain mask
python -m tests.campaign.registration 40 MODEL --still        the control: no motion, all series at 1 mm

The probability is compared with that of the same head without a scanner in between. The control tells what of the
difference is motion and thick slices, and what comes from the mask, the pose and the interpolation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from deploy.hospital.space.image import resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE, find_pose
from deploy.hospital.space.prepare import prepare
from deploy.hospital.space.quality import APART, INFORMATION
from deploy.hospital.space.register import Alignment, align
from deploy.hospital.volume import Volume
from tests.deploy.hospital.head import Head, Scan, draw_head, scan
from toolkit.errors import PatientRefused
from toolkit.machine import cores

HEADS = 8
FAR = 2.0  # mm: an alignment worse than this has to be noted or refused


class Found(NamedTuple):
    """What one head gave: mm off by series, which are noted, degrees off; with a model Dice and both probabilities."""

    off: dict[str, float]
    noted: dict[str, bool]
    degrees: float
    dice: float = np.nan
    ingested: float = np.nan
    direct: float = np.nan
    threshold: float = np.nan

    @property
    def change(self) -> float:
        """|dP(HGG)|."""
        return abs(self.ingested - self.direct)

    @property
    def flips(self) -> bool:
        """Whether the grade is another."""
        return (self.ingested >= self.threshold) != (self.direct >= self.threshold)


class Way(NamedTuple):
    """How heads are looked at: with which model, on how many threads, and whether without motion."""

    model: Path | None = None
    threads: int = 1
    still: bool = False


def main(
    count: int = HEADS, model: Path | None = None, jobs: int = 1, still: bool = False, out: Path | None = None
) -> int:
    """Print a line for each head and the figures; 0 where all hold.

    Args:
        count: of heads.
        model: with a brain mask; None: the geometry alone.
        jobs: processes.
        still: without motion, all series at 1 mm.
        out: JSON file of the heads.
    """
    way = Way(model, max(1, cores() // jobs), still)
    found = list(looked_at(range(count), way, jobs))
    if out:
        heads = [one._asdict() if one else None for one in found]
        out.write_text(json.dumps({"still": still, "heads": heads}) + "\n", encoding="utf-8")
    return report(found)


def looked_at(numbers: range, way: Way, jobs: int) -> Iterator[Found | None]:
    """What each head gave, in their order; None: refused."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for number, (found, said) in zip(numbers, pool.map(partial(look_at, way), numbers), strict=True):
            print(f"head {number}: {said}", flush=True)
            yield found


def look_at(way: Way, number: int) -> tuple[Found | None, str]:
    """One head: what it gave, None where it is refused, and that in words."""
    start = process_time()
    with threadpool_limits(way.threads):
        head = draw_head(5, number)
        made = scan(head, number, degrees=0.0, shift=0.0, slices=1.0) if way.still else scan(head, number)
        try:
            found = with_model(head, made, way) if way.model else geometry(head, made)
        except PatientRefused as reason:
            return None, f"refused: {reason}"
    return found, f"{found}, {process_time() - start:.0f} s of CPU"


def geometry(head: Head, made: Scan) -> Found:
    """Alignment of the raw series, and the pose of T1ce under the true mask."""
    images = {name: to_image(volume) for name, volume in made.series.items()}
    alignments = {name: align(images["t1ce"], images[name]) for name in images if name != "t1ce"}
    mask = to_image(Volume(head.mask.astype(np.float32), head.affine))
    here = to_volume(resample(mask, images["t1ce"], np.linalg.inv(made.motion["t1ce"]))).voxels > 0.5
    t1ce = made.series["t1ce"]
    pose = find_pose(Volume(np.where(here, t1ce.voxels, np.float32(0)), t1ce.affine))
    return Found(*_off(head, made, alignments), _degrees(head, made, pose.matrix))


def with_model(head: Head, made: Scan, way: Way) -> Found:
    """The whole way: series -> BraTS space -> P(HGG), against the patient written without a scanner in between."""
    from deploy.hospital.space.brain import open_brain
    from deploy.model.folder import BRAIN, open_model

    model = open_model(way.model)
    done = prepare(made.series, open_brain(model.read(BRAIN), way.threads), lambda _: None)
    into = np.linalg.inv(made.motion["t1ce"]) @ done.pose.matrix
    truth = _on_brats(head.mask.astype(np.float32), head, into) > 0.5
    dice = float(2 * np.count_nonzero(truth & done.mask)) / float(np.count_nonzero(truth) + np.count_nonzero(done.mask))
    ideal = np.eye(4)
    ideal[:3, :3] = head.upright.T
    ideal[:3, 3] = head.centre - head.upright.T @ (AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3])
    with TemporaryDirectory() as place:
        both = (("ingested", dict(done.images)), ("direct", direct(head, ideal)))
        given = [_probability(model, images, Path(place) / name, way.threads) for name, images in both]
    off = _off(head, made, done.alignments)
    degrees = _degrees(head, made, done.pose.matrix)
    return Found(*off, degrees, dice, *given, model.manifest.calibration.threshold)


def direct(head: Head, into: np.ndarray) -> dict[str, np.ndarray]:
    """The brain in BraTS space without a scanner in between; its edge keeps the brain's values.

    Interpolated after the skull is cut off, it would have a rim of half values, which no brain of BraTS has: there the
    skull is cut off last. It moved the logit by 2.
    """
    inside = _on_brats(head.mask.astype(np.float32), head, into) > 0.5
    nearest = tuple(ndimage.distance_transform_edt(~head.mask, return_distances=False, return_indices=True))
    return {
        name: np.where(inside, np.maximum(np.rint(_on_brats(image[nearest], head, into)), 1), 0)
        for name, image in head.images.items()
    }


def report(heads: list[Found | None]) -> int:
    """Print the figures; 0 where no alignment is far off unseen, and 19 of 20 are within 1 mm and 3 degrees."""
    found = [one for one in heads if one]
    off = np.array([value for one in found for value in one.off.values()])
    unseen = sum(value > FAR and not one.noted[name] for one in found for name, value in one.off.items())
    degrees = np.array([one.degrees for one in found])
    print(f"{len(found)} heads, {len(heads) - len(found)} refused; {len(off)} alignments: {_spread(off)} mm,")
    print(f"within 1 mm: {np.mean(off < 1):.1%}; {np.sum(off > FAR)} beyond {FAR:g} mm, {unseen} of them not noted")
    print(f"pose: {_spread(degrees)} degrees, {np.mean(degrees < 3):.1%} within 3")
    dice = np.array([one.dice for one in found])
    if np.isfinite(dice).all():
        change = np.array([one.change for one in found])
        flips = sum(one.flips for one in found)
        print(f"Dice of the mask: {_spread(dice)}, least {dice.min():.3f}, {np.mean(dice >= 0.95):.1%} at least 0.95")
        print(f"|dP(HGG)|: {_spread(change)}, at most 0.05 in {np.mean(change <= 0.05):.1%}; {flips} grades flip")
    return int(unseen > 0 or np.mean(off < 1) < 0.95 or np.mean(degrees < 3) < 0.95)


def _off(head: Head, made: Scan, found: dict[str, Alignment]) -> tuple[dict[str, float], dict[str, bool]]:
    """Mean distance over the brain from where the motion carried it, mm; and whether the quality check would say so."""
    origin = made.motion["t1ce"]
    points = origin[:3, :3] @ head.points + origin[:3, 3:]
    off, noted = {}, {}
    for name, one in found.items():
        apart = one.matrix - made.motion[name] @ np.linalg.inv(origin)
        off[name] = round(float(np.linalg.norm(apart[:3, :3] @ points + apart[:3, 3:], axis=0).mean()), 3)
        noted[name] = bool(one.agreement > APART.note or one.information < INFORMATION.note)
    return off, noted


def _degrees(head: Head, made: Scan, pose: np.ndarray) -> float:
    wanted = made.motion["t1ce"][:3, :3] @ head.upright.T
    return round(float(np.degrees(Rotation.from_matrix(wanted.T @ pose[:3, :3]).magnitude())), 2)


def _on_brats(image: np.ndarray, head: Head, into: np.ndarray) -> np.ndarray:
    like = to_image(Volume(np.zeros(SHAPE, np.float32), AFFINE))
    found = to_volume(resample(to_image(Volume(np.asarray(image, np.float32), head.affine)), like, into)).voxels
    return np.maximum(found, 0)


def _probability(model, images: dict[str, np.ndarray], folder: Path, threads: int) -> float:
    from deploy.predict.reader import read_patient
    from deploy.runtime import Choice
    from deploy.runtimes.open import open_runtime
    from toolkit.data.patients import Patient

    folder.mkdir()
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image.astype(np.int16), AFFINE), folder / f"x_{name}.nii.gz")
    read = read_patient(Patient("x", folder), model.manifest.grid, None)
    logits = open_runtime(model, Choice("onnx", "cpu", threads=threads)).infer(read.scan.data[None]).logits
    return float(model.manifest.calibration.probability(logits[:, 1] - logits[:, 0])[0])


def _spread(values: np.ndarray) -> str:
    return f"median {np.median(values):.2f}, 95 % {np.percentile(values, 95):.2f}, worst {values.max():.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=HEADS)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--out", type=Path)
    sys.exit(main(**vars(parser.parse_args())))
