"""Volumes for tests of the study: heads of ellipsoids, each modality with its own levels, on its own oblique grid."""

from __future__ import annotations

import numpy as np

from deploy.hospital.volume import Volume

_LEVELS = {
    "flair": (60, 300, 500, 90),
    "t1": (200, 500, 420, 120),
    "t1ce": (220, 500, 430, 900),
    "t2": (80, 280, 480, 700),
}


def head(
    modality: str,
    shape: tuple[int, int, int] = (48, 56, 16),
    spacing: tuple[float, float, float] = (4.0, 4.0, 9.0),
    turn: float = 4.0,
) -> Volume:
    """A head of whole numbers, (X, Y, Z); its grid is turned by some degrees about two axes."""
    rng = np.random.default_rng(sum(map(ord, modality)))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((grid**2 * np.array([1.6, 1.3, 1.5]).reshape(3, 1, 1, 1)).sum(0))
    scalp, white, grey, spot = _LEVELS[modality]
    voxels = np.where(radius < 1, scalp, 0.0)
    voxels[radius < 0.85] = grey
    voxels[radius < 0.6] = white
    tumour = ((grid - np.array([0.3, -0.2, 0.1]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 0.05
    voxels[tumour] = spot
    voxels += np.where(radius < 1, rng.integers(0, 40, shape), rng.integers(0, 6, shape))
    a, b = np.radians([turn, turn / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-spacing[0], -spacing[1], spacing[2]])  # as scanners: left, posterior
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Volume(voxels.round().astype(np.float32), affine)


def heads() -> dict[str, Volume]:
    """All four modalities; T1 before and after contrast share one grid."""
    return {name: head(name, turn=7.0 if name in ("flair", "t2") else 4.0) for name in ("flair", "t1", "t1ce", "t2")}
