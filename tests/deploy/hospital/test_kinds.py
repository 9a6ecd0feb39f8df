"""Tag sets as scanners and technologists write them: each is taken for what it is, or left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.filewriter import dcmwrite

from deploy.hospital.study.choose import StudyRefused, choose_series
from deploy.hospital.study.headers import read_header
from deploy.hospital.study.kinds import Judgement, SeriesRules, judge
from deploy.hospital.study.series import Series, group
from deploy.hospital.study.source import Source
from deploy.hospital.study.study import Study, find_studies
from tests.deploy.hospital.heads import head
from tests.deploy.hospital.test_reading import real
from tests.deploy.hospital.writer import LOOKS, Look, Paper, datasets

TINY = head("t1", (12, 13, 13), (10, 10, 8))
IR, GR, MP = ("SE", "IR"), ("GR",), ("GR", "IR")
DERIVED = ("DERIVED", "SECONDARY")
GE, SIEMENS, PHILIPS = LOOKS["ge"], LOOKS["siemens"], LOOKS["philips"]

# What the series is meant to be, its tags. Kinds that begin with "out" or "conflict" say a word of the reason.
MEANT: list[tuple[str, Look]] = [
    # vendors' own
    *((("t1?" if name == "t1" else name), look) for looks in LOOKS.values() for name, look in looks.items()),
    ("t1", Look("Ax T1 PRE", 1, 650, 12)),
    ("t1ce", Look("Ax T1 +C", 1, 650, 12)),
    ("t1ce", Look("AX T1 C+", 1, 650, 12)),
    ("t1ce", Look("Ax T1 FS POST", 1, 650, 12)),
    ("t1ce", Look("T1 POST GAD 3D", 1, 8.2, 3.2, 450, MP, ("SS", "SP"), acquisition="3D")),
    ("t1ce", Look("SAG BRAVO +GD", 1, 8.4, 3.2, 450, ("GR",), ("SS", "SP"), acquisition="3D")),
    ("t1", Look("t1_se_tra_nativ", 1, 500, 9)),
    ("t1ce", Look("t1_se_tra_KM", 1, 500, 9)),
    ("t1ce", Look("T1 nach KM", 1, 500, 9)),
    ("t1", Look("T1 ohne KM", 1, 500, 9)),
    ("t1", Look("T1 vor KM", 1, 500, 9)),
    ("t1ce", Look("T1 GADO", 1, 500, 9)),
    ("t1", Look("T1 sans inj", 1, 500, 9)),
    ("t1", Look("AX T1 W/O CONTRAST", 1, 500, 9)),
    ("t1", Look("AX T1 NON CONTRAST", 1, 500, 9)),
    ("t1", Look("AX T1 -C", 1, 500, 9)),
    ("t1ce", Look("T1_3D_TFE_mdc", 1, 8.1, 3.7, None, GR, ("MP",), acquisition="3D")),
    ("t1", Look("T1 造影前", 1, 500, 9)),
    ("t1ce", Look("T1 造影後", 1, 500, 9)),
    ("t1ce", Look("T1W 造影", 1, 500, 9)),
    ("t1ce", Look("T1CE", 1, 500, 9)),
    ("t1ce", Look("t1c", 1, 500, 9)),
    ("t1ce", Look("AX T1 POST W/O FS", 1, 500, 9)),
    ("t1?", Look("AX T1 W/O FAT SAT", 1, 500, 9)),
    ("t1?", Look("AX T1 POSTERIOR FOSSA", 1, 500, 9)),
    ("t1?", Look("AX T1 FLAIR", 1, 2300, 9, 860, IR)),
    ("t1ce", Look("AX T1 FLAIR +C", 1, 2300, 9, 860, IR)),
    ("t1ce", Look("Unnamed", 1, 500, 9, agent="Clariscan")),
    ("t1?", Look("Unnamed", 1, 500, 9)),
    ("t1", Look("AX T1", 1, 500, 9, agent="NONE")),
    ("t1?", Look("AX T1", 1, None, None, sequence=())),
    ("flair", Look("3D FLAIR SAG", 1, 4800, 320, 1650, IR, acquisition="3D")),
    ("flair", Look("t2_space_dark-fluid_sag", 1, 5000, 388, 1800, IR, acquisition="3D")),
    ("flair", Look("AX T2 FLAIR FS", 1, 9000, 120, 2250, IR)),
    ("flair", Look("AX FLAIR POST", 1, 9000, 120, 2250, IR)),
    ("flair", Look("Series 7", 1, 9000, 120, 2250, IR)),
    ("t2", Look("T2 SPACE", 1, 3200, 408, acquisition="3D")),
    ("t2", Look("AX T2 PROPELLER", 1, 5000, 95, sequence=("RM",))),
    ("t2", Look("Series 8", 1, 5000, 95)),
    ("t2", Look("AX FSE", 1, 5000, 95)),
    ("t1?", replace(GE["t1"], image_type=("DERIVED", "PRIMARY", "MPR", "NORM"))),
    # not what is wanted
    ("out DERIVED", replace(GE["t1"], image_type=("DERIVED", "PRIMARY"))),
    ("out LOCALIZER", Look("T2 HASTE", 1, 4000, 90, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))),
    ("out 3 plane", Look("3-plane loc", 1, 4000, 90)),
    ("out adc", Look("ADC (10^-6 mm2/s)", 1, 4000, 90, image_type=(*DERIVED, "ADC"))),
    ("out ADC", Look("Apparent", 1, 4000, 90, image_type=("DERIVED", "PRIMARY", "ADC", "NORM"))),
    ("out dwi", Look("AX DWI b1000", 1, 4000, 90, sequence=("EP",))),
    ("out echo planar", Look("Unnamed", 1, 4000, 90, sequence=("EP", "SE"))),
    ("out echo planar", Look("T2 something", 1, 4000, 90, sequence=("SE",), sequence_name="*ep2d_b0")),
    ("out diffusion", Look("T2", 1, 4000, 90, more={"DiffusionBValue": 1000.0})),
    ("out tof", Look("TOF_3D_multi-slab", 1, 21, 3.4, None, GR, ("SP",), acquisition="3D")),
    ("out angiography", Look("T1 something", 1, 21, 3.4, None, GR, ("SP",), more={"AngioFlag": "Y"})),
    ("out MIP", Look("T1 something", 1, 21, 3.4, None, GR, image_type=("DERIVED", "SECONDARY", "MIP", "MPR"))),
    ("out t2*", Look("AX T2*", 1, 600, 20, None, GR)),
    ("out T2*", Look("AX HEME", 1, 600, 20, None, GR)),
    ("out swan", Look("Ax SWAN", 1, 50, 25, None, GR)),
    ("out perf", Look("ep2d_perf", 1, 1500, 30)),
    ("out subtraction", Look("T1 Subtraction", 1, 500, 9)),
    ("out stir", Look("AX STIR", 1, 4000, 60, 160, IR)),
    ("out roi", Look("FLAIR_ROI", 1, 9000, 120, 2250, IR)),
    ("out dir", Look("SAG DIR", 1, 7500, 318, 3000, IR)),
    ("out spine", Look("SAG T2 C-SPINE", 1, 4000, 100)),
    ("out KNEE", replace(GE["t2"], more={"BodyPartExamined": "KNEE"})),
    ("out steady-state", Look("T2 thin", 1, 6, 2.6, None, GR, ("SS",), acquisition="3D")),
    ("out not enough", Look("Series 9", 1, 9, 4, None, GR, ("SP",), acquisition="3D")),
    ("out not enough", Look("Series 9", 1, 3000, 20)),
    ("out not enough", Look("Series 9", 1, None, None, sequence=())),
    ("out modality CT", replace(GE["t1"], more={"Modality": "CT"})),
    ("out secondary captures", replace(GE["t1"], more={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"})),
    # facts that contradict each other
    ("conflict TE 100", Look("AX T1", 1, 4000, 100)),
    ("conflict TE 12", Look("AX T2", 1, 500, 12)),
    ("conflict TI 2200", Look("AX T2", 1, 9000, 120, 2200, IR)),
    ("conflict TE 120", Look("AX FLAIR", 1, 9000, 120)),
    ("conflict TI 160", Look("t2_tirm_cor", 1, 4000, 60, 160, IR)),
    ("conflict TE 20", Look("AX T2 PD", 1, 3000, 20)),
    ("conflict GADAVIST", Look("AX T1 PRE", 1, 500, 9, agent="GADAVIST")),
    ("conflict no agent", Look("AX T1 POST", 1, 500, 9, agent="NONE")),
    ("conflict before or after", Look("AX T1 PRE/POST", 1, 500, 9)),
    ("conflict before or after", Look("AX T1 W WO CONTRAST", 1, 500, 9)),
    (
        "conflict before the injection",
        Look("AX T1", 1, 500, 9, agent="GADAVIST", minutes=1, more={"ContrastBolusStartTime": "102500"}),
    ),
]


def series_of(look: Look, enhanced: bool = False, seed: str = "study") -> Series:
    headers = []
    for ds in datasets(TINY, look, Paper(enhanced=enhanced, seed=seed)):
        stream = BytesIO()
        dcmwrite(stream, ds, enforce_file_format=True)
        stream.seek(0)
        headers.append(read_header(stream, Source(Path(f"{ds.InstanceNumber}.dcm"))))
    (series,) = group(headers)
    return series


def agrees(meant: str, found: Judgement) -> bool:
    first, _, word = meant.partition(" ")
    if first in ("out", "conflict"):
        return not found.usable and found.kind == first.replace("out", "") and word in found.reason
    return found.usable and found.kind == first


@pytest.mark.parametrize(("meant", "look"), MEANT, ids=[f"{meant}: {look.description}" for meant, look in MEANT])
def test_a_tag_set_is_what_it_is_meant_to_be(meant: str, look: Look) -> None:
    found = judge(series_of(look), SeriesRules())
    assert agrees(meant, found), found


def test_enhanced_headers_say_the_same() -> None:
    classic_only = ("steady-state", "angiography", "before the injection", "diffusion", "RM", "KNEE", "PRIMARY")
    wrong = []
    for meant, look in MEANT[::3]:
        if any(word in meant for word in classic_only) or "RM" in look.sequence or look.more:
            continue  # tags that an enhanced header writes elsewhere, or that this writer does not
        found = judge(series_of(look, enhanced=True), SeriesRules())
        if not agrees(meant, found):
            wrong.append((meant, look.description, found))
    assert not wrong


def test_the_table_has_sixty_rows_of_every_kind() -> None:
    assert len(MEANT) >= 60
    assert {meant.split()[0] for meant, _ in MEANT} == {"t1", "t1?", "t1ce", "t2", "flair", "out", "conflict"}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("MR_small.dcm", "DERIVED"),
        ("MR_small_bigendian.dcm", "DERIVED"),
        ("MR_small_jp2klossless.dcm", "DERIVED"),
        ("MR_small_RLE.dcm", "DERIVED"),
        ("MR_truncated.dcm", "DERIVED"),
        ("CT_small.dcm", "modality CT"),
        ("rtplan.dcm", "RTPLAN"),
        ("test-SR.dcm", "a report"),
        ("examples_overlay.dcm", "ABDOMEN"),
        ("waveform_ecg.dcm", "ECG"),
        ("examples_rgb_color.dcm", "US"),
        ("SC_rgb_jpeg.dcm", "secondary captures"),
        ("emri_small.dcm", ""),
        ("emri_small_big_endian.dcm", ""),
        ("emri_small_jpeg_ls_lossless.dcm", ""),
    ],
)
def test_files_of_pydicom_are_no_series_of_a_study(name: str, word: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} comes with pydicom-data, which is not installed")
    (study,) = find_studies(Path(path))
    (series,) = study.series
    found = judge(series, SeriesRules())
    assert not found.usable
    assert word in found.reason
    with pytest.raises(StudyRefused, match="flair"):
        choose_series(study, SeriesRules())


def study_of(*looks: Look) -> Study:
    return Study("1.2", tuple(series_of(look) for look in looks), ())


def chosen(*looks: Look, **forced: str) -> Mapping[str, int | None]:
    selection = choose_series(study_of(*looks), SeriesRules(forced=forced))
    return {modality: series.number for modality, series in selection.chosen.items()}


def test_each_vendors_study_is_chosen_as_meant() -> None:
    for looks in LOOKS.values():
        assert chosen(*looks.values()) == {name: looks[name].number for name in ("flair", "t1", "t1ce", "t2")}


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([replace(GE["t1ce"], agent=None, description="AX T1")], "which of series 4 and 8 is after contrast?"),
        (
            [replace(GE["t1ce"], description="AX T1 PRE")],
            "series 8: the name says T1 pre, but the header names the agent GADAVIST",
        ),
        ([], "t1ce missing"),
        ([replace(GE["t1ce"], minutes=1)], "but acquired after series 8"),
        ([replace(GE["t1ce"], minutes=4)], "t1 missing: series 4"),
        ([replace(GE["t1ce"], more={"PatientID": "P2"})], "two patients in one study"),
        ([replace(GE["t1ce"], tr=4000, te=100)], "series 8: the name says T1 post, but it has TR 4000, TE 100"),
    ],
)
def test_contrast_that_cannot_be_told_is_refused_with_the_facts(looks: list[Look], reason: str) -> None:
    with pytest.raises(StudyRefused) as refusal:
        chosen(GE["flair"], GE["t1"], GE["t2"], *looks)
    assert reason in str(refusal.value)
    assert len(refusal.value.rows) == 3 + len(looks)


def test_a_time_of_injection_tells_two_unmarked_series_apart() -> None:
    start = {"ContrastBolusStartTime": "102100"}  # the study begins at 10:15
    t1 = replace(GE["t1"], more=start)
    t1ce = replace(GE["t1ce"], description="AX T1", agent=None, more=start)
    assert chosen(GE["flair"], t1, GE["t2"], t1ce)["t1ce"] == 8


def test_of_unmarked_series_the_earliest_is_before_contrast() -> None:
    later = replace(GE["t1"], number=7, minutes=7, acquisition="3D")  # perhaps after the injection
    assert chosen(*GE.values(), later)["t1"] == 4


def test_a_humans_word_wins() -> None:
    other = replace(GE["t1ce"], number=9, description="SOMETHING ELSE", agent=None)
    assert chosen(*GE.values(), other, t1ce="9")["t1ce"] == 9
    wrong_name = replace(GE["t1ce"], description="AX T1 PRE")
    looks = [GE["flair"], GE["t1"], GE["t2"], wrong_name]
    assert chosen(*looks, t1ce=series_of(wrong_name).uid)["t1ce"] == 8


@pytest.mark.parametrize(
    ("forced", "reason"),
    [
        ({"t1ce": "99"}, "no series has this number"),
        ({"t1ce": "8", "t1": "8"}, "both"),
        ({"dwi": "8"}, "none of flair, t1, t1ce, t2"),
    ],
)
def test_a_humans_word_that_cannot_be_is_refused(forced: dict[str, str], reason: str) -> None:
    with pytest.raises(StudyRefused, match=reason) as refusal:
        chosen(*GE.values(), **forced)
    assert len(refusal.value.rows) == 4


def test_losers_are_listed_with_why() -> None:
    repeat = replace(GE["t2"], number=6, minutes=6)
    selection = choose_series(study_of(*GE.values(), repeat), SeriesRules())
    outcomes = {row.series.number: row.outcome for row in selection.rows}
    assert outcomes[6] == "chosen as t2"
    assert outcomes[5] == "lost to series 6, which is a later repeat"


def test_a_sites_own_names() -> None:
    named = {"t1ce": ("^KOPF 3$",), "t1": ("^KOPF 1$",), "ignore": ("TEST",)}
    looks = [
        GE["flair"],
        replace(GE["t1"], description="Kopf 1"),
        GE["t2"],
        replace(GE["t1ce"], description="Kopf 3", agent=None),
        replace(GE["t2"], description="AX T2 TEST", number=12, minutes=20),
    ]
    selection = choose_series(study_of(*looks), SeriesRules(named))
    assert [series.number for series in selection.chosen.values()] == [3, 4, 8, 5]
    against_physics = judge(series_of(replace(GE["t2"], description="Kopf 3")), SeriesRules(named))
    assert against_physics.kind == "conflict"
    twice = judge(series_of(replace(GE["t1"], description="Kopf 1")), SeriesRules({"t1": ("Kopf",), "t2": ("Kopf",)}))
    assert twice.kind == "conflict"


@pytest.mark.parametrize(
    ("name", "chosen_numbers", "reason"),
    [
        ("tcga_fg6692_four_series", {"flair": 3, "t1": 4, "t1ce": 8, "t2": 5}, ""),
        ("siemens_xa30_enhanced_t1", {}, "flair and t2 missing: no series is of this kind; t1 and t1ce missing"),
        ("ge_classic_t1", {}, "flair and t2 missing: no series is of this kind; t1 and t1ce missing"),
    ],
)
def test_real_studies(tmp_path: Path, name: str, chosen_numbers: dict[str, int], reason: str) -> None:
    (study,) = find_studies(real(name, tmp_path))
    if not reason:
        found = choose_series(study, SeriesRules()).chosen
        assert {modality: series.number for modality, series in found.items()} == chosen_numbers
        return
    with pytest.raises(StudyRefused) as refusal:
        choose_series(study, SeriesRules())
    assert str(refusal.value).startswith(reason)


def test_reading_leaves_pydicoms_settings_alone() -> None:
    before = pydicom.config.settings.reading_validation_mode
    series_of(GE["t1"])
    assert pydicom.config.settings.reading_validation_mode == before
