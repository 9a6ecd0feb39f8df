"""A healthy phantom brain: the MNI tissue maps, turned, stretched and bent, on a BraTS grid.

All lengths are mm in BraTS index space: the voxel indices of the 240 x 240 x 155 grid at 1 mm, axes left, posterior,
superior (RAS x = -u0, y = 239 - u1, z = u2). A brain drawn from one seed is the same at every voxel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from toolkit.arrays import Voxels
from toolkit.data.template import mni

Axes = tuple[Voxels, Voxels, Voxels]
Box = tuple[slice, slice, slice]

EXTENT = (240, 240, 155)  # mm, the BraTS field of view
CENTRE = np.array([118.0, 126.0, 70.0])  # mm, where real BraTS brains lie (mean of 6)
ZOOM = np.array([0.94, 0.94, 0.89])  # MNI brains are larger than those of the SRI24 space that BraTS uses
TIGHT = (0.0, 2.5)  # mm; a skull-stripping cuts as much off the brain's surface, or as little
ATROPHY = (0.35, 0.9)  # power of the CSF's share: the smaller, the wider sulci and ventricles are
BEND, BEND_LENGTH = 2.5, 14.0  # mm; slope 2.5 / (sqrt(2) 14) = 0.13 on average: far from folding


@dataclass(frozen=True)
class Atlas:
    """MNI maps cropped to the brain, axes left, posterior, superior, 1 mm, float32."""

    mask: Voxels  # 0 or 1
    depth: Voxels  # mm below the brain's surface
    grey: Voxels  # 0..1, as white; the rest of the mask is CSF
    white: Voxels
    sites: Voxels  # (N, 3) voxels of deep supratentorial white matter, where a tumour may start


@dataclass(frozen=True)
class Brain:
    """One brain. Tissue shares are vectors over its n voxels (the mask's, in C order), float32, 0..1, sum 1."""

    spacing: float  # mm
    shape: tuple[int, int, int]  # the whole grid
    box: Box  # the part of the grid that holds the brain
    axes: Axes  # mm, voxel centres of that part along each axis
    mask: Voxels  # bool (X, Y, Z), on that part
    points: Voxels  # (3, n), where each voxel comes from in the atlas
    csf: Voxels  # (n,)
    grey: Voxels
    white: Voxels
    depth: Voxels  # (n,) mm below the surface that the skull-stripping left
    forward: Voxels  # (3, 3) atlas -> patient, about the two centres
    centre: Voxels  # (3,) mm, where the middle of the atlas came to lie

    def paint(self, values: Voxels) -> Voxels:
        """Values (n,) of the brain's voxels on the whole grid, 0 elsewhere: same dtype, (X, Y, Z), Fortran order."""
        grid = np.zeros(self.shape, values.dtype, order="F")
        grid[self.box][self.mask] = values
        return grid


def grid_axes(spacing: float) -> Axes:
    """Voxel centres (mm) of the whole grid: the BraTS field of view, its first corner kept at every spacing."""
    x, y, z = ((np.arange(ceil(n / spacing)) + 0.5) * spacing - 0.5 for n in EXTENT)
    return x, y, z


def smooth_noise(rng: np.random.Generator, axes: Axes, length: float) -> Voxels:
    """A Gaussian random field of mean 0 and variance 1 at every point.

    White noise on a lattice over the whole field of view, seen through a Gaussian window: separable, so three matrix
    products. The draws do not depend on `axes`: a part, or a coarser grid, shows the same field.

    Args:
        rng: source of the lattice.
        axes: mm, coordinates along each axis.
        length: mm, lattice step and sigma of the window; the field's correlation is exp(-d^2 / (4 length^2)).

    Returns:
        float32 (X, Y, Z).
    """
    nodes = [np.arange(-3 * length, n + 3 * length, length) for n in EXTENT]
    field = rng.standard_normal([len(n) for n in nodes], dtype=np.float32)
    for along, lattice in zip(axes, nodes, strict=True):
        window = np.exp(-0.5 * ((along[:, None] - lattice) / length) ** 2)
        window /= np.linalg.norm(window, axis=1, keepdims=True)
        field = np.tensordot(field, window.astype(np.float32), axes=(0, 1))  # (Y, Z, X), (Z, X, Y), (X, Y, Z)
    return field


def linear(matrix: Voxels, axes: Axes, origin: Voxels) -> Voxels:
    """`matrix @ (u - origin)` at every grid point u: float32 (3, X, Y, Z)."""
    x, y, z = (np.asarray(u - o, dtype=np.float32) for u, o in zip(axes, origin, strict=True))
    plane = matrix.astype(np.float32)[:, :, None, None, None]
    return np.asarray(plane[:, 0] * x[:, None, None] + plane[:, 1] * y[:, None] + plane[:, 2] * z)


def crop(axes: Axes, low: Voxels, high: Voxels) -> Box:
    """The part of the axes between two corners (mm)."""
    spans = [np.searchsorted(u, (a, b)) for u, a, b in zip(axes, low, high, strict=True)]
    x, y, z = (slice(int(a), max(int(b), int(a) + 1)) for a, b in spans)
    return x, y, z


@lru_cache(maxsize=1)
def atlas() -> Atlas:
    """The MNI maps on this file's axes."""
    maps = [mni("t1"), mni("gm"), mni("wm")]
    offset = maps[0][1][:3, 3]
    # RAS -> LPS, as the grid; the offset of the first voxel follows.
    volumes = [volume[::-1, ::-1] for volume, _ in maps]
    origin = np.array([-(volumes[0].shape[0] - 1 + offset[0]), -(volumes[0].shape[1] - 1 + offset[1]), offset[2]])
    box = ndimage.find_objects((volumes[0] > 0).astype(np.uint8))[0]
    mask, grey, white = (np.ascontiguousarray(v[box]) for v in volumes)
    depth = ndimage.distance_transform_edt(np.pad(mask > 0, 1))[1:-1, 1:-1, 1:-1].astype(np.float32)
    mask = (mask > 0).astype(np.float32)
    grey, white = _sharpen(mask, grey, white)
    voxels = np.argwhere(white > 0.9)
    x, y, z = (voxels + [s.start for s in box] + origin).T  # mm, MNI, LPS
    deep = (np.abs(x) > 16) & (y > -45) & (y < 75) & (z > -12) & (z < 50)
    return Atlas(mask, depth, grey, white, voxels[deep])


def _sharpen(mask: Voxels, grey: Voxels, white: Voxels) -> tuple[Voxels, Voxels]:
    """Undo part of the blur that averaging 152 people left: shares to the power 1.5, summing to 1 again."""
    csf = np.clip(mask - grey - white, 0, 1)
    csf, grey, white = (1.3 * csf) ** 1.5, grey**1.5, white**1.5
    total = np.maximum(csf + grey + white, 1e-6)
    return grey / total * mask, white / total * mask


def draw_brain(rng: np.random.Generator, spacing: float) -> Brain:
    """A random brain.

    Rotation within 6 degrees, zoom within 8 % an axis, shift within 4 mm, a smooth bend, wider or narrower sulci, a
    tight or a wide skull-stripping.

    Args:
        rng: source of the pose.
        spacing: mm, voxel edge.

    Returns:
        The brain and where it is in the grid.
    """
    maps = atlas()
    pose = Rotation.from_euler("xyz", rng.uniform(-6, 6, 3), degrees=True).as_matrix()
    forward = pose * (ZOOM * rng.uniform(0.92, 1.08, 3))  # rotation after zoom: no shear in the atlas's axes
    centre = CENTRE + rng.uniform(-4, 4, 3)
    middle = (np.array(maps.mask.shape) - 1) / 2
    reach = np.abs(forward) @ middle + 2 * BEND
    whole = grid_axes(spacing)
    box = crop(whole, centre - reach, centre + reach)
    axes: Axes = (whole[0][box[0]], whole[1][box[1]], whole[2][box[2]])
    points = linear(np.linalg.inv(forward), axes, centre)  # (3, X, Y, Z)
    for axis, mid in enumerate(middle):
        points[axis] += BEND * smooth_noise(rng, axes, BEND_LENGTH) + np.float32(mid)
    depth = ndimage.map_coordinates(maps.depth, points, order=1) - rng.uniform(*TIGHT)
    mask = (ndimage.map_coordinates(maps.mask, points, order=0) > 0.5) & (depth > 0)
    points, depth = points[:, mask], depth[mask]  # (3, n), (n,)
    grey, white = (ndimage.map_coordinates(m, points, order=1) for m in (maps.grey, maps.white))
    csf = np.clip(1 - grey - white, 0, 1)
    wider = csf ** np.float32(rng.uniform(*ATROPHY))
    grey, white = (share * ((1 - wider) / np.maximum(1 - csf, 1e-6)) for share in (grey, white))
    csf = wider
    shape = (len(whole[0]), len(whole[1]), len(whole[2]))
    return Brain(spacing, shape, box, axes, mask, points, csf, grey, white, depth, forward, centre)


def draw_site(rng: np.random.Generator, brain: Brain) -> Voxels:
    """A point (3,), mm, in the deep white matter of either hemisphere."""
    maps = atlas()
    site = maps.sites[rng.integers(len(maps.sites))]
    site = site - (np.array(maps.mask.shape) - 1) / 2
    return np.asarray(brain.forward @ site + brain.centre)
