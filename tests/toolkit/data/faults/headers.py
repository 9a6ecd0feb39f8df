"""Oddities and faults of the NIfTI header."""

import numpy as np
from nibabel.nifti1 import Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader

from .build import Case, Change, compressed, graded, header, on, packed, refused, renamed
from .streams import put

NAN, INF = float("nan"), float("inf")
BIG = {"order": ">"}
NIFTI2 = {"kind": Nifti2Header}
EXTENSION = b"\1\0\0\0" + (48).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"comment".ljust(40, b"\0")


def as_type(dtype: str, factor: float = 1.0) -> Change:
    """T2's voxels as another type, after an integer factor or divisor that makes them fit."""
    return on("t2", voxels=lambda v: (v // round(1 / factor) if factor < 1 else v * np.int64(factor)).astype(dtype))


def unset(sform: int = 0, qform: int = 0) -> dict[str, int]:
    return {"sform_code": sform, "qform_code": qform}


def afresh(place: int, new: bytes) -> Change:
    """Overwrite bytes of t1's content, then compress."""
    return packed("t1", put(place, new), compressed)


CONTRADICTS = "contradicts itself|truncated|damaged"
QFORM_ALONE = on("all", sform_code=0)

CASES: list[Case] = [
    *(graded(f"type_{t}", as_type(t), like=(as_type("i2"),)) for t in ("u2", "i4", "u4", "i8", "u8", "f4", "f8")),
    *(graded(f"type_{t}", as_type(t, 1 / 8), like=(as_type("i2", 1 / 8),)) for t in ("i1", "u1")),
    *(refused(f"type_{t}", "voxels of type", on("t1", voxels=lambda v, t=t: v.astype(t))) for t in ("c8", "c16")),
    refused("type_float128", "float128", header("t1", datatype=1536, bitpix=128)),
    refused("type_rgb", "RGB", header("t2", datatype=128, bitpix=24)),
    refused("type_rgba", "RGBA", header("t1ce", datatype=2304, bitpix=32)),
    refused("type_binary", "binary", header("t1", datatype=1, bitpix=1)),
    refused("type_none", "type code 0", header("t1", datatype=0)),
    refused("type_unknown", "type code 999", header("flair", datatype=999)),
    refused("type_negative", "type code -4", header("flair", datatype=-4)),
    refused("type_wider", CONTRADICTS, header("t1", datatype=16, bitpix=32)),
    refused("type_narrower", CONTRADICTS, header("t1", datatype=2, bitpix=8)),
    *(refused(f"bitpix_{n}", "bitpix", header("t1", bitpix=n)) for n in (0, 8, 32, -16)),
    graded("big_endian", on("t1", **BIG)),
    graded("big_endian_all", on("all", **BIG)),
    graded("big_endian_float", on("all", voxels=lambda v: v.astype("f4"), **BIG)),
    graded("big_endian_int64", on("t2", voxels=lambda v: v.astype("i8"), **BIG)),
    refused("endian_of_length_alone", "contradicts|damaged|magic", afresh(0, b"\0\0\1\x5c")),
    refused("header_length_0", "header is damaged", afresh(0, bytes(4))),
    refused("header_length_349", "header is damaged", afresh(0, b"\x5d\1\0\0")),
    refused("header_zeroed", "header is damaged", afresh(0, bytes(348))),
    graded("nifti2", on("t1", **NIFTI2)),
    graded("nifti2_all_big_endian", on("all", **NIFTI2, **BIG)),
    graded("nifti2_qform", on("all", sform_code=0, **NIFTI2)),
    refused("nifti2_no_codes", "orientation", on("t2", **unset(), **NIFTI2)),
    refused("nifti2_magic_damaged", "header is damaged", on("t1", **NIFTI2), afresh(8, b"\n\n\n\n")),
    refused("nifti2_affine_enormous", "affine", on("t1", fields={"srow_x": [1e300, 0, 0, 1e300]}, **NIFTI2)),
    refused("nifti2_quaternion_enormous", "affine", on("all", fields={"quatern_b": 1e300}, sform_code=0, **NIFTI2)),
    refused("nifti2_dim_enormous", "too large", on("t1", fields={"dim": {1: 1 << 62}}, **NIFTI2)),
    refused("nifti2_offset_enormous", "voxels cannot start", on("t1", fields={"vox_offset": 1 << 62}, **NIFTI2)),
    refused("nifti2_pair", "pair", on("t1", kind=Nifti2PairHeader)),
    refused("pair", "pair", on("t1", kind=Nifti1PairHeader, between=b"")),
    refused("analyze", "Analyze", afresh(344, bytes(4)), renamed("t1", "x_t1.nii.gz")),
    *(refused(f"magic_{m.hex()}", "magic|pair", afresh(344, m)) for m in (b"n+2\0", b"N+1\0", b"n+1 ", b"nil\0")),
    graded("slope_0", header("t1", scl_slope=0), note="slope 0"),
    graded("slope_nan", header("t1ce", scl_slope=NAN, scl_inter=NAN), note="slope nan"),
    graded("slope_inf", header("t1ce", scl_slope=INF), note="slope inf"),
    graded("slope_0_with_offset", header("t2", scl_slope=0, scl_inter=5)),
    graded("slope_tiny", header("flair", scl_slope=1e-30)),
    graded("slope_denormal", header("flair", scl_slope=1e-42)),
    graded("slope_huge", header("t2", scl_slope=1e30)),
    graded("slope_and_offset", header("t1", scl_slope=0.01, scl_inter=-5)),
    graded("slope_and_huge_offset", header("t1", scl_slope=0.01, scl_inter=1e20)),
    graded("offset_alone", header("all", scl_inter=37)),
    graded("slope_negative", header("t1ce", scl_slope=-1), on("t1ce", voxels=lambda v: -v)),
    graded(
        "slope_negative_with_offset", header("t2", scl_slope=-0.5, scl_inter=500), on("t2", voxels=lambda v: 1000 - v)
    ),
    graded("slope_negative_float", header("all", scl_slope=-2), on("all", voxels=lambda v: -v.astype("f4"))),
    refused("slope_sign_lost", "darker", on("t1", voxels=lambda v: -v)),
    refused("slope_sign_wrong", "darker", header("t1", scl_slope=-1)),
    refused(
        "slope_sign_wrong_unsigned", "darker", header("t2", scl_slope=-1), on("t2", voxels=lambda v: v.astype("u2"))
    ),
    refused("offset_nan", "scaling offset", header("t1", scl_inter=NAN)),
    refused("offset_inf", "scaling offset", header("t2", scl_inter=-INF)),
    graded("sform_alone", on("all", qform_code=0)),
    graded("qform_alone", QFORM_ALONE),
    graded("qform_alone_in_one", on("t1ce", sform_code=0)),
    graded("codes_mixed", on("t1", sform_code=4, qform_code=3), on("t2", sform_code=2, qform_code=0)),
    graded("codes_unknown", on("t1", sform_code=9, qform_code=7)),
    graded("forms_disagree", on("t1", qform=np.eye(4)), note="disagree"),
    graded("forms_disagree_all", on("all", qform=np.diag([1, 1, 3, 1.0])), note="disagree"),
    refused("codes_0", "orientation", on("t1", **unset())),
    refused("codes_0_all", "orientation", on("all", **unset())),
    refused("codes_negative", "orientation", on("t2", **unset(-1, -1))),
    graded("qfac_0", QFORM_ALONE, header("all", pixdim={0: 0})),
    refused("qfac_2", "affine", QFORM_ALONE, header("t1", pixdim={0: 2})),
    refused("qfac_turned", "different grids", QFORM_ALONE, header("t1", pixdim={0: -1})),
    *(refused(f"pixdim_{n}", "affine", QFORM_ALONE, header("t1", pixdim={2: n})) for n in (0, -1, NAN, INF, 1e38)),
    *(graded(f"pixdim_{n}_sform", on("t2", fields={"pixdim": {3: n}}), note="disagree") for n in (0, -1, NAN, INF, 3)),
    *(
        graded(f"pixdim_{n}_sform_alone", on("all", fields={"pixdim": {3: n}}, qform_code=0), note="pixdim")
        for n in (0, NAN, 3)
    ),
    refused("quaternion_too_long", "affine", QFORM_ALONE, header("t2", quatern_b=0.9, quatern_c=0.9)),
    refused("quaternion_nan", "affine", QFORM_ALONE, header("t2", quatern_d=NAN)),
    graded("quaternion_nan_sform", header("t2", quatern_d=NAN), note="disagree"),
    refused("quaternion_offset_inf", "affine", QFORM_ALONE, header("t1", qoffset_x=INF)),
    *(refused(f"sform_{n}", "affine", header("t1", srow_y={1: n})) for n in (NAN, INF, -INF, 1e38)),
    refused("sform_origin_nan", "affine", header("flair", srow_z={3: NAN})),
    refused("sform_zeros", "affine", header("t1", srow_x=0, srow_y=0, srow_z=0)),
    graded("units_unset", header("all", xyzt_units=0)),
    graded("units_unknown", header("t1", xyzt_units=5)),
    graded("units_with_time", header("t1", xyzt_units=2 | 8)),
    graded(
        "units_metres",
        on("all", affine=lambda a: np.diag([1e-3] * 3 + [1]) @ a, fields={"xyzt_units": 1}),
        note="metres",
    ),
    graded(
        "units_micrometres_one",
        on("t2", affine=lambda a: np.diag([1e3] * 3 + [1]) @ a, fields={"xyzt_units": 3}),
        note="micrometres",
    ),
    refused("units_metres_wrong", "affine", header("t1", xyzt_units=1)),
    refused("units_micrometres_wrong", "affine", header("all", xyzt_units=3)),
    *(
        refused(f"start_{n:g}", "voxels cannot start", header("t1", vox_offset=n))
        for n in (0, 348, 352.5, -352, NAN, INF, 1e30)
    ),
    *(refused(f"start_{n}", CONTRADICTS, header("t1", vox_offset=n)) for n in (353, 368, 10_000)),
    graded("extension", on("t1", between=EXTENSION)),
    graded("extension_damaged", on("t1ce", between=b"\1\0\0\0" + b"\xff" * 44)),
    graded("extension_flag_without", on("t2", between=b"\1\2\3\4")),
    graded("gap_before_voxels", on("all", between=bytes(48))),
    graded("dim_0_is_7", header("t1", dim={0: 7})),
    graded("axes_of_length_1", on("t1", voxels=lambda v: v[..., None, None])),
    graded("dim_behind_0_damaged", header("t2", dim={4: 0, 5: -3, 6: 999})),
    *(refused(f"dim_0_is_{n}", "dimensions|-D", header("t1", dim={0: n})) for n in (0, 8, -3, 1, 2, 24 * 256)),
    *(
        refused(f"dim_1_is_{n}", "dimensions|too large|truncated|more data|no volume", header("t1", dim={1: n}))
        for n in (0, -24, 1, 4, 23, 25, 1024, 1025, 32767)
    ),
    refused("dims_swapped", "different grids", header("t2", dim={1: 16, 3: 24})),
    refused("dims_regrouped", "different grids", header("flair", dim={1: 48, 2: 12})),
    refused("dims_enormous", "too large", header("t1", dim={1: 30000, 2: 30000, 3: 30000})),
    refused("dims_at_the_limit", "too large", header("t1", dim={1: 1024, 2: 1024, 3: 1024})),
    refused("dims_beyond_the_stream", "truncated", header("t1", dim={1: 400, 2: 400, 3: 200})),
    refused("dims_4", "4-D", on("t1", voxels=lambda v: np.stack([v, v], -1))),
    refused("dims_4_leading", "4-D", on("t2", voxels=lambda v: v[None])),
    refused("dims_5_vector", "5-D", on("t2", voxels=lambda v: np.stack([v] * 3, -1)[:, :, :, None])),
    refused("dims_2", "2-D", on("t1", voxels=lambda v: v[:, :, 8])),
    refused("dims_1", "1-D", on("t1", voxels=lambda v: v[:, 8, 8])),
    refused("dims_thin", "no volume", on("all", voxels=lambda v: v[:, :, 6:9])),
    graded(
        "text_fields_filled", header("all", descrip=b"x" * 80, aux_file=b"y" * 24, intent_name=b"=cmd|' /C calc'!A0")
    ),
    graded("unused_fields_odd", header("t1", cal_max=NAN, cal_min=INF, slice_code=99, dim_info=255, toffset=NAN)),
    graded("intent_of_a_label_map", header("t1", intent_code=1002)),
]
