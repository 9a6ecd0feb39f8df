"""The key pictures of an answer: a few axial slices of each modality, drawn from what the model saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from toolkit.data.patients import MODALITIES

Volume: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Rgb: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

LEVELS = (0.4, 0.55, 0.7)  # of the brain's height: below, through and above the ventricles
_GREYS = (0.5, 99.5)  # percentiles of the slice's brain that become black and white
_OPACITY = 0.6  # of the strongest evidence in the slice


@dataclass(frozen=True)
class Level:
    """One axial level.

    Attributes:
        caption: which level this is, and who chose it.
        tiles: modality -> RGB (Y, X, 3), front on top, the patient's right on the left.
    """

    caption: str
    tiles: dict[str, Rgb]


def key_pictures(scan: Volume, evidence: Volume | None = None) -> tuple[Level, ...]:
    """Axial levels of a scan.

    Args:
        scan: (4, X, Y, Z) in RAS, z-scores, 0 outside the brain.
        evidence: (X, Y, Z) on the same grid, for HGG where positive; its strongest level comes first, coloured.

    Returns:
        Three levels, of which the first is the level of strongest evidence where that is known; none without a brain.
    """
    brain = (scan != 0).any(axis=0)
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    if not heights.size:
        return ()
    fixed = [(int(heights[int(share * (len(heights) - 1))]), f"{share:.0%} of the brain's height") for share in LEVELS]
    if evidence is None:
        return tuple(Level(caption, _tiles(scan, brain, z, None)) for z, caption in fixed)
    z = int(np.where(brain, np.abs(evidence), 0).max(axis=(0, 1)).argmax())
    strongest = Level("strongest evidence (orange: for HGG, blue: for LGG)", _tiles(scan, brain, z, evidence))
    return (strongest, *(Level(caption, _tiles(scan, brain, at, None)) for at, caption in fixed[1:]))


def _tiles(scan: Volume, brain: np.ndarray[Any, Any], z: int, evidence: Volume | None) -> dict[str, Rgb]:
    inside = brain[:, :, z]
    return {
        name: _tile(scan[channel, :, :, z], inside, None if evidence is None else evidence[:, :, z])
        for channel, name in enumerate(MODALITIES)
    }


def _tile(plane: Volume, inside: np.ndarray[Any, Any], evidence: Volume | None) -> Rgb:
    low, high = np.percentile(plane[inside], _GREYS) if inside.any() else (0.0, 1.0)
    grey = np.where(inside, np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1), 0)
    colours = np.repeat(grey[..., None], 3, axis=2)  # (X, Y, 3)
    if evidence is not None:
        size = np.abs(evidence) / max(float(np.abs(evidence[inside]).max(initial=0)), 1e-6)
        weight = np.where(inside, _OPACITY * np.clip(size, 0, 1) ** 2, 0)[..., None]
        tint = np.where((evidence > 0)[..., None], (1.0, 0.45, 0.1), (0.2, 0.55, 1.0))
        colours = (1 - weight) * colours + weight * tint
    seen = colours[::-1, ::-1].transpose(1, 0, 2)  # (Y, X, 3)
    return np.ascontiguousarray((255 * seen).round().astype(np.uint8))
