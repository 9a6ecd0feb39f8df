"""A phantom cohort as a hospital's scanner has it: series in motion, thick slices, noise; laid on BraTS's grid.

    python -m benchmarks.scanned OUT --patients 285 --seed 0 --difficulty 0.6 --edge 1.2
    grade compare OUT --strategies stable --seeds 3 --out study
    python -m benchmarks.heads HEADS study/runs/*      # what its networks make of heads that came from a scanner

The series are laid on the grid by the motion that is known, under the brain mask that is known: a patient costs a few
seconds in place of the half minute that bringing it in would take. With `--edge` the mask reaches up to so many mm into
the fluid around the brain, another distance for each patient. So a network that is trained on them has seen slices,
noise and masks that are drawn tighter or wider, but no error of registration.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import arguments
from deploy.hospital.space.image import grid, resample, to_image, to_volume
from deploy.hospital.space.pose import AFFINE, SHAPE
from tests.campaign.ways import ideal_pose, inside, write_patient
from tests.deploy.hospital.head import draw_head, scan
from toolkit.data.patients import CLASSES
from toolkit.data.phantom.cohort import SHARES
from toolkit.machine import cores


@dataclass(frozen=True)
class Wanted:
    """Which cohort, and where it goes."""

    out: Path
    seed: int
    difficulty: float
    edge: float  # mm


def write(wanted: Wanted, place: int) -> None:
    """One patient: scanned, laid on the grid, cut out of the skull; the folder appears when it is complete."""
    with threadpool_limits(1):
        head = draw_head(wanted.seed, place, wanted.difficulty, SHARES["a"])
        made = scan(head, seed=[wanted.seed, place])
        ideal, like = ideal_pose(head), grid(SHAPE, AFFINE)
        mask = inside(head, ideal, np.random.default_rng([wanted.seed, place, 1]).uniform(0, wanted.edge))
        folder = wanted.out / CLASSES[head.grade] / f"Scanned_{wanted.seed}_{place:04d}"
        unfinished = folder.with_name(f".{folder.name}")
        images = {}
        for name, series in made.series.items():
            image = to_volume(resample(to_image(series), like, made.motion[name] @ ideal)).voxels
            images[name] = np.where(mask, np.maximum(np.rint(image), 1), 0)
        write_patient(unfinished, images, folder.name)
        unfinished.rename(folder)


def main() -> None:
    """Write the cohort."""
    given = arguments(
        "A phantom cohort as a hospital's scanner has it.",
        ("folder", {"type": Path}),
        ("--patients", {"type": int, "default": 285}),
        ("--seed", {"type": int, "default": 0}),
        ("--difficulty", {"type": float, "default": 0.6}),
        ("--edge", {"type": float, "default": 0.0, "help": "mm of fluid that a mask takes in at most"}),
    )
    wanted = Wanted(given.folder, given.seed, given.difficulty, given.edge)
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        for _ in pool.map(partial(write, wanted), range(given.patients)):
            pass
    print(f"{given.patients} patients in {given.folder}")


if __name__ == "__main__":
    main()
