"""Where voxels lie: how modalities can disagree, and odd but right ways to store them."""

from itertools import permutations, product

import numpy as np

from .build import LPS, Case, Change, graded, header, on, refused, stored

GRIDS = "different grids"


def shifted(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = x, y, z
    return affine


def turned(degrees: float, axis: int = 2) -> np.ndarray:
    """A rotation about the origin."""
    affine, (a, b) = np.eye(4), [i for i in range(3) if i != axis]
    affine[a, a] = affine[b, b] = np.cos(np.radians(degrees))
    affine[b, a] = np.sin(np.radians(degrees))
    affine[a, b] = -affine[b, a]
    return affine


def sheared(by: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 1] = by
    return affine


def space(which: str, affine: np.ndarray) -> Change:
    """Something done to the patient's space, after the file's own affine."""
    return on(which, affine=lambda old: affine @ old)


def voxel(which: str, affine: np.ndarray) -> Change:
    """Something done to voxel indices, before the file's own affine."""
    return on(which, affine=lambda old: old @ affine)


def replaced(which: str, affine: np.ndarray) -> Change:
    return on(which, affine=affine)


def sized(x: float, y: float, z: float) -> np.ndarray:
    return np.diag([x, y, z, 1.0])


def padded(v: np.ndarray) -> np.ndarray:
    return np.pad(v, ((0, 0), (3, 2), (0, 0)))


def oriented(axes: tuple[int, ...], mirrored: tuple[bool, ...]) -> Case:
    name = "stored_" + "".join("xyzXYZ"[axis + 3 * mirrored[axis]] for axis in axes)
    return graded(name, stored("t2", axes, tuple(axis for axis in range(3) if mirrored[axis])))


ORIENTATIONS = list(product(permutations(range(3)), product((False, True), repeat=3)))

CASES: list[Case] = [
    *(oriented(axes, mirrored) for axes, mirrored in ORIENTATIONS),
    *(graded(f"stored_all_mirrored_{'xyz'[axis]}", stored("all", mirrored=(axis,))) for axis in range(3)),
    graded("stored_all_permuted", stored("all", (2, 0, 1))),
    graded("stored_all_permuted_mirrored", stored("all", (1, 2, 0), (0, 2))),
    graded(
        "stored_each_its_own", stored("flair", (1, 0, 2)), stored("t1", (2, 1, 0), (1,)), stored("t2", mirrored=(2,))
    ),
    graded("stored_permuted_qform", stored("t1", (2, 0, 1), (0,)), on("t1", sform_code=0)),
    graded("jitter_of_floats", space("t2", shifted(1e-5, 1e-5, -1e-5))),
    graded("jitter_within_tolerance", space("flair", shifted(0.05))),
    graded("jitter_of_spacing", voxel("t1ce", sized(1.001, 1, 1))),
    graded("jitter_of_direction", space("t1", turned(0.01))),
    refused("shift_x", GRIDS, space("t2", shifted(5))),
    refused("shift_y", GRIDS, space("flair", shifted(y=-1))),
    refused("shift_z", GRIDS, space("t1", shifted(z=240))),
    refused("shift_just_beyond", GRIDS, space("t1ce", shifted(0.12))),
    refused("shift_two_and_two", GRIDS, space("flair t1", shifted(z=2))),
    refused("shift_in_qform", GRIDS, space("t1", shifted(3)), on("t1", sform_code=0)),
    refused("origin_at_0", GRIDS, replaced("t1", sized(-1, -1, 1))),
    refused("spacing_of_one", GRIDS, voxel("t2", sized(1, 1, 3))),
    refused("spacing_halved", GRIDS, voxel("flair", sized(0.5, 0.5, 0.5))),
    refused("spacing_off_by_a_percent", GRIDS, voxel("t1", sized(1.01, 1, 1))),
    refused("axes_identity", GRIDS, replaced("flair", np.eye(4))),
    *(
        refused(f"mirrored_affine_{'xyz'[axis]}", GRIDS, voxel("t1", np.diag(np.where(np.arange(4) == axis, -1.0, 1))))
        for axis in range(3)
    ),
    graded(
        "mirrored_voxels_alone",
        on("all", voxels=lambda v: np.pad(v, ((0, 0), (0, 0), (3, 0)))),
        on("t1ce", voxels=lambda v: v[:, :, ::-1]),
        like=None,
        note="t1ce covers only",
    ),
    graded("shifted_voxels_alone", on("flair", voxels=lambda v: np.roll(v, 2, 0)), like=None, note="flair covers only"),
    refused("permuted_affine", GRIDS, on("t2", affine=lambda a: a[:, [2, 1, 0, 3]])),
    refused("permuted_voxels", GRIDS, on("t2", voxels=lambda v: v.transpose(2, 1, 0))),
    refused("turned_90", GRIDS, space("t1", turned(90))),
    refused("turned_180", GRIDS, space("t1", turned(180, 0))),
    refused("turned_by_2_in_one", GRIDS, space("t2", turned(2))),
    refused("fewer_slices", GRIDS, on("t2", voxels=lambda v: v[:, :, :12])),
    refused("more_rows", GRIDS, on("t1", voxels=padded)),
    refused("padded_with_right_affine", GRIDS, on("flair", voxels=padded), voxel("flair", shifted(y=-3))),
    refused("downsampled", GRIDS, on("t1ce", voxels=lambda v: v[::2, ::2, ::2]), voxel("t1ce", sized(2, 2, 2))),
    graded("oblique_5", space("all", turned(5)), note="rotated by 5", moved=True),
    graded("oblique_20", space("all", turned(20, 0)), note="rotated by 20", moved=True),
    graded("oblique_half", space("all", turned(0.5)), moved=True),
    graded("oblique_mirrored", stored("all", mirrored=(0, 1)), space("all", turned(-8, 1)), note="rotated", moved=True),
    refused("oblique_45", "ambiguous", space("all", turned(45))),
    refused("oblique_35", "ambiguous", space("all", turned(35, 1))),
    refused("oblique_two_axes", "ambiguous", space("all", turned(44, 0) @ turned(44, 1) @ turned(44, 2))),
    refused("oblique_one", GRIDS, space("t1", turned(5))),
    refused("sheared", "sheared", space("all", sheared(0.2))),
    refused("sheared_slightly", "sheared", space("all", sheared(0.02))),
    refused("sheared_one", "sheared|different", space("t2", sheared(0.1))),
    refused("singular_axis", "singular", header("t1", srow_x={0: 0})),
    refused("singular_parallel", "singular", replaced("all", LPS[:, [0, 0, 2, 3]])),
    refused("singular_flat", "singular", header("t2", srow_x={2: 0}, srow_y={2: 0}, srow_z={2: 0})),
    refused("voxels_of_10_um", "implausible", replaced("all", sized(0.01, 0.01, 0.01))),
    refused("voxels_of_3_cm", "implausible", replaced("all", sized(1, 1, 30))),
    refused("origin_beyond_reach", "affine", space("all", shifted(1e7))),
    graded("origin_elsewhere", space("all", shifted(-3000, 500, 20)), moved=True),
    graded("axes_plain", replaced("all", np.eye(4)), like=(on("all", voxels=lambda v: v[::-1, ::-1]),), moved=True),
    graded("anisotropic", voxel("all", sized(0.9, 1.1, 3)), like=None),
]
