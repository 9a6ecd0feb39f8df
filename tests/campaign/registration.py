"""Heads with a skull, in motion between series: how far off alignment, pose and mask are.

python -m tests.campaign registration                              8 heads, without a model: no mask
python -m tests.campaign.registration 200 MODEL --keep DIR --jobs 8   with the brain mask of a model; the patients stay
python -m tests.campaign.registration 200 --card --keep DIR        with the brain mask's own network, in torch on a GPU
python -m tests.campaign.registration 200 --card --keep DIR --ends   keeps the first way and the last alone: faster
python -m tests.campaign.registration 40 MODEL --still             the control: no motion, all series at 1 mm

A second call with the same DIR makes what is missing. `python -m benchmarks.heads DIR RUN_OR_MODEL...` then tells what
networks say of each head as it was brought in, against the same head without a scanner in between.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time, time
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from deploy.hospital.space.brain import INPUT, Brain, open_brain
from deploy.hospital.space.image import resample, to_image, to_volume
from deploy.hospital.space.pose import find_pose
from deploy.hospital.space.prepare import prepare
from deploy.hospital.space.quality import APART, INFORMATION
from deploy.hospital.space.register import Alignment, align
from deploy.hospital.volume import Volume
from tests.campaign.ways import ends, inside, ways, write_patient
from tests.deploy.hospital.head import Head, Scan, draw_head, scan
from toolkit.errors import PatientRefused
from toolkit.files import write_file
from toolkit.machine import cores

HEADS = 8
FAR = 2.0  # mm: an alignment worse than this has to be noted or refused
FOUND = "head.json"  # written last: a head that has it is whole
_AT_ONCE: Any = None  # heads whose mask is searched on the card at the same time, in all processes


class Found(NamedTuple):
    """What one head gave: mm off by series, which are noted, degrees off; with a brain mask its Dice, and seconds."""

    grade: int
    off: dict[str, float]
    noted: dict[str, bool]
    degrees: float
    dice: float | None = None
    seconds: dict[str, float] | None = None


class Way(NamedTuple):
    """How heads are looked at: with which brain mask, where they stay, without motion, and until when."""

    model: Path | None = None
    card: bool = False
    keep: Path | None = None
    still: bool = False
    ends: bool = False
    until: float = float("inf")
    threads: int = 1


def main(
    count: int = HEADS,
    model: Path | None = None,
    jobs: int = 1,
    keep: Path | None = None,
    within: float = float("inf"),
    **how: bool,
) -> int:
    """Print a line for each head and the figures; 0 where all hold.

    Args:
        count: of heads.
        model: with a brain mask; None: the geometry alone.
        jobs: processes.
        keep: folder of the patients; None: they are not kept.
        within: seconds after which no head is begun.
        how: `card`: the brain mask in torch on a GPU; `still`: without motion, all series at 1 mm; `ends`: of each head
            only what met no scanner and what was brought in are kept.
    """
    with TemporaryDirectory() as place:
        way = Way(model, keep=keep or Path(place), until=time() + within, threads=max(1, cores() // jobs), **how)
        return report(list(looked_at(range(count), way, jobs)))


def looked_at(numbers: range, way: Way, jobs: int) -> Iterator[Found | None]:
    """What each head gave, in their order; None: refused. Those that were not begun in time are left out."""
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (context.Semaphore(2),)) as pool:
        for number, (found, said) in zip(numbers, pool.map(partial(look_at, way), numbers), strict=True):
            if said:
                print(f"head {number}: {said}", flush=True)
                yield found


def _begin(at_once: Any) -> None:
    globals()["_AT_ONCE"] = at_once


def look_at(way: Way, number: int) -> tuple[Found | None, str]:
    """One head: what it gave, None where it is refused, and that in words; no words: not begun in time."""
    folder = way.keep / f"{number:03}"
    if (folder / FOUND).is_file():
        kept = json.loads((folder / FOUND).read_text("utf-8"))
        return (Found(**kept) if "grade" in kept else None), f"kept: {kept}"
    if time() > way.until:
        return None, ""
    start = process_time()
    with threadpool_limits(way.threads):
        head = draw_head(5, number)
        made = scan(head, number, degrees=0.0, shift=0.0, slices=1.0) if way.still else scan(head, number)
        try:
            with_mask = way.model or way.card
            found = brought_in(head, made, way, folder) if with_mask else geometry(head, made)
        except PatientRefused as reason:
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder / FOUND, json.dumps({"refused": str(reason)}))
            return None, f"refused: {reason}"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / FOUND, json.dumps(found._asdict()))
    return found, f"{found}, {process_time() - start:.0f} s of CPU"


def geometry(head: Head, made: Scan) -> Found:
    """Alignment of the raw series, and the pose of T1ce under the true mask."""
    images = {name: to_image(volume) for name, volume in made.series.items()}
    alignments = {name: align(images["t1ce"], images[name]) for name in images if name != "t1ce"}
    mask = to_image(Volume(head.mask.astype(np.float32), head.affine))
    here = to_volume(resample(mask, images["t1ce"], np.linalg.inv(made.motion["t1ce"]))).voxels > 0.5
    t1ce = made.series["t1ce"]
    pose = find_pose(Volume(np.where(here, t1ce.voxels, np.float32(0)), t1ce.affine))
    return Found(head.grade, *_off(head, made, alignments), _degrees(head, made, pose.matrix))


def brought_in(head: Head, made: Scan, way: Way, folder: Path) -> Found:
    """The whole way, series -> BraTS space, and the patients of each of `WAYS`."""
    done = prepare(made.series, _brain(way), lambda _: None)
    into = np.linalg.inv(made.motion["t1ce"]) @ done.pose.matrix
    truth = inside(head, into)
    dice = float(2 * np.count_nonzero(truth & done.mask)) / float(np.count_nonzero(truth) + np.count_nonzero(done.mask))
    for name, images in ends(head, done) if way.ends else ways(head, done, into, truth):
        write_patient(folder / name, images)
    seconds = {stage: round(value, 2) for stage, value in done.seconds.items()}
    off = _off(head, made, done.alignments)
    return Found(head.grade, *off, _degrees(head, made, done.pose.matrix), dice, seconds)


def report(heads: list[Found | None]) -> int:
    """Print the figures; 0 where no alignment is far off unseen, and 19 of 20 are within 1 mm and 3 degrees."""
    found = [one for one in heads if one]
    off = np.array([value for one in found for value in one.off.values()])
    unseen = sum(value > FAR and not one.noted[name] for one in found for name, value in one.off.items())
    degrees = np.array([one.degrees for one in found])
    print(f"{len(found)} heads, {len(heads) - len(found)} refused; {len(off)} alignments: {_spread(off)} mm,")
    print(f"within 1 mm: {np.mean(off < 1):.1%}; {np.sum(off > FAR)} beyond {FAR:g} mm, {unseen} of them not noted")
    print(f"pose: {_spread(degrees)} degrees, {np.mean(degrees < 3):.1%} within 3")
    dice = np.array([one.dice for one in found if one.dice is not None])
    if len(dice):
        print(f"Dice of the mask: {_spread(dice)}, least {dice.min():.3f}, {np.mean(dice >= 0.95):.1%} at least 0.95")
    return int(unseen > 0 or np.mean(off < 1) < 0.95 or np.mean(degrees < 3) < 0.95)


@cache
def _brain(way: Way) -> Brain:
    from deploy.model.folder import BRAIN, open_model

    return Brain(_Card(), "cuda") if way.card else open_brain(open_model(way.model).read(BRAIN), way.threads)


class _Card:
    """The network that `brain.onnx` is made of, in full float32 on a GPU; called as a session of ONNX Runtime is."""

    def __init__(self) -> None:
        import torch

        from deploy.export.brain import _exportable, _weights

        torch.backends.cudnn.allow_tf32 = False
        self.network = _exportable(_weights()).cuda()

    def run(self, _names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        import torch

        with _AT_ONCE, torch.inference_mode():
            found = self.network(torch.from_numpy(given[INPUT]).cuda()).cpu().numpy()
            torch.cuda.empty_cache()  # for the others
        return [found]


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


def _spread(values: np.ndarray) -> str:
    return f"median {np.median(values):.2f}, 95 % {np.percentile(values, 95):.2f}, worst {values.max():.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=HEADS)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--within", type=float, default=float("inf"))
    parser.add_argument("--card", action="store_true")
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--ends", action="store_true")
    sys.exit(main(**vars(parser.parse_args())))
