"""Whether a prepared patient can be trusted: each figure has two limits, one to note and one to refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.hospital.space.pose import Pose
from deploy.hospital.space.register import Alignment
from deploy.hospital.volume import Volume
from toolkit.errors import PatientRefused


class Limit(NamedTuple):
    """Noted beyond `note`, refused beyond `refuse`."""

    note: float
    refuse: float


LARGE = Limit(2000.0, 2400.0)  # ml, brain mask
SMALL = Limit(900.0, 600.0)  # ml
CUT = Limit(0.10, 0.50)  # area of the mask in an outer plane of the field of view, as a share of its largest section
APART = Limit(1.5, 3.0)  # mm between the best start and the next, 104 mm from the middle; in the brain less
INFORMATION = Limit(0.30, 0.15)  # nats; good ones of a real study 0.75 to 0.87, one 28 mm off 0.06
OUTSIDE = Limit(0.01, 0.10)  # share of the brain that a series does not cover
SCALE = Limit(0.20, 0.40)  # how far the template's size is from the brain's, as a share
POSE = Limit(5.0, 20.0)  # mm between the two best starts of the pose


def cut_share(brain: Volume) -> float:
    """How much of the brain the field of view cuts off: the mask's area in an outer plane over its largest section.

    Args:
        brain: probability, as `find_brain` gives it.

    Returns:
        0 (the brain is whole) .. 1; the lowest plane is left out, as the brainstem has to be cut somewhere.
    """
    mask = brain.voxels >= 0.5  # axes left, posterior, superior
    shares = []
    for axis in range(3):
        areas = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        low = 0 if axis == 2 else areas[0]
        shares.append(max(low, areas[-1]) / max(1, areas.max()))
    return float(max(shares))


def contrast(images: Mapping[str, NDArray[np.float32]], mask: NDArray[np.bool_]) -> float:
    """How much brighter than in T1 some of the brain is in T1ce.

    Both are scaled by median and spread in the mask. Enhancement (vessels, choroid plexus, tumour) is a tail of the
    difference to the right; without contrast both tails are alike.

    Returns:
        Right tail less left tail, over their sum: -1..1; well above 0 where contrast is seen.
    """
    scaled = []
    for name in ("t1", "t1ce"):
        inside = images[name][mask]
        low, middle, high = np.percentile(inside, (25, 50, 75))
        scaled.append((inside - middle) / max(high - low, 1e-6))
    difference = scaled[1] - scaled[0]
    low, middle, high = np.percentile(difference, (0.5, 50, 99.5))
    right, left = high - middle, middle - low
    return float((right - left) / max(right + left, 1e-6))


def judge(
    brain_ml: float,
    cut: float,
    outside: Mapping[str, float],
    alignments: Mapping[str, Alignment],
    pose: Pose,
) -> tuple[str, ...]:
    """What has to be noted.

    Args:
        brain_ml: volume of the mask, ml.
        cut: see `cut_share`.
        outside: modality -> share of the brain that the series does not cover.
        alignments: of the series that were laid on T1ce.
        pose: of T1ce.

    Raises:
        PatientRefused: a figure is beyond what can be believed, with the figure.
    """
    size = max(abs(1 - scale) for scale in pose.scale)
    figures: list[tuple[str, float, Limit]] = [
        (f"the brain mask holds {brain_ml:.0f} ml", brain_ml, LARGE),
        (f"the brain mask holds {brain_ml:.0f} ml", -brain_ml, Limit(-SMALL.note, -SMALL.refuse)),
        (f"the field of view of t1ce cuts the brain: {cut:.0%} of its largest section in an outer plane", cut, CUT),
        (f"the template had to be stretched by {size:.0%} to fit the brain", size, SCALE),
        (f"two starts of the pose ended {pose.agreement:.1f} mm apart", pose.agreement, POSE),
    ]
    figures += [(f"{name} does not cover {share:.1%} of the brain", share, OUTSIDE) for name, share in outside.items()]
    for name, found in alignments.items():
        about = f"{name} on t1ce"
        apart = found.agreement
        figures.append((f"{about}: no two starts ended closer than {apart:.1f} mm", apart, APART))
        low = Limit(-INFORMATION.note, -INFORMATION.refuse)
        figures.append((f"{about}: mutual information is {found.information:.2f}", -found.information, low))
    for sentence, value, limit in figures:
        if not value <= limit.refuse:
            raise PatientRefused(f"{sentence} (limit {abs(limit.refuse):g}); look at the series")
    beyond = [(sentence, limit) for sentence, value, limit in figures if value > limit.note]
    return tuple(f"{sentence} (usual limit {abs(limit.note):g})" for sentence, limit in beyond)
