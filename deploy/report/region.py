"""The region that moved the answer most: where it is, and what the answer is without it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import SupportsFloat, SupportsInt, TypeAlias

import numpy as np
from scipy.ndimage import label

from deploy.model.manifest import Manifest
from deploy.predict.grader import Seen
from deploy.report.evidence import Brain, Occlusion, without
from deploy.runtime import Array
from toolkit.data.patients import CLASSES
from toolkit.data.reading.door import Images
from toolkit.data.reading.header import Affine, read_header

Voxel: TypeAlias = tuple[int, int, int]
Native: TypeAlias = tuple[Images, Array]  # images cut to the brain, and the map on them, outside the brain as well

LEAST = 0.005  # logits: half of the strongest evidence, below which nothing is outlined
HALF = 0.5  # of the strongest evidence: from here on a voxel belongs to the region
USUAL = 2.0  # logits, full colour where the validation patients' answers are not known
FIRST_BLOCK = 4096  # bytes of a file that hold its header, compressed or not
HEADER = 540  # bytes of NIfTI-2's
_SIDES = (("left", "right"), ("back", "front"), ("lower", "upper"))
_MIDDLES = (0.04, 0.1, 0.1)  # of the brain's extent, to either side of its centre: so near it is the middle


@dataclass(frozen=True)
class Region:
    """Around the strongest evidence, where it is at least half as strong and of the same sign.

    Attributes:
        sign: 1 where it speaks for HGG, -1 for LGG.
        after: P(HGG) when the region shows the brain's mean.
        limit: logits, size of the evidence from here on.
        volume: ml.
        mask: bool (X, Y, Z), the region on the cut images.
        voxel: of the strongest evidence, on the cut images.
        words: where in the brain the middle of the region is.
        places: the same as voxel of the patient's file and in mm, in words.
    """

    sign: int
    after: float
    limit: float
    volume: float
    mask: Brain
    voxel: Voxel
    words: str
    places: str

    @property
    def grade(self) -> str:
        """For which it speaks."""
        return CLASSES[self.sign > 0]


def find_region(seen: Seen, evidence: Occlusion, own: Native, manifest: Manifest) -> Region | None:
    """The region of one patient, and the answer without it: one inference.

    Args:
        seen: what was graded.
        evidence: of the same scan.
        own: the same patient's images at their own resolution, and the map on them.
        manifest: of the model.

    Returns:
        None where no piece moves the answer, or the network gives no number without the region.
    """
    calibration = manifest.calibration
    whole = evidence.on_scan()
    sign = 1 if float(whole.max(initial=0)) >= -float(whole.min(initial=0)) else -1
    signed = sign * whole
    limit = HALF * float(signed.max(initial=0))
    if limit < LEAST:
        return None
    region = _around(signed >= limit, np.unravel_index(int(signed.argmax()), signed.shape))
    logit = without(seen.runtime, seen.scan.data, region, seen.batch_size)
    if not np.isfinite(logit):
        return None
    images, native = own[0], sign * own[1]
    voxel = _strongest(native, images.mask)
    around = _around((native >= limit) & images.mask, voxel)
    middle = np.argwhere(around).mean(axis=0) if around.any() else voxel
    return Region(
        sign=sign,
        after=float(calibration.probability(logit)),
        limit=limit,
        volume=float(np.count_nonzero(region)) * manifest.grid.spacing**3 / 1000,
        mask=around,
        voxel=voxel,
        words=in_words(middle, images.mask.shape),
        places=_places(voxel, images),
    )


def full_scale(manifest: Manifest) -> float:
    """Logits of full colour, the same for all patients of a model.

    It is half of what separates the middle LGG from the middle HGG validation patient: removing a piece of full colour
    takes the network half of the way from one grade to the other.
    """
    calibration = manifest.calibration
    middles = []
    for name in CLASSES:
        values = np.clip(manifest.reference.get(name, ()), 1e-6, 1 - 1e-6)
        if not len(values) or not calibration.a:
            return USUAL
        middle = float(np.median(values))
        middles.append((log(middle / (1 - middle)) - calibration.b) / calibration.a)
    apart = abs(middles[1] - middles[0]) / 2
    return apart if apart > 0 else USUAL


def own_affine(file: Path) -> Affine:
    """(4, 4), voxel of a patient's file in its own order to mm."""
    with file.open("rb") as stream:
        block = stream.read(FIRST_BLOCK)
    if block.startswith(b"\x1f\x8b"):
        block = zlib.decompressobj(wbits=31).decompress(block, HEADER)
    return read_header(block[:HEADER]).affine


def in_words(place: Sequence[SupportsFloat], shape: tuple[int, ...]) -> str:
    """Where in the brain's box a place (3,), in voxels, is, as said at the light box: `left, front, upper part`."""
    said = []
    for index, size, (low, high), middle in zip(place, shape, _SIDES, _MIDDLES, strict=True):
        away = (float(index) + 0.5) / size - 0.5
        if abs(away) > middle:
            said.append(high if away > 0 else low)
    return f"{', '.join(said)} part of the brain" if said else "middle of the brain"


def box_affine(images: Images) -> Affine:
    """(4, 4), voxel of the cut images to mm."""
    affine = images.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in images.box]
    return affine


def _around(region: Brain, voxel: Sequence[SupportsInt]) -> Brain:
    """The part of a region that a voxel is in; empty where the voxel is outside."""
    parts, _ = label(region)
    here = parts[tuple(map(int, voxel))]
    found: Brain = (parts == here) & bool(here)
    return found


def _strongest(own: Array, mask: Brain) -> Voxel:
    x, y, z = np.unravel_index(int(np.where(mask, own, -np.inf).argmax()), own.shape)
    return int(x), int(y), int(z)


def _places(voxel: Voxel, images: Images) -> str:
    place = box_affine(images) @ [*voxel, 1]
    file = images.files["t1ce"]
    found = np.linalg.inv(own_affine(file)) @ place
    i, j, k = (round(float(value)) for value in found[:3])
    x, y, z = place[:3]
    return f"voxel {i}, {j}, {k} of {file.name} (counted from 0), {x:.0f}, {y:.0f}, {z:.0f} mm"
