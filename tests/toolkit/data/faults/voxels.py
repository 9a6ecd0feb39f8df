"""Voxels that are no image, and images with unusual numbers."""

import numpy as np

from .build import BRAIN, Case, Change, brain, graded, header, on, refused

SPOT = (10, 10, 7)
TWO = (10, 10, slice(7, 9))
THREE = (10, 10, slice(7, 10))
FEW = on("t1ce", voxels=lambda v: setting(v, TWO, 0))


def setting(voxels: np.ndarray, place: object, value: float, dtype: str = "") -> np.ndarray:
    """A copy, as another type if wanted, with a value at some place."""
    voxels = voxels.astype(dtype or voxels.dtype)
    voxels[place] = value
    return voxels


def spot(which: str, place: object, value: float, dtype: str = "f4") -> Change:
    return on(which, voxels=lambda v: setting(v, place, value, dtype))


def inside(which: str, function: object) -> Change:
    """Change the numbers inside the brain alone."""
    return on(which, voxels=lambda v: np.where(v != 0, function(v), 0))


def times(which: str, factor: float, dtype: str) -> Change:
    return on(which, voxels=lambda v: v.astype(dtype) * np.asarray(factor, dtype))


def plus(which: str, offset: int, dtype: str) -> Change:
    return on(which, voxels=lambda v: v.astype(dtype) + np.asarray(offset, dtype))


def outside(which: str, value: float, dtype: str) -> Change:
    """Another background, the brain as it was."""
    return on(which, voxels=lambda v: np.where(v != 0, v, value).astype(dtype))


def z_scored(v: np.ndarray) -> np.ndarray:
    return np.where(v != 0, (v - v[v != 0].mean()) / v[v != 0].std(), 0).astype("f8")


def labels(v: np.ndarray) -> np.ndarray:
    return np.select([v > 600, v > 500, v > 0], [4, 2, 1], 0).astype(np.uint8)


def only_a_few(count: int) -> Change:
    return on("t2", voxels=lambda v: np.where((v != 0).cumsum().reshape(v.shape) <= count, v, 0))


def copied(into: str, function: object = np.copy) -> Change:
    """Another modality's voxels become t1's, somehow changed."""
    return on(into, voxels=lambda _: function(brain("t1")))


def noisy(v: np.ndarray) -> np.ndarray:
    return np.where(v != 0, v + np.random.default_rng(9).normal(0, 20, v.shape), 0).astype("f4")


DOUBLE = "same voxels under two names"
EXTREME = "extreme voxels"
NOT_FINITE = "not finite"

CASES: list[Case] = [
    graded("nan_two", spot("t1ce", TWO, np.nan), like=(FEW,), note="2 voxels that are not finite"),
    graded("nan_two_double", spot("t1ce", TWO, np.nan, "f8"), like=(FEW,), note="2 voxels that are not finite"),
    graded("inf_two", spot("t1ce", TWO, np.inf), like=(FEW,), note="2 voxels that are not finite"),
    graded("inf_two_negative", spot("t1ce", TWO, -np.inf), like=(FEW,), note="2 voxels that are not finite"),
    graded("nan_outside", spot("t2", (1, 1, slice(0, 2)), np.nan), note="not finite"),
    graded("nan_in_a_corner", spot("flair", (0, 0, 0), np.nan), note="1 voxels that are not finite"),
    refused("nan_three", NOT_FINITE, spot("t1ce", THREE, np.nan)),
    refused("inf_three", NOT_FINITE, spot("flair", THREE, np.inf)),
    refused("nan_and_inf", NOT_FINITE, spot("t1", THREE, np.nan), spot("t1", (5, 5, 5), -np.inf)),
    refused("nan_many", NOT_FINITE, spot("t2", (slice(8, 12), slice(8, 12), 6), np.nan)),
    refused("nan_plane", NOT_FINITE, spot("t1", (slice(None), slice(None), 15), np.nan)),
    refused("nan_background", NOT_FINITE, outside("t1", np.nan, "f4")),
    refused("inf_background", NOT_FINITE, outside("all", -np.inf, "f8")),
    refused("nan_everywhere", NOT_FINITE, spot("t2", ..., np.nan)),
    refused("nan_brain", NOT_FINITE, spot("t2", BRAIN, np.nan)),
    graded("negative_inside", inside("t1", lambda v: v - 450)),
    graded("negative_a_few", inside("flair", lambda v: v - 200)),
    graded("z_scored_float", on("all", voxels=z_scored)),
    refused("negative_all", "darker", inside("t1ce", lambda v: v - 3000)),
    refused("inverted", "darker", on("t2", voxels=lambda v: 1000 - v)),
    graded("background_minus_1024", plus("all", -1024, "i2")),
    graded("background_37", plus("t1", 37, "i2")),
    graded("background_by_offset", header("all", scl_inter=-1024)),
    graded("background_float", on("flair", voxels=lambda v: v.astype("f4") - 1.5)),
    graded("background_each_its_own", plus("flair", 9, "i2"), plus("t1", -9, "i4"), plus("t2", 1e4, "f4")),
    graded("background_of_unsigned", plus("t2", 30_000, "u2")),
    graded("background_far_below", outside("t1", -1e4, "f4")),
    graded("background_minus_zero", on("t1", voxels=lambda v: np.where(v != 0, v, -0.0).astype("f4"))),
    refused("background_of_lowest_float", "t1", outside("t1", np.finfo("f4").min, "f4")),
    graded("cropped_to_the_brain", on("all", voxels=lambda v: v[BRAIN]), moved=True),
    graded("speck_in_a_corner", spot("t1", (0, 0, 0), 0)),
    refused("zeros", "empty", on("flair", voxels=np.zeros_like)),
    refused("zeros_float", "empty", on("t1", voxels=lambda v: np.zeros(v.shape, "f8"))),
    refused("zeros_all", "empty", on("all", voxels=np.zeros_like)),
    refused("constant", "constant", on("flair", voxels=lambda v: np.full_like(v, 7))),
    refused("constant_float", "constant", on("t2", voxels=lambda v: np.full(v.shape, -1.5, "f4"))),
    refused("constant_inside", "constant", inside("t1", lambda v: 100)),
    refused(
        "constant_with_noise_in_one_voxel",
        "constant|different values",
        on("t1ce", voxels=lambda v: (v > 600) + (v > 0) * 9.0),
    ),
    refused("constant_nearly", "saturated or constant", inside("t2", lambda v: np.where(v > 420, v, 300))),
    refused("one_plane", "nearly empty|empty", on("t1", voxels=lambda v: v * (np.arange(16) == 7))),
    refused("few_voxels_3", "empty", only_a_few(3)),
    refused("few_voxels_499", "nearly empty", only_a_few(499)),
    refused("few_voxels_a_fifth", "nearly empty", only_a_few(512)),
    graded("half_a_brain_in_one", only_a_few(1500), like=None),
    refused("few_voxels_everywhere", "empty", on("all", voxels=lambda v: v * (v > 620))),
    refused("label_map", "label map", on("t1", voxels=labels)),
    refused("label_map_float", "label map", on("flair", voxels=lambda v: labels(v).astype("f4"))),
    refused("mask", "constant", on("t1ce", voxels=lambda v: (v > 0).astype("u1"))),
    refused("label_map_all", "label map", on("all", voxels=labels)),
    refused("few_levels", "different values", inside("t2", lambda v: v // 150 + 1)),
    refused("saturated", "saturated", on("t1", voxels=lambda v: np.minimum(v, 300))),
    refused("saturated_16_bit", "saturated", on("t1", voxels=lambda v: np.minimum(v * 80.0, 32767).astype("i2"))),
    refused("saturated_8_bit", "saturated", on("t2", voxels=lambda v: np.minimum(v // 2, 255).astype("u1"))),
    refused("saturated_a_tenth", "saturated", on("t1ce", voxels=lambda v: np.minimum(v, 520))),
    graded("clipped_a_hundredth", on("t1", voxels=lambda v: np.minimum(v, 760)), like=None),
    graded("huge_float", times("t1", 1e30, "f4")),
    graded("huge_double", times("t2", 1e300, "f8")),
    graded("tiny_float", times("t1ce", 1e-30, "f4")),
    graded("tiny_double", times("flair", 1e-300, "f8")),
    graded("denormal_float", times("t1", 2.0**-149, "f4")),
    graded("denormal_double", times("t1", 5e-324, "f8")),
    graded("huge_int32", times("t1", 1 << 20, "i4")),
    graded("huge_int64", times("t2", 1 << 52, "i8")),
    graded("far_int64", plus("t1", 1 << 62, "i8")),
    graded("far_int64_negative", plus("flair", -(1 << 63), "i8")),
    graded("far_uint64", plus("t2", (1 << 64) - 2000, "u8")),
    graded("far_int32", plus("t1", -(1 << 31), "i4")),
    graded("far_uint32", plus("t1ce", (1 << 32) - 2000, "u4")),
    graded("far_float", plus("all", 10_000, "f4")),
    refused("doubles_to_both_ends", "t1", on("t1", voxels=lambda v: np.where(v != 0, v * 1.9e305, -1.7e308))),
    refused("spike_float", EXTREME, spot("t1", SPOT, 1e30)),
    refused("spike_largest_float", EXTREME, spot("t1ce", SPOT, np.finfo("f4").max)),
    refused("spike_largest_double", EXTREME, spot("t2", SPOT, np.finfo("f8").max, "f8")),
    refused("spike_unsigned", EXTREME, spot("flair", SPOT, 65535, "u2")),
    refused("spike_negative", EXTREME, spot("t2", SPOT, -1e6)),
    refused("spike_int64", EXTREME, spot("t1", SPOT, -(1 << 63), "i8")),
    refused(
        "spikes_to_both_ends", EXTREME, spot("t1", SPOT, (1 << 63) - 1, "i8"), spot("t1", (5, 5, 5), -(1 << 63), "i8")
    ),
    refused("spike_outside", EXTREME, spot("t1", (1, 1, 1), 1e9)),
    graded("vessel", spot("t1ce", SPOT, 4000, "i2"), like=None),
    refused("double", DOUBLE, copied("t1ce")),
    refused("double_scaled", DOUBLE, copied("t2", lambda v: v * 2 + 3)),
    refused("double_scaled_inside", DOUBLE, copied("flair", lambda v: np.where(v != 0, v * 2 + 3, 0))),
    refused("double_by_slope", DOUBLE, copied("t2"), header("t2", scl_slope=0.3, scl_inter=7)),
    refused("double_as_float", DOUBLE, copied("t1ce", lambda v: v.astype("f8") / 7)),
    refused("double_rounded", DOUBLE, copied("t2", lambda v: v // 10)),
    refused("double_but_for_one_voxel", DOUBLE, copied("t1ce", lambda v: setting(v, SPOT, 500))),
    refused("double_inverted", "darker|same voxels", copied("t2", lambda v: 900 - v)),
    refused("double_thrice", DOUBLE, copied("flair"), copied("t2")),
    graded("alike_but_noise", copied("t1ce", noisy), like=None),
]
