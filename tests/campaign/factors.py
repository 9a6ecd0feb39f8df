"""What of the way from a scanner moves an answer: heads with one thing changed at a time.

python -m tests.campaign.factors 40 --keep DIR --jobs 8
python -m benchmarks.heads DIR RUN_OR_MODEL...

All are laid on BraTS's grid by the motion and under the mask that are known, so nothing is searched for: a head costs a
few seconds for each thing. `direct` is the head without a scanner. `tilted`: two degrees off in pose. `apart`: T1, T2
and FLAIR 0.3 mm off. `rim`: under a mask that is a voxel larger all around, so some of the skull's fluid is in it. The
others were scanned: `twice`: still, slices of 1 mm, no noise, so interpolated twice and no more; `noise`, `thick` (1 to
6 mm) and `moved`: that with one thing more; `scanned`: with all three; `scanned-rim`: that under the larger mask.
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
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from deploy.hospital.space.image import grid, resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE
from tests.campaign.registration import FOUND
from tests.campaign.ways import DIRECT, drawn, edge_kept, ideal_pose, inside, write_patient
from tests.deploy.hospital.head import Head, draw_head, scan
from toolkit.files import write_file

TILT = 2.0  # degrees: what the pose is off at most
APART = 0.3  # mm: what 95 % of the alignments are off at most
STILL = {"degrees": 0.0, "shift": 0.0}
SCANS: dict[str, dict[str, Any]] = {
    "twice": {**STILL, "slices": 1.0, "noise": 0.0},
    "noise": {**STILL, "slices": 1.0},
    "thick": {**STILL, "noise": 0.0},
    "moved": {"slices": 1.0, "noise": 0.0},
    "scanned": {},
}


def main(count: int = 2, jobs: int = 1, keep: Path | None = None) -> int:
    """Write the heads; 0."""
    with TemporaryDirectory() as place, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for number in pool.map(partial(write_head, keep or Path(place)), range(count)):
            print(f"head {number}", flush=True)
    return 0


def write_head(out: Path, number: int) -> int:
    """One head, with each thing changed; nothing where it is there."""
    folder = out / f"{number:03}"
    if not (folder / FOUND).is_file():
        with threadpool_limits(1):
            head = draw_head(5, number)
            for name, images in changed(head, number):
                write_patient(folder / name, images)
            write_file(folder / FOUND, json.dumps({"grade": head.grade}))
    return number


def changed(head: Head, number: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """A head without a scanner, and with each thing changed."""
    rng = np.random.default_rng([number, 1])
    ideal, edged = ideal_pose(head), edge_kept(head)
    mask = inside(head, ideal)
    larger = ndimage.binary_dilation(mask)
    yield DIRECT, drawn(edged, head, ideal, mask)
    axis = rng.standard_normal(3)
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_rotvec(np.deg2rad(TILT) * axis / np.linalg.norm(axis)).as_matrix()
    tilt[:3, 3] = head.centre - tilt[:3, :3] @ head.centre
    yield "tilted", drawn(edged, head, tilt @ ideal, inside(head, tilt @ ideal))
    off = {}
    for name, image in edged.items():
        apart = np.eye(4)
        step = rng.standard_normal(3)
        apart[:3, 3] = 0 if name == "t1ce" else APART * step / np.linalg.norm(step)
        off |= drawn({name: image}, head, apart @ ideal, mask)
    yield "apart", off
    yield "rim", drawn(head.images, head, ideal, larger)
    like = grid(SHAPE, AFFINE)
    for name, how in SCANS.items():
        made = scan(head, number, **how)
        sampled = {
            modality: to_volume(resample(to_image(series), like, made.motion[modality] @ ideal)).voxels
            for modality, series in made.series.items()
        }
        whole = {modality: np.maximum(np.rint(image), 1) for modality, image in sampled.items()}
        yield name, {modality: np.where(mask, image, 0) for modality, image in whole.items()}
        if name == "scanned":
            yield "scanned-rim", {modality: np.where(larger, image, 0) for modality, image in whole.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    sys.exit(main(**vars(parser.parse_args())))
